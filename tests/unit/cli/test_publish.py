"""`tidegate publish` as a person or a script meets it."""

import csv
import socket
from functools import partial
from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner, Result

from cli import publish as module
from cli.publish import publish
from infra.publisher import Publisher
from schemas.errors import ConfigError, DependencyError
from tests.unit.infra.mappings import written

app = typer.Typer()
app.command()(publish)

HEADER = "id,customer,ts,amount,fraud\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(
        HEADER
        + "t1,c1,2026-03-01T10:00:00Z,5,0\n"
        + "t2,c1,2026-03-02T10:00:00Z,[bold]x,0\n"
        + "t3,c2,2026-03-03T10:00:00Z,7,1\n"
    )
    return path


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "map.yaml"
    path.write_text(written())
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_dry_run_tells_machines_what_would_happen(data: Path, rules: Path) -> None:
    result = run(data, "--mapping", rules, "--dry-run", "--json")
    assert result.exit_code == 0
    summary = orjson.loads(result.stdout)
    counts = {name: summary[name] for name in ("rows", "accepted", "published", "refused", "skipped")}
    assert counts == {"rows": 3, "accepted": 2, "published": 0, "refused": 1, "skipped": 0}
    assert summary["first_refused"] == [
        {"row_number": 2, "line": 3, "reason": "amount: column amount is not a number"}
    ]
    assert summary["reasons"] == {"amount: column amount is not a number": 1}


def test_a_dry_run_tells_people_what_would_happen(data: Path, rules: Path) -> None:
    result = run(data, "--mapping", rules, "--dry-run")
    assert result.exit_code == 0
    assert "line 3: amount: column amount is not a number" in result.stdout
    assert 'first message: {"transaction_id":"t1"' in result.stdout


def test_bounds_and_limit_choose_rows(data: Path, rules: Path) -> None:
    data.write_text(data.read_text().replace("[bold]x", "6"))
    for options, accepted in (
        (["--from", "2026-03-02"], 2),
        (["--to", "2026-03-02T10:00"], 1),
        (["--from", "2026-03-02", "--to", "2026-03-03"], 1),
        (["--limit", "1"], 1),
    ):
        result = run(data, "--mapping", rules, "--dry-run", "--json", *options)
        assert orjson.loads(result.stdout)["accepted"] == accepted, options


def test_refused_rows_go_to_a_file(data: Path, rules: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    assert run(data, "--mapping", rules, "--dry-run", "--bad-rows", bad).exit_code == 0
    with bad.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"row": "2", "line": "3", "reason": "amount: column amount is not a number"}
        ]


def test_strict_makes_a_refused_row_a_failure_and_reads_on_in_a_dry_run(data: Path, rules: Path) -> None:
    result = run(data, "--mapping", rules, "--dry-run", "--strict", "--json")
    assert result.exit_code == 1
    assert orjson.loads(result.stdout)["rows"] == 3


def test_a_run_that_leaves_nothing_to_publish_is_a_failure(data: Path, rules: Path) -> None:
    data.write_text(HEADER + "t1,c1,yesterday,5,0\n")
    assert run(data, "--mapping", rules, "--dry-run").exit_code == 1


@pytest.mark.parametrize(
    ("mapping", "options", "problem"),
    [
        (written(merchant_id="shop"), [], "the file has no column 'shop'"),
        (written(currency=None), [], "currency: is required"),
        (written(), ["--labels"], "--labels needs a label or account_closed in the mapping"),
        (written(), ["--rate", "5", "--speedup", "2"], "--rate or --speedup, not both"),
        (written(), ["--rate", "0"], "--rate needs a number above 0"),
        (written(), ["--from", "soon"], "'soon' is not a time"),
    ],
)
def test_what_is_wrong_is_refused_before_kafka_is_asked(
    data: Path, rules: Path, mapping: str, options: list[str], problem: str
) -> None:
    rules.write_text(mapping)
    result = run(data, "--mapping", rules, "--bootstrap", f"127.0.0.1:{closed_port()}", *options)
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)


def test_missing_files_are_named(data: Path, rules: Path, tmp_path: Path) -> None:
    for file, mapping in ((tmp_path / "no.csv", rules), (data, tmp_path / "no.yaml")):
        result = run(file, "--mapping", mapping, "--dry-run")
        assert isinstance(result.exception, ConfigError)
        assert "cannot be read: No such file" in str(result.exception)


def test_a_broker_that_is_not_there_is_one_sentence(
    data: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = closed_port()
    monkeypatch.setattr(module, "Publisher", partial(Publisher, connect_timeout_s=0.1))
    result = run(data, "--mapping", rules, "--bootstrap", f"127.0.0.1:{port}")
    assert isinstance(result.exception, DependencyError)
    assert f"Kafka at 127.0.0.1:{port} does not answer" in str(result.exception)
