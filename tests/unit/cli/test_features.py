import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

from cli.main import app
from schemas.errors import ConfigError
from tests.unit.infra.mappings import written

LABEL = "{column: bad, fraud: [1], genuine: [0]}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(
        "id,customer,ts,amount,bad\n"
        "t1,c1,2026-03-01T10:00:00Z,10.00,1\n"
        "t2,c2,2026-03-01T11:00:00Z,20.00,0\n"
        "t3,c1,2026-03-02T10:00:00Z,x,0\n"
        "t1,c1,2026-03-03T10:00:00Z,10.00,0\n"
        "t4,c1,2026-03-10T10:00:00Z,30.00,0\n"
    )
    return path


def run(file: Path, *more: str, **changes: str | None) -> tuple[int, dict[str, Any], Path]:
    mapping, out = file.with_name("mapping.yaml"), file.with_name("vectors.parquet")
    mapping.write_text(written(**changes))
    arguments = ["features", "compute", "--data", str(file), "--mapping", str(mapping), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--json", *more])
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.exit_code, json.loads(result.stdout.splitlines()[-1]), out


def test_each_good_row_becomes_a_vector_and_the_others_are_counted(file: Path) -> None:
    code, summary, out = run(file, label=LABEL)
    assert code == 0
    counted = {name: summary[name] for name in ("rows", "written", "duplicates", "refused", "labels")}
    # The label of the copy says genuine: a second finding of the same transaction.
    assert counted == {"rows": 5, "written": 3, "duplicates": 1, "refused": 1, "labels": 4}
    assert [(row["line"], row["reason"]) for row in summary["first_refused"]] == [
        (4, "amount: column amount is not a number")
    ]
    table = parquet.read_table(out)
    assert table["transaction_id"].to_pylist() == ["t1", "t2", "t4"]
    assert len(table.column_names) == 3 + summary["features"]
    assert sum(column.null_count for column in table.columns) > 0


def test_people_see_a_table_and_the_bad_rows_go_to_a_file(file: Path) -> None:
    bad = file.with_name("bad.csv")
    mapping, out = file.with_name("mapping.yaml"), file.with_name("vectors.parquet")
    mapping.write_text(written())
    arguments = ["--data", str(file), "--mapping", str(mapping), "--out", str(out), "--bad-rows", str(bad)]
    result = CliRunner().invoke(app, ["features", "compute", *arguments])
    assert result.exit_code == 0, result.output
    assert "line 4: amount: column amount is not a number" in result.stdout
    assert bad.read_text().splitlines()[1] == "3,4,amount: column amount is not a number"


def test_no_good_row_is_exit_code_1(file: Path) -> None:
    code, summary, _ = run(
        file, amount="bad", currency="{constant: EUR}", skip_if="{column: id, empty: false}"
    )
    assert (code, summary["written"], summary["skipped"]) == (1, 0, 5)


@pytest.mark.parametrize(
    ("delay", "label", "message"),
    [("7d", None, "needs a label"), ("soon", LABEL, "label delay: 'soon' is not a length of time")],
)
def test_a_delay_that_means_nothing_is_refused(
    file: Path, delay: str, label: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(file, "--labels-delay", delay, label=label)


def test_the_delay_of_the_command_goes_before_that_of_the_mapping(file: Path) -> None:
    with file.open("a") as more:
        more.write("t8,c1,2026-07-20T10:00:00Z,30.00,0\nt9,c1,2026-09-10T10:00:00Z,30.00,0\n")
    _, summary, _ = run(file, label=LABEL)
    assert (summary["labels"], summary["labels_unknown"]) == (6, 0)
    # Known five months later, when the history does not hold the transaction any more.
    _, summary, _ = run(file, "--labels-delay", "150d", label=LABEL)
    assert summary["labels_unknown"] > 0


def test_the_file_that_is_read_is_not_written_over(file: Path) -> None:
    mapping = file.with_name("mapping.yaml")
    mapping.write_text(written())
    arguments = ["--data", str(file), "--mapping", str(mapping), "--out", str(file)]
    result = CliRunner().invoke(app, ["features", "compute", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert file.read_text().startswith("id,")


def test_a_file_that_is_not_there_is_named_and_leaves_the_old_vectors(file: Path) -> None:
    out = file.with_name("vectors.parquet")
    out.write_bytes(b"before")
    with pytest.raises(ConfigError, match="cannot be read"):
        run(file.with_name("no.csv"))
    assert out.read_bytes() == b"before"
