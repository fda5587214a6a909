import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from cli.main import app
from schemas.errors import ConfigError, ModelError, TidegateError

MAPPING = """
transaction_id: id
customer_id: {column: customer, prefix: c}
event_time: ts
amount: amount
currency: {constant: EUR}
merchant_id: shop
label: {column: bad, fraud: [1, "true", "yes"]}
"""
# Its kernel is compiled for the test of declarations too.
OWN = Path(__file__).parents[3] / "docs" / "examples" / "features" / "own_features.yaml"
HEADER = "id,customer,ts,amount,shop,bad"


def lines(days: int = 60, a_day: int = 25, customers: int = 20) -> list[str]:
    """Rows in no order; large amounts are mostly fraud; labels are written in three ways."""
    random = np.random.default_rng(5)
    made = []
    for n in range(days * a_day):
        day, second = divmod(n, a_day)
        fraud = random.random() < 0.1
        amount = random.uniform(300, 900) if fraud else random.uniform(1, 320)
        word = random.choice(["1", "true", "yes"] if fraud else ["0", "false", "no"])
        date, time = np.datetime64("2026-01-01") + day, f"{second * 24 // a_day:02}:{second % 60:02}:00"
        utc = "Z" if n % 2 else ""
        made.append(f"t{n},{n % customers},{date} {time}{utc},{amount:.2f},m{n % 7},{word}")
    random.shuffle(made)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backtest")
    (path / "mapping.yaml").write_text(MAPPING)
    (path / "data.csv").write_text("\n".join([HEADER, *lines()]) + "\n")
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.stdout


def train(folder: Path, *more: object, data: str = "data.csv") -> list[dict[str, Any]]:
    out = run(
        "train", "fraud", "--data", folder / data, "--mapping", folder / "mapping.yaml", "--json", *more
    )
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    (card,) = train(folder, "--to", "2026-02-10", "--out", folder / "model")
    assert (card["name"], card["version"], card["data"]["entities"]) == ("fraud", "v1", "merchant")
    return folder / "model"


def backtest(folder: Path, model: Path, *more: object, data: str = "data.csv") -> dict[str, Any]:
    out = run(
        *("backtest", "--model", model, "--data", folder / data, "--mapping", folder / "mapping.yaml"),
        *("--out", folder / "scored.parquet", "--label-delay", "7d", "--resamples", 20, "--json", *more),
    )
    return json.loads(out.splitlines()[-1])


def test_two_commands_train_and_score(folder: Path, model: Path) -> None:
    page = folder / "report.html"
    found = backtest(folder, model, "--from", "2026-02-10", "--html", page)
    table = parquet.read_table(folder / "scored.parquet")
    assert table.column_names == [
        "transaction_id",
        "customer_id",
        "event_time",
        "score",
        "decision",
        "label",
        "reasons",
        "anomaly",
    ]
    assert found["scored"] == found["labelled"] == table.num_rows == 20 * 25
    assert table["event_time"].to_pylist() == sorted(table["event_time"].to_pylist())
    assert sum(table["label"].to_pylist()) == found["frauds"]
    assert found["figures"]["average_precision"]["value"] > 0.8
    alerted = [r for r in table.to_pylist() if r["decision"] != "allow"]
    assert alerted
    assert all(json.loads(r["reasons"])[0]["text"] for r in alerted)
    assert any(json.loads(r["reasons"])[0]["feature"].startswith("amount") for r in alerted)
    assert page.read_text().count("<svg") == 5


def test_a_model_that_goes_on_learning_says_from_how_many_frauds(folder: Path, model: Path) -> None:
    # Its bins are settled by the first five thousand transactions; here are fewer, so nothing is learned.
    found = [backtest(folder, model, "--from", "2026-02-10", *more) for more in ((), ("--online",))]
    assert found[1].pop("online") == {"frauds": 0, "share": 0.0, "trees_grown": 0}
    assert found[0]["figures"] == found[1]["figures"]


def test_a_model_is_found_by_registry_name_or_version(folder: Path, model: Path) -> None:
    found = [
        backtest(folder, path, "--from", "2026-02-25")["figures"]
        for path in (model, model / "fraud", model / "fraud" / "v1")
    ]
    assert found[0] == found[1] == found[2]


def test_people_see_figures_with_intervals(folder: Path, model: Path) -> None:
    out = run(
        *("backtest", "--model", model, "--data", folder / "data.csv", "--mapping", folder / "mapping.yaml"),
        *("--out", folder / "again.parquet", "--from", "2026-02-25", "--resamples", 5),
    )
    assert "average precision" in out
    assert "active customers" in out


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        (
            ("--from", "2027-01-01"),
            ConfigError,
            "no transaction lies between --from and --to; the file's are",
        ),
        (("--from", "2026-02-01", "--to", "2026-01-01"), ConfigError, "--from must be before --to"),
        (("--from", "soon"), ConfigError, "'soon' is not a time"),
        (("--label-delay", "soon"), ConfigError, "'soon' is not a length of time"),
        (("--name", "churn"), ModelError, "there is no churn model in use"),
    ],
)
def test_what_cannot_be_scored_is_said(
    folder: Path, model: Path, more: tuple[str, ...], error: type[TidegateError], said: str
) -> None:
    with pytest.raises(error, match=said):
        backtest(folder, model, *more)


def test_a_folder_without_a_model_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="train one with 'tidegate train fraud --out"):
        backtest(folder, folder / "nothing")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (lambda rows: [r for r in rows if r[-2:] in (",0", "se", "no")], "has 0 known frauds and"),
        (lambda rows: [r for r in rows if r[-2:] not in (",0", "se", "no")], "and 0 genuine transactions"),
        (lambda rows: [r for r in rows if "2026-01-05" in r], "because their labels would not be known yet"),
        (lambda rows: [r.replace(",m", ",m,") for r in rows], "none of its 1,500 rows can be used"),
    ],
    ids=["no fraud", "only fraud", "one day", "broken"],
)
def test_a_file_that_cannot_train_says_why(folder: Path, kept: Any, said: str) -> None:
    (folder / "odd.csv").write_text("\n".join([HEADER, *kept(lines())]) + "\n")
    with pytest.raises(TidegateError, match=said):
        train(folder, "--out", folder / "odd", data="odd.csv")


def test_training_for_fraud_without_a_label_is_refused(folder: Path) -> None:
    bare = folder / "bare.yaml"
    bare.write_text(MAPPING[: MAPPING.index("label")])
    with pytest.raises(ConfigError, match="training for fraud needs a label"):
        run("train", "fraud", "--data", folder / "data.csv", "--mapping", bare, "--out", folder / "bare")
    # Scores need none.
    found = json.loads(
        run(
            *("backtest", "--model", folder / "model", "--data", folder / "data.csv", "--mapping", bare),
            *("--out", folder / "bare.parquet", "--json"),
        ).splitlines()[-1]
    )
    assert (found["scored"], found["labelled"]) == (1500, 0)
    assert found["figures"]["roc_auc"]["value"] is None
    assert parquet.read_table(folder / "bare.parquet")["label"].null_count == 1500


def test_attributes_of_a_file_find_what_nothing_else_of_it_tells(folder: Path, tmp_path: Path) -> None:
    """Whose domain is bad is fraud, at amounts and shops that say nothing."""
    random = np.random.default_rng(3)
    rows = []
    for n in range(2000):
        bad = random.random() < 0.1
        domain = random.choice(["a.example", "b.example", "c.example"]) if not bad else "bad.example"
        rows.append(
            f"t{n},{n % 50},{np.datetime64('2026-01-01') + n // 25}T10:{n % 25:02}:00Z,"
            f"{random.uniform(1, 99):.2f},m{n % 7},{int(bad)},{domain}"
        )
    (tmp_path / "data.csv").write_text("\n".join([f"{HEADER},domain", *rows]) + "\n")
    figures = {}
    for name, more in (("without", ""), ("with", "attributes: {domain: domain}\n")):
        (tmp_path / "mapping.yaml").write_text(MAPPING + more)
        (card,) = train(tmp_path, "--to", "2026-03-01", "--out", tmp_path / name)
        assert card["data"]["attributes"] == ("domain" if more else "")
        found = backtest(tmp_path, tmp_path / name, "--from", "2026-03-01")
        figures[name] = found["figures"]["average_precision"]["value"]
    assert figures["with"] > 0.95
    assert figures["without"] < 0.3
    reasons = parquet.read_table(tmp_path / "scored.parquet")["reasons"].to_pylist()
    assert any("domain of this transaction" in one for one in reasons if one)
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    with pytest.raises(ConfigError, match=r"the model is to read domain of each transaction"):
        backtest(tmp_path, tmp_path / "with", "--from", "2026-03-01")
    with pytest.raises(ConfigError, match=r"the model is to read domian of each transaction"):
        train(tmp_path, "--out", tmp_path / "typo", "--attributes", "domian")


def test_without_resamples_figures_have_no_interval(folder: Path, model: Path) -> None:
    file = ("--data", folder / "data.csv", "--mapping", folder / "mapping.yaml")
    out = ("--out", folder / "plain.parquet", "--resamples", 0)
    said = run("backtest", "--model", model, *file, *out)
    assert "average precision" in said
    assert "nan" not in said


def test_a_mapping_without_an_entity_that_the_model_reads_is_refused(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "mapping.yaml").write_text(MAPPING.replace("merchant_id: shop\n", ""))
    file = ("--data", folder / "data.csv", "--mapping", tmp_path / "mapping.yaml")
    out = tmp_path / "out"
    for command in (
        ("backtest", "--model", model, "--out", out),
        ("retrain", "fraud", "--models", model),
        ("drift", "fraud", "--models", model),
        ("models", "compare", "fraud", "v1", "v1", "--models", model),
        ("train", "fraud", "--entities", "merchant", "--out", out),
        ("train", "anomaly", "--entities", "merchant", "--out", out),
        ("train", "all", "--entities", "merchant", "--out", out),
    ):
        with pytest.raises(ConfigError, match=r"the model is to read merchant_id of each transaction"):
            run(*command, *file)


@pytest.mark.slow
def test_a_banks_own_features_are_trained_and_scored_with(folder: Path, model: Path) -> None:
    train(folder, "--to", "2026-02-10", "--out", folder / "own", "--features", OWN)
    found = backtest(folder, folder / "own", "--from", "2026-02-25", "--features", OWN)
    assert found["scored"] > 0
    with pytest.raises(ConfigError, match="give the --features file of training"):
        backtest(folder, folder / "own", "--from", "2026-02-25")
    with pytest.raises(ConfigError, match="give the --features file of training"):
        backtest(folder, model, "--from", "2026-02-25", "--features", OWN)


@pytest.mark.slow
def test_churn_is_trained_and_scored_with_a_banks_own_features(
    folder: Path, quiet: tuple[object, ...]
) -> None:
    data = quiet[:4]
    run("train", "churn", *quiet, "--out", folder / "own", "--features", OWN)
    scored = ("--from", "2026-01-25", "--out", folder / "customers.parquet", "--resamples", 5)
    page = ("--html", folder / "churn.html")
    report = run(
        "backtest", "--model", folder / "own", "--name", "churn", *data, *scored, "--features", OWN, *page
    )
    assert "Churn backtest of" in (folder / "churn.html").read_text()
    with pytest.raises(ConfigError, match="--online is for fraud"):
        run("backtest", "--model", folder / "own", "--name", "churn", *data, *scored, "--online")
    assert "60 scored and written to" in report
    with pytest.raises(ConfigError, match="give the --features file of training"):
        run("backtest", "--model", folder / "own", "--name", "churn", *data, *scored)


def test_a_report_over_several_currencies_says_that_it_mixes_them(folder: Path, model: Path) -> None:
    mixed = folder / "mixed.yaml"
    mixed.write_text(
        MAPPING.replace(
            "{constant: EUR}",
            "{column: bad, values: {'1': EUR, 'true': EUR, 'yes': EUR, '0': USD, 'false': USD, 'no': USD}}",
        )
    )
    out = folder / "scored_mixed.parquet"
    data = ("--model", model, "--data", folder / "data.csv", "--out", out, "--json", "--resamples", 5)
    notes = [
        json.loads(run("backtest", *data, "--mapping", mapping, "--from", "2026-02-11").splitlines()[-1])[
            "notes"
        ]
        for mapping in (folder / "mapping.yaml", mixed)
    ]
    told = [[note for note in found if "2 currencies" in note] for found in notes]
    assert list(map(len, told)) == [0, 1]
    assert "2 currencies (USD 88 %, EUR 12 %) and are not converted" in told[1][0]
    assert "convert the amounts in the file before, or take one currency alone" in told[1][0]
    file = ("--data", folder / "data.csv", "--mapping", mixed, "--to", "2026-02-10", "--out", folder / "mix")
    (card,) = json.loads(run("train", "fraud", *file, "--json").splitlines()[-1])
    assert card["data"]["currencies"].keys() == {"USD", "EUR"}
    assert sum(card["data"]["currencies"].values()) == 1000
    assert "2 currencies (USD 9" in card["metrics"]["currencies"]


@pytest.fixture(scope="module")
def quiet(folder: Path) -> tuple[object, ...]:
    """Half of the customers are never seen again after a month; rows in no order."""
    rows = [r for r in lines(a_day=60, customers=60) if int(r.split(",")[1]) < 30 or "2026-01" in r]
    (folder / "quiet.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return ("--data", folder / "quiet.csv", "--mapping", folder / "mapping.yaml", "--horizon", "14d")


def test_nobody_churns_in_days_that_the_file_does_not_cover(folder: Path, quiet: tuple[object, ...]) -> None:
    cards = [
        json.loads(run("train", "churn", *quiet, *more, "--out", folder / name, "--json").splitlines()[-1])[0]
        for name, more in (("to_end", ()), ("beyond", ("--to", "2026-12-01")))
    ]
    assert cards[0]["data"] == cards[1]["data"]
    assert cards[0]["metrics"] == cards[1]["metrics"]


def test_all_models_are_those_of_the_file_in_order(folder: Path, quiet: tuple[object, ...]) -> None:
    rows = (folder / "quiet.csv").read_text().splitlines()[1:]
    rows.sort(key=lambda row: row.split(",")[2].rstrip("Z"))
    (folder / "ordered.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    ordered = ("--data", folder / "ordered.csv", *quiet[2:])
    one, other, alone = folder / "all", folder / "all_ordered", folder / "alone"
    run("train", *quiet, "--out", one)
    run("train", *ordered, "--out", other)
    for which in ("fraud", "churn"):
        run("train", which, *quiet, "--out", alone)
    for name, file in (
        ("fraud", "trees.ubj"),
        ("churn", "trees.ubj"),
        ("segments", "centres.json"),
    ):
        mine = (one / name / "v1" / file).read_bytes()
        assert mine == (other / name / "v1" / file).read_bytes()
        assert name not in ("fraud", "churn") or mine == (alone / name / "v1" / file).read_bytes()


def test_an_anomaly_model_is_trained_without_any_label(folder, model, tmp_path):
    mapping = tmp_path / "unlabelled.yaml"
    mapping.write_text("\n".join(line for line in MAPPING.splitlines() if not line.startswith("label")))
    out = tmp_path / "models"
    file = ("--data", folder / "data.csv", "--mapping", mapping, "--out", out)
    said = run("train", "anomaly", *file, "--anomaly-alerts", "0.02", "--to", "2026-02-10", "--json")
    (card,) = json.loads(said.splitlines()[-1])
    assert (card["name"], card["version"], card["data"]["rows"]) == ("anomaly", "v1", 1000)
    assert card["metrics"]["alert_share"] == pytest.approx(0.02, abs=0.005)
    run("train", "anomaly", *file, "--anomaly-alerts", "0.02", "--no-promote")
    listed = json.loads(run("models", "list", "--models", out, "--json"))
    assert [(m["version"], m["role"]) for m in listed] == [("v1", "champion"), ("v2", "")]
    run("models", "promote", "anomaly", "v2", "--models", out)
    with pytest.raises(ConfigError, match="anomaly: it has a champion only"):
        run("models", "promote", "anomaly", "v1", "--as", "shadow", "--models", out)
    with pytest.raises(ConfigError, match="anomaly: there is no outcome"):
        run("models", "compare", "anomaly", "v1", "v2", *file[:4], "--models", out)
    with pytest.raises(ModelError, match="needs 5,000 to learn from, there are 0"):
        run("train", "anomaly", *file, "--to", "2025-01-10")
    run("models", "retire", "anomaly", "v2", "--models", out)
    assert not [m["role"] for m in json.loads(run("models", "list", "--models", out, "--json")) if m["role"]]


def test_an_anomaly_model_looks_at_what_nobody_investigated_too(folder, tmp_path):
    mapping = tmp_path / "told.yaml"
    mapping.write_text(MAPPING.replace('"yes"]}', '"yes"], genuine: ["no"]}'))
    out = tmp_path / "models"
    said = run(
        *("train", "anomaly", "--data", folder / "data.csv", "--mapping", mapping, "--out", out),
        *("--anomaly-alerts", "0.02", "--json"),
    )
    (card,) = json.loads(said.splitlines()[-1])
    assert card["data"]["rows"] == 1500
