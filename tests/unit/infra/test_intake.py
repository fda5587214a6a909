from pathlib import Path

import pytest

from infra.intake import Intake, RefusedRow, bad_rows_file
from schemas.errors import ConfigError
from tests.unit.infra.mappings import mapping

HEADER = "id,customer,ts,amount\n"
DAY_MS = 86_400_000
START_MS = 1_772_359_200_000  # 2026-03-01T10:00:00Z


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


def lines(*amounts: object) -> str:
    """One row a day from the first of March 2026."""
    return HEADER + "".join(
        f"t{i},c{i % 3},2026-03-{1 + i:02}T10:00:00Z,{amount}\n" for i, amount in enumerate(amounts)
    )


def test_good_rows_come_out_and_the_others_are_accounted_for(path: Path) -> None:
    path.write_text(lines(5, "x", 7, "", 0, "SKIP", 9) + "short\n")
    rules = mapping(skip_if="{column: amount, equals: SKIP}")
    refused: list[RefusedRow] = []
    with Intake(path, rules, on_refused=refused.append) as intake:
        events = list(intake)
    assert [(e.row_number, e.transaction.transaction_id) for e in events] == [(1, "t0"), (3, "t2"), (7, "t6")]
    assert [(r.row_number, r.line, r.place) for r in refused] == [
        (2, 3, "line 3"), (4, 5, "line 5"), (5, 6, "line 6"), (8, 9, "line 9"),
    ]  # fmt: skip
    account = intake.account
    assert (account.rows, account.accepted, account.skipped, account.outside, account.refused) == (
        8,
        3,
        1,
        0,
        4,
    )
    assert account.first_refused == refused
    assert account.reasons["amount: column amount is not a number"] == 1


def test_times_bound_events_to_a_half_open_interval(path: Path) -> None:
    path.write_text(lines(1, 2, 3, 4))
    with Intake(path, mapping(), from_ms=START_MS + DAY_MS, to_ms=START_MS + 3 * DAY_MS) as intake:
        assert [e.transaction.transaction_id for e in intake] == ["t1", "t2"]
    assert intake.account.outside == 2


def test_a_limit_counts_good_rows_and_stops_reading(path: Path) -> None:
    path.write_text(lines(1, "x", 3, 4, "y"))
    with Intake(path, mapping(), limit=2) as intake:
        assert [e.transaction.transaction_id for e in intake] == ["t0", "t2"]
    assert (intake.account.accepted, intake.account.refused) == (2, 1)


def test_the_first_refused_row_can_stop_everything(path: Path) -> None:
    path.write_text(lines(1, "x", 3))
    with Intake(path, mapping(), stop_when_refused=True) as intake:
        assert len(list(intake)) == 1
    assert (intake.account.accepted, intake.account.refused) == (1, 1)


def test_what_the_worker_would_refuse_as_future_is_refused_here(path: Path) -> None:
    path.write_text(lines(1, 2, 3))
    with Intake(path, mapping(), now_ms=START_MS) as intake:
        assert len(list(intake)) == 2
    assert intake.account.first_refused[0].reason.startswith("event_time: more than a day from now")


def test_ten_refused_rows_are_kept_and_all_are_counted(path: Path) -> None:
    path.write_text(lines(*["x"] * 25))
    with Intake(path, mapping()) as intake:
        assert list(intake) == []
    assert len(intake.account.first_refused) == 10
    assert intake.account.reasons == {"amount: column amount is not a number": 25}


def test_reasons_are_bounded_even_where_each_is_its_own(path: Path) -> None:
    path.write_text(HEADER + "".join(f"t{i},c{i},2026-03-01T10:00:00Z,5\n" for i in range(1500)))
    with Intake(path, mapping(direction="{column: customer, values: {x: debit}}")) as intake:
        assert list(intake) == []
    assert len(intake.account.reasons) == 1001
    assert intake.account.reasons["other reasons"] == 500


def test_a_column_the_file_lacks_is_refused_before_any_row(path: Path) -> None:
    path.write_text(lines(1))
    with pytest.raises(ConfigError, match="the file has no column 'shop'"):
        Intake(path, mapping(merchant_id="shop"))


def test_refused_rows_are_written_with_row_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    with bad_rows_file(path) as write:
        write(RefusedRow(2, 3, "amount: column amount, with a comma"))
        write(RefusedRow(9, None, "no line"))
    assert path.read_text().splitlines() == [
        "row,line,reason", '2,3,"amount: column amount, with a comma"', "9,,no line",
    ]  # fmt: skip


def test_a_bad_rows_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"), bad_rows_file(tmp_path / "no" / "bad.csv"):
        pass
    with bad_rows_file(None) as write:
        write(RefusedRow(1, None, "x"))
