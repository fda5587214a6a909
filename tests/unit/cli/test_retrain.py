"""Retraining, comparison and drift on a small file, by the commands."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cli import retrain
from cli.main import app
from models.drift import MOVED, STABLE
from models.registry import ModelRegistry
from models.roles import Roles
from schemas.errors import ConfigError, ModelError

MAPPING = """
transaction_id: id
customer_id: customer
event_time: ts
amount: amount
currency: {constant: EUR}
label: {column: bad, fraud: [1], genuine: [0]}
"""
DAYS, A_DAY = 110, 24


def lines(*, scale: float = 1.0, turned_on: int = 60) -> list[str]:
    """Large payments are fraud at first; from one day on those in the small hours are too."""
    random = np.random.default_rng(5)
    made = ["id,customer,ts,amount,bad"]
    for n in range(DAYS * A_DAY):
        day, hour = divmod(n, A_DAY)
        large, night = random.random() < 0.05, hour in (2, 3) and random.random() < 0.6
        fraud = large or (night and day >= turned_on)
        amount = random.uniform(400, 900) if large else random.uniform(1, 300)
        date = np.datetime64("2026-01-01") + day
        made.append(f"t{n},c{n % 30},{date}T{hour:02}:30:00Z,{amount * scale:.2f},{int(fraud)}")
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("retrain")
    (path / "mapping.yaml").write_text(MAPPING)
    (path / "data.csv").write_text("\n".join(lines()) + "\n")
    (path / "cents.csv").write_text("\n".join(lines(scale=100)) + "\n")
    file = ("--data", path / "data.csv", "--mapping", path / "mapping.yaml")
    # It never saw a fraud in the small hours.
    run("train", "fraud", *file, "--to", "2026-03-02", "--out", path / "models", "--json")
    return path


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1]) if "--json" in arguments else result.stdout


def file_of(folder: Path, data: str = "data.csv") -> tuple[object, ...]:
    return ("--data", folder / data, "--mapping", folder / "mapping.yaml", "--models", folder / "models")


@pytest.fixture(scope="module")
def first(folder: Path) -> dict[str, Any]:
    return run("retrain", "fraud", *file_of(folder), "--held-back-days", 14, "--json")


def test_a_challenger_that_knows_the_new_fraud_wins_and_is_promoted(
    folder: Path, first: dict[str, Any]
) -> None:
    assert (first["verdict"], first["role"], first["version"]) == ("wins", "champion", "v2")
    gain = first["difference"]["average_precision"]
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    registry = ModelRegistry(folder / "models")
    assert registry.roles("fraud").former == ("v1",)
    card = registry.card("fraud", "v2")
    assert card.metrics["held_back"]["against"] == "v1"
    # 14 days before the label delay of a week: none of them was learned from.
    assert card.metrics["held_back"]["to_ms"] - card.metrics["held_back"]["from_ms"] == 14 * 86_400_000
    assert card.data["to_ms"] < card.metrics["held_back"]["from_ms"] - 7 * 86_400_000


def test_one_that_knows_nothing_more_is_kept_as_challenger(folder: Path, first: dict[str, Any]) -> None:
    again = run("retrain", "fraud", *file_of(folder), "--held-back-days", 14, "--share", 0.2, "--json")
    assert (again["verdict"], again["role"], again["version"]) == ("undecided", "challenger", "v3")
    assert ModelRegistry(folder / "models").roles("fraud") == Roles("v2", "v3", 0.2, former=("v1",))
    said = run("models", "compare", "fraud", "v2", "v3", "--models", folder / "models")
    assert "the challenger is not proven better" in said


def test_one_that_won_against_who_is_not_in_use_any_more_gets_no_role(
    folder: Path, first: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "raced"
    shutil.copytree(folder / "models", path)
    registry, contest = ModelRegistry(path), retrain._contest
    registry.promote("fraud", "v1")

    def slow(*arguments: Any) -> Any:
        registry.promote("fraud", "v2")
        return contest(*arguments)

    monkeypatch.setattr(retrain, "_contest", slow)
    said = CliRunner().invoke(
        app,
        [
            str(a)
            for a in ("retrain", "fraud", *file_of(folder)[:4], "--models", path, "--held-back-days", 14)
        ],
    )
    assert said.exit_code == 0, said.output
    assert "in no role" in said.output
    assert "v2 was promoted meanwhile, and it was compared with v1" in " ".join(said.output.split())
    assert registry.roles("fraud").champion == "v2"
    assert registry.roles("fraud").of(registry.versions("fraud")[-1]) == ""


def other_world(turned_on: int) -> list[str]:
    """Up to a day small payments are fraud, then large ones: who learns from the first days is misled."""
    head, *rows = lines()
    made = [head]
    for n, row in enumerate(rows):
        *fields, _ = row.split(",")
        large = float(fields[3]) >= 400
        fraud = large if n // A_DAY >= turned_on else float(fields[3]) < 20
        made.append(",".join((*fields, str(int(fraud)))))
    return made


def saved_without_role(folder: Path, tmp_path: Path, made: list[str], *more: object) -> tuple[str, str]:
    """What is said of a model that is trained on other days, and why it has no role."""
    path = tmp_path / "models"
    shutil.copytree(folder / "models", path)
    (tmp_path / "other.csv").write_text("\n".join(made) + "\n")
    file = ("--data", tmp_path / "other.csv", "--mapping", folder / "mapping.yaml", "--models", path)
    before = ModelRegistry(path).roles("fraud")
    result = CliRunner().invoke(app, [str(a) for a in ("retrain", "fraud", *file, *more, "--json")])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["role"] == ""
    assert ModelRegistry(path).roles("fraud") == before
    assert said["version"] in ModelRegistry(path).versions("fraud")
    return said["verdict"], " ".join(result.stderr.split())


def test_one_that_loses_scores_no_customer(folder: Path, first: dict[str, Any], tmp_path: Path) -> None:
    verdict, said = saved_without_role(folder, tmp_path, other_world(74), "--held-back-days", 28)
    assert verdict == "loses"
    assert "is saved without a role: it is worse than v2" in said


def test_one_of_which_nothing_can_be_told_scores_no_customer(
    folder: Path, first: dict[str, Any], tmp_path: Path
) -> None:
    verdict, said = saved_without_role(folder, tmp_path, lines(), "--held-back-days", 1)
    assert verdict == "undecided"
    assert "is saved without a role: customers are not to be scored by what nothing can be told of" in said


def test_one_that_would_alert_on_nothing_scores_no_customer(
    folder: Path, first: dict[str, Any], tmp_path: Path
) -> None:
    # A thousandth of the amounts: no fraud is worth a review any more.
    _, said = saved_without_role(folder, tmp_path, lines(scale=0.001), "--held-back-days", 14)
    assert "is saved without a role: it alerts on nothing" in said
    assert "alerts on nothing: at these costs no review pays" in said


def test_two_versions_are_compared_on_the_same_rows(folder: Path, first: dict[str, Any]) -> None:
    both = ("models", "compare", "fraud", "v1", "v2", *file_of(folder), "--from", "2026-03-31", "--json")
    found = run(*both)
    assert found["rows"] == A_DAY * 14
    assert found["verdict"] == "wins"
    assert found["champion"]["average_precision"] == first["champion"]["average_precision"]


def test_drift_is_small_where_nothing_changed_and_large_where_amounts_are_in_cents(
    folder: Path, first: dict[str, Any]
) -> None:
    same = run("drift", "fraud", *file_of(folder), "--version", "v2", "--json")
    assert same["feature_psi"]["amount"] < STABLE
    assert sum(part["rows"] for part in same["calibration"]) == (DAYS - 7) * A_DAY - 1
    cents = run("drift", "fraud", *file_of(folder, "cents.csv"), "--version", "v2", "--json", code=1)
    assert cents["feature_psi"]["amount"] > MOVED
    assert next(iter(cents["feature_psi"].values())) == max(cents["feature_psi"].values())


def test_drift_of_scores_that_a_backtest_wrote(folder: Path, first: dict[str, Any]) -> None:
    file = file_of(folder)[:4]
    scored = folder / "scored.parquet"
    run("backtest", "--model", folder / "models", *file, "--out", scored, "--resamples", 0, "--json")
    found = run("drift", "fraud", "--scored", scored, "--models", folder / "models", "--json")
    assert found["rows"] == DAYS * A_DAY
    assert found["feature_psi"] == {}
    assert found["score_psi"] < STABLE


def test_what_cannot_be_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the data is too short: the 200 days"):
        run("retrain", "fraud", *file_of(folder), "--held-back-days", 200)
    with pytest.raises(ConfigError, match="either --data with --mapping, or --scored"):
        run("drift", "fraud", "--models", folder / "models")
    with pytest.raises(ModelError, match="there is no fraud model"):
        run("retrain", "fraud", *file_of(folder)[:4], "--models", tmp_path)
    with pytest.raises(ConfigError, match=r"outcomes are known until 2026-04-14T00:00:00.000Z only"):
        run("models", "compare", "fraud", "v1", "v1", *file_of(folder), "--from", "2026-05-01")
