from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from cli.main import app
from schemas.errors import ConfigError


def generate(out: Path, *more: object) -> None:
    arguments = ["generate", out, "--customers", 60, "--days", 20, "--fraud-rate", 0.8, *more]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, Exception):
        raise result.exception


def test_only_the_wanted_ways_of_fraud_occur_and_not_before_their_day(tmp_path: Path) -> None:
    ways = ("--typology", "card_testing", "--typology", "stolen_card", "--typology-from", "stolen_card=10")
    generate(tmp_path / "bank.parquet", *ways)
    rows = parquet.read_table(tmp_path / "bank.parquet", columns=["event_time", "typology"]).to_pylist()
    days = {row["typology"]: row["event_time"][:10] for row in reversed(rows) if row["typology"]}
    assert set(days) == {"card_testing", "stolen_card"}
    assert days["card_testing"] < "2025-03-11" <= days["stolen_card"]


def test_a_first_day_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--typology-from: 'stolen_card' is not a way of fraud and a day"):
        generate(tmp_path / "bank.parquet", "--typology-from", "stolen_card")
    with pytest.raises(ConfigError, match="typologies must be of card_testing"):
        generate(tmp_path / "bank.parquet", "--typology", "none")
