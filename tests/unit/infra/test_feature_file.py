"""Declarations in a file: what is computed of them, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from typer.testing import CliRunner

from cli.main import app
from features.catalogue import FEATURES
from features.definitions import EVENT, Op, Where
from features.engine import Engine
from features.entities import EntityOp
from features.entity_features import ENTITY_FEATURES
from features.kernels import DUPLICATE
from infra.feature_file import load_engine, read_declarations
from schemas.errors import ConfigError
from tests.parity.oracle import naive_features
from tests.parity.streams import Stream, streams
from tests.parity.test_engine_against_oracle import Replay, events_in, pasts
from tests.parity.values import differences

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "features" / "own_features.yaml"


@pytest.fixture(scope="module")
def example() -> Engine:
    return Engine(read_declarations(EXAMPLE).customer)


def test_the_example_has_every_operation_that_is_promised() -> None:
    ops = {feature.op for feature in read_declarations(EXAMPLE).customer}
    promised = "count sum mean std min max first last distinct ratio time_since share"
    assert {Op(name) for name in promised.split()} <= ops


@pytest.mark.slow
@settings(max_examples=60)
@given(stream=streams())
def test_the_example_is_what_its_declarations_say(example: Engine, stream: Stream) -> None:
    features = read_declarations(EXAMPLE).customer
    replay = Replay(example).run(stream, [5] * 20)
    for (past, event), row, status in zip(pasts(events_in(stream)), replay.rows, replay.status, strict=True):
        if status != DUPLICATE:
            expected = naive_features(features, past, event, event.event_time_ms)
            assert differences(features, row, expected) == []


def test_own_features_stand_behind_the_catalogue_and_change_its_identity() -> None:
    plain, own = load_engine(None, ""), load_engine(EXAMPLE, "")
    assert own.names[: len(FEATURES)] == plain.names
    assert own.names[len(FEATURES)] == "night_cash_count_30d"
    assert own.hash != plain.hash


def declared(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return path


def test_conditions_are_read_as_words_numbers_and_ids(tmp_path: Path) -> None:
    path = declared(
        tmp_path,
        """
features:
  f:
    op: count
    window: 2d
    by: merchant
    where: ["hour>=22", amount < 1.5, "device == 'd 1'", {field: country, op: "!=", value: FR}]
""",
    )
    (feature,) = read_declarations(path).customer
    assert feature.where == (
        Where("hour", ">=", 22),
        Where("amount", "<", 1.5),
        Where("device", "==", "d 1"),
        Where("country", "!=", "FR"),
        Where("merchant", "==", EVENT),
    )
    assert (feature.unit, feature.meaning, feature.category) == ("events", "f", "own")


def test_features_of_entities_join_those_that_are_on(tmp_path: Path) -> None:
    path = declared(
        tmp_path,
        "features:\n  seen: {op: customers, entity: device, window: 2d, ends: 1h}\n"
        "  frauds: {op: fraud share, entity: merchant, window: 14d, ends: 7d}\n"
        "  usual: {op: amount zscore, entity: counterparty, window: 7d, ends: 1h}\n"
        "  quiet: {op: since fraud, entity: counterparty, window: 7d, ends: 1h}\n",
    )
    engine = load_engine(path, "merchant,device,counterparty")
    own = ["seen", "frauds", "usual", "quiet"]
    assert [f.name for f in engine.entities] == [*(f.name for f in ENTITY_FEATURES), *own]
    assert [(f.op, f.unit) for f in engine.entities[-4:]] == [
        (EntityOp.CUSTOMERS, "customers"),
        (EntityOp.FRAUD_SHARE, "ratio"),
        (EntityOp.AMOUNT_ZSCORE, "std"),
        (EntityOp.SINCE_FRAUD, "s"),
    ]
    with pytest.raises(ConfigError, match=r"own.yaml: feature 'frauds': is about a merchant, which TIDEGATE"):
        load_engine(path, "device")


WRONG: list[tuple[str, str]] = [
    ("x: {op: count}", "feature 'x': needs a window, like 30d"),
    ("x: {op: count, window: 91d}", "feature 'x': the window reaches further back than the history kept"),
    ("x: {op: count, window: 60d, ends: 31d}", "feature 'x': the window reaches further back"),
    ("x: {op: count, window: 3 weeks}", "feature 'x': '3 weeks' is not a duration"),
    ("x: {op: median, window: 3d}", "feature 'x': op 'median': there are count, sum"),
    ("x: {op: cuont, window: 3d}", "did you mean 'count'"),
    ("x: {op: count, widow: 3d}", "feature 'x': widow: no such option; did you mean 'window'"),
    ("x: {op: sum, field: hour, window: 3d}", "feature 'x': sum is of amounts"),
    ("x: {op: distinct, window: 3d}", "feature 'x': field must be one of merchant"),
    ("x: {op: count, window: 3d, where: [ip_address == 1.2.3.4]}", "keeps no field 'ip_address'"),
    ("x: {op: count, window: 3d, where: [category == foods]}", "the values are groceries"),
    ("x: {op: count, window: 3d, where: [amount > 5]}", "compare with a number by < or >="),
    ("x: {op: count, window: 3d, where: [hour < noon]}", "compare with a number"),
    ("x: {op: count, window: 3d, where: [hour < 25]}", "hour is 0 to 23"),
    ("x: {op: count, window: 3d, where: [at night]}", "'at night' is no condition"),
    ("x: {op: count, window: 3d, where: [country == fr]}", "write 2 capital letters"),
    ("x: {op: count, window: 3d, by: hour}", "compare with a number"),
    ("x: {op: ratio, of: [amount_sum_40d, amount_sum_90d]}", "no feature 'amount_sum_40d' above it .*mean"),
    ("x: {op: ratio, of: [amount_sum_30d]}", "a ratio needs two features"),
    ("x: {op: ratio, of: [amount_sum_30d, amount_sum_90d], scale: .inf}", "feature 'x': scale"),
    ("amount_sum_30d: {op: sum, window: 30d}", "the catalogue has a feature of this name"),
    ("merchant_txn_count_1d: {op: count, window: 1d}", "declared twice"),
    ("Big: {op: count, window: 1d}", "a name is lower-case letters"),
    ("x: {op: count, window: 3d, phrase: '{value.real}'}", "only {value} and {duration}"),
    ("x: {op: count, window: 3d, phrase: '{value:q}'}", "phrase"),
    ("x: {op: count, window: 3d, phrase: '{'}", "phrase"),
    ("x: count", "feature 'x': write op, window and so on under it"),
    ("x: {window: 3d}", "feature 'x': op: Field required"),
    ("x: {op: count, window: 3d, entity: shop}", "entity 'shop': there are customer, merchant, device"),
    ("x: {op: sum, window: 3d, ends: 7d, entity: merchant}", "op 'sum' of a merchant: there are count"),
    ("x: {op: count, window: 3d, entity: merchant}", "needs window and ends"),
    (
        "x: {op: count, window: 83d, ends: 7d, entity: merchant}",
        "reach back further than transactions of a merchant are kept: 89d",
    ),
    (
        "x: {op: count, window: 30d, ends: 2h, entity: device}",
        "reach back further than transactions of a device are kept: 30d 1h",
    ),
    ("x: {op: count, window: 90m, ends: 2h, entity: device}", "give whole hours"),
    ("x: {op: customers, window: 3d, ends: 1h, entity: merchant}", "customers of a merchant are not told"),
    ("x: {op: count, window: 3d, ends: 1h, entity: device, by: country}", "by: not of a device"),
]


@pytest.mark.parametrize(("line", "reason"), WRONG)
def test_what_cannot_work_is_refused_with_file_name_and_reason(
    tmp_path: Path, line: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        read_declarations(declared(tmp_path, f"features:\n  {line}\n"))
    name = line.partition(":")[0]
    assert str(refused.value).startswith(f"{tmp_path / 'own.yaml'}: feature {name!r}: ")


def test_a_time_zone_stands_alone_or_beside_features(tmp_path: Path) -> None:
    path = declared(tmp_path, "timezone: Asia/Tokyo\n")
    assert read_declarations(path).clock.name == "Asia/Tokyo"
    both = declared(tmp_path, "timezone: Asia/Tokyo\nfeatures: {x: {op: count, window: 1d}}")
    assert (read_declarations(both).clock.name, read_declarations(both).names) == ("Asia/Tokyo", {"x"})
    listed: Any = CliRunner().invoke(app, ["features", "list", "--features", str(both), "--markdown"])
    assert "| `hour_of_day` |  | h | Hour of the day, Asia/Tokyo. |" in listed.stdout


def test_an_unknown_time_zone_is_refused_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"own.yaml: timezone: no time zone is called 'Asia/Tokio'"):
        read_declarations(declared(tmp_path, "timezone: Asia/Tokio"))


@pytest.mark.parametrize(
    "text", ["x: {op: count, window: 1d}", "features: [a]", "features:", "timezone: UTC"]
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"own.yaml: write 'features:'"):
        read_declarations(declared(tmp_path, text))


def test_a_feature_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"own.yaml: line 3: 'x' is given twice"):
        read_declarations(
            declared(tmp_path, "features:\n  x: {op: count, window: 1d}\n  x: {op: count, window: 2d}\n")
        )


def test_they_are_listed_behind_the_catalogue() -> None:
    listed: Any = CliRunner().invoke(app, ["features", "list", "--features", str(EXAMPLE), "--markdown"])
    assert listed.exit_code == 0
    assert "| `gambling_sum_7d_before` | 7d, ending 7d before | currency |" in listed.stdout


def test_a_feature_of_ones_own_cannot_have_the_name_of_an_attribute_that_is_on(tmp_path: Path) -> None:
    path = declared(tmp_path, "features:\n  attribute_risk: {op: count, window: 2d}\n")
    assert "attribute_risk" in load_engine(path, "").names
    with pytest.raises(ConfigError, match="feature 'attribute_risk': an attribute that TIDEGATE_ATTRIBUTES"):
        load_engine(path, "", "risk")
