"""A generated bank as a file for others' tools, with the truth beside each transaction."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.transaction import Transaction

_BATCH = 20_000
# Constant, and what a generated bank does not say.
_NOT_SAID = {"schema_version", "balance_before", "attributes"}
_FIELDS = [name for name in Transaction.model_fields if name not in _NOT_SAID]
COLUMNS = [*_FIELDS, "is_fraud", "typology", "lookalike", "label_time"]
_TYPES = {
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "card_present": pa.bool_(),
    "is_fraud": pa.int8(),
}
_REPORT_EVERY = 2_000


class Event(Protocol):
    """An event of a generated bank, as this module needs it."""

    @property
    def time_ms(self) -> int: ...  # noqa: D102
    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def message(self) -> dict[str, object]: ...  # noqa: D102
    @property
    def typology(self) -> str | None: ...  # noqa: D102
    @property
    def lookalike(self) -> str | None: ...  # noqa: D102


def write_bank(events: Callable[[], Iterable[Event]], path: Path, report: Callable[[int], None]) -> int:
    """Write a bank to a `.parquet`, `.csv` or `.jsonl` file; returns the rows written.

    Args:
        events: Makes the bank's events anew at each call. Tables need two passes: a label comes
            long after its transaction, and memory holds the labels only.
        path: The file.
        report: Called now and then with the event time reached.
    """
    if path.suffix == ".jsonl":
        return _write_lines(_reported(events(), report), path)
    labels = {
        event.message["transaction_id"]: event.message["label_time"]
        for event in events()
        if event.topic == "labels" and event.message["label"] == "fraud"
    }
    transactions = (event for event in _reported(events(), report) if event.topic == "transactions")
    rows = (
        {**_row(event), "label_time": labels.get(event.message["transaction_id"])} for event in transactions
    )
    return (_write_csv if path.suffix == ".csv" else _write_parquet)(rows, path)


def _write_csv(rows: Iterator[dict[str, Any]], path: Path) -> int:
    written = 0
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            written += 1
    return written


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> int:
    schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in COLUMNS])
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as parquet:
        while batch := list(islice(rows, _BATCH)):
            parquet.write_table(pa.Table.from_pylist(batch, schema))
            written += len(batch)
    return written


def _row(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = {name: event.message.get(name) for name in _FIELDS}
    row |= {
        "is_fraud": int(event.typology is not None),
        "typology": event.typology,
        "lookalike": event.lookalike,
    }
    return row


def _write_lines(events: Iterable[Event], path: Path) -> int:
    written = 0
    with path.open("w") as file:
        for event in events:
            file.write(json.dumps({"topic": event.topic, "value": event.message}) + "\n")
            written += 1
    return written


def _reported(events: Iterable[Event], report: Callable[[int], None]) -> Iterator[Event]:
    for number, event in enumerate(events):
        if number % _REPORT_EVERY == 0:
            report(event.time_ms)
        yield event
