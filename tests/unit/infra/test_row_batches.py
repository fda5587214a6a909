import gzip
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from features.attributes import attribute_features, attribute_values
from features.record import label_record, to_records
from infra.intake import Intake, RefusedRow
from infra.row_batches import Job, ReaderLost, RowBatches
from infra.row_mapper import label_message
from models.vectors import NO_LABEL, in_time_order
from schemas.errors import ConfigError
from schemas.label import Label
from schemas.parse import parse_message
from tests.unit.infra.mappings import mapping

NOW_MS = 1_790_000_000_000
LABELS = {"label": "{column: bad, fraud: [1], genuine: [0], delay: 2d}"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """4,500 rows, every hundredth of them bad: three batches."""
    path = tmp_path / "data.csv"
    rows = [
        f"t{i},c{i % 7},2026-03-{1 + i % 28:02}T10:00:00Z,{'x' if i % 100 == 99 else 1 + i % 50},{i % 3}"
        for i in range(4500)
    ]
    path.write_text("id,customer,ts,amount,bad\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("readers", [1, 2, 4])
def test_rows_of_other_processes_are_those_of_publish_in_the_files_order(path: Path, readers: int) -> None:
    rules = mapping(**LABELS)
    expected_refused: list[RefusedRow] = []
    with Intake(path, rules, now_ms=NOW_MS, on_refused=expected_refused.append) as intake:
        events = list(intake)
    refused: list[RefusedRow] = []
    with RowBatches(Job(path, rules, NOW_MS, every_refused=True), refused.append, readers=readers) as batches:
        found = list(batches)
    assert refused == expected_refused
    assert len(refused) == 45
    assert batches.account == intake.account
    assert batches.progress == 1.0
    assert [len(rows.records) for rows in found] == [2028, 2028, 399]
    transactions = [event.transaction for event in events]
    assert [t for rows in found for t in rows.transaction_ids] == [t.transaction_id for t in transactions]
    assert [c for rows in found for c in rows.customer_ids] == [t.customer_id for t in transactions]
    records = np.concatenate([rows.records for rows in found])
    assert records.tobytes() == to_records(transactions, [t.amount_minor for t in transactions]).tobytes()
    labels = [
        (NO_LABEL, 0)
        if event.label is None
        else (
            int(
                (known := label_record(parse_message(Label, label_message(event.transaction, event.label))))[
                    "label"
                ][0]
            ),
            int(known["time_ms"][0]),
        )
        for event in events
    ]
    codes = np.concatenate([rows.labels for rows in found]).tolist()
    times = np.concatenate([rows.label_time_ms for rows in found]).tolist()
    assert list(zip(codes, times, strict=True)) == labels
    assert set(codes) == {0, 1, 2}


def test_labels_only_where_wanted_and_within_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id,customer,ts,amount,bad\nt1,c1,2026-03-01T10:00:00Z,5,1\n")
    for rules, wanted in (
        (mapping(**LABELS), False),
        (mapping(label="{column: bad, fraud: [1], delay: 30000d}"), True),
    ):
        with RowBatches(Job(path, rules, NOW_MS, labels=wanted)) as batches:
            (rows,) = batches
        assert rows.labels.tolist() == [NO_LABEL]


def test_a_limit_stops_the_reading(path: Path) -> None:
    with RowBatches(Job(path, mapping(), NOW_MS, limit=10)) as batches:
        assert sum(len(rows.records) for rows in batches) == 10


def test_wrong_and_damaged_files_say_what_is_wrong(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="cannot be read"),
        RowBatches(Job(tmp_path / "no.csv", mapping(), NOW_MS)),
    ):
        pass
    lacking = tmp_path / "lacking.csv"
    lacking.write_text("id,ts\n1,2\n")
    with (
        pytest.raises(ConfigError, match="no column 'customer'"),
        RowBatches(Job(lacking, mapping(), NOW_MS)),
    ):
        pass


@pytest.mark.parametrize("readers", [1, 2])
def test_a_damaged_file_gives_the_rows_before_the_damage_and_says_where_it_is(
    tmp_path: Path, readers: int
) -> None:
    damaged = tmp_path / "data.csv.gz"
    whole = gzip.compress(
        b"id,customer,ts,amount\n" + b"".join(b"t%d,c,2026-03-01T10:00:00Z,5\n" % i for i in range(9999))
    )
    damaged.write_bytes(whole[: len(whole) // 2])
    found: list[str] = []
    with RowBatches(Job(damaged, mapping(), NOW_MS), readers=readers) as batches:

        def read() -> None:
            for rows in batches:
                found.extend(rows.transaction_ids)

        with pytest.raises(ConfigError, match="is damaged after line"):
            read()
    assert len(found) >= 4096
    assert found == [f"t{i}" for i in range(len(found))]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_reader_that_dies_is_an_error_and_not_the_end_of_the_file(path: Path, lost: int) -> None:
    with RowBatches(Job(path, mapping(), NOW_MS), readers=2) as batches:
        processes = batches._processes
        os.kill(processes[lost].pid or 0, signal.SIGKILL)
        with pytest.raises(ReaderLost, match="ended early"):
            list(batches)
    assert not any(process.is_alive() for process in processes)


def test_attributes_of_rows_are_those_of_their_messages_in_any_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    rows = [
        f"t{i},c{i % 7},2026-03-{1 + i * 5 % 28:02}T10:00:00Z,5,{i * i % 97},d{i % 3}" for i in range(3000)
    ]
    path.write_text("id,customer,ts,amount,risk,domain\n" + "\n".join(rows) + "\n")
    rules, chosen = mapping(attributes="[risk, domain]"), attribute_features("risk,domain")
    with Intake(path, rules, now_ms=NOW_MS) as intake:
        said = {event.transaction.transaction_id: event.transaction for event in intake}
    with RowBatches(Job(path, rules, NOW_MS, attributes=chosen), readers=2) as batches:
        found = in_time_order(batches)
    assert found.attributes is not None
    assert found.attributes.shape == (3000, 2)
    expected = attribute_values(chosen, [said[i] for i in found.transaction_ids])
    assert found.attributes.tobytes() == expected.tobytes()
    assert found.part(10, 20).attributes.tobytes() == expected[10:20].tobytes()  # type: ignore[union-attr]
    with RowBatches(Job(path, rules, NOW_MS)) as batches:
        assert in_time_order(batches).attributes is None


def test_the_first_closure_of_each_customer_counts_whoever_read_it(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    days = [f"t{i},c{i % 3},2026-03-01T10:00:00Z,5,{'' if i % 3 else 2000 + i}" for i in range(4000)]
    path.write_text("id,customer,ts,amount,left\n" + "\n".join([*reversed(days)]) + "\n")
    rules = mapping(account_closed="{column: left, format: epoch_s}")
    with RowBatches(Job(path, rules, NOW_MS), readers=2) as batches:
        rows = in_time_order(batches)
    assert len(rows) == 4000
    assert rows.closed_ms == {"c0": 2_000_000}
    assert rows.part(0, 1).closed_ms == rows.take(np.array([5])).closed_ms == rows.closed_ms
