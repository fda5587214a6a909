"""The event log's files: accepted transactions with their scores as Parquet, one folder a day.

A file counts when the manifest in the database names it. Files are written under another name,
flushed, and renamed; what a crash leaves behind is never named and is removed later.
"""

import os
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra import event_mark
from infra.event_mark import DiskError
from infra.event_rows import CustomerRows
from schemas.errors import HistoryError
from schemas.transaction import Transaction

_DAY_MS: Final = 86_400_000
_MOMENT: Final = pa.timestamp("ms", tz="UTC")
# A lookup reads one row group of a file; a footer holds some kilobytes for each.
_LEAST_ROW_GROUP, _ROW_GROUP = 512, 4096

SCHEMA: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("customer_id", pa.string()),
        ("event_time", _MOMENT),
        ("amount_minor", pa.int64()),
        ("amount", pa.float64()),
        ("currency", pa.string()),
        ("account_id", pa.string()),
        ("credit", pa.bool_()),
        ("transaction_type", pa.string()),
        ("channel", pa.string()),
        ("merchant_id", pa.string()),
        ("merchant_category", pa.string()),
        ("merchant_country", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("device_id", pa.string()),
        ("card_token", pa.string()),
        ("counterparty_id", pa.string()),
        ("card_present", pa.bool_()),
        ("score", pa.float64()),
        ("decision", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("reasons", pa.string()),
        ("model_version", pa.string()),
        ("scored_at", _MOMENT),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
"""Columns of a file. No IP address: nothing reads it, and it is personal data."""

_PLAIN: Final = (
    "transaction_id",
    "customer_id",
    "amount_minor",
    "currency",
    "account_id",
    "transaction_type",
    "channel",
    "merchant_id",
    "merchant_category",
    "merchant_country",
    "latitude",
    "longitude",
    "device_id",
    "card_token",
    "counterparty_id",
    "card_present",
)


@dataclass(frozen=True, slots=True)
class EventFile:
    """A file as the manifest knows it.

    Attributes:
        path: Relative to the event log's folder.
        day: Since 1970; all its rows are of this day (UTC).
        min_ms, max_ms: Event times of its rows.
    """

    path: str
    day: int
    rows: int
    bytes: int
    min_ms: int
    max_ms: int
    written_ms: int


def event_row(transaction: Transaction, score: dict[str, Any], partition: int, offset: int) -> dict[str, Any]:
    """A row of the event log."""
    row = {name: getattr(transaction, name) for name in _PLAIN}
    row |= {
        "event_time": transaction.event_time_ms,
        "amount": float(transaction.amount),
        "credit": transaction.is_credit,
        "score": score["score"],
        "decision": score["decision"],
        "flags": score["flags"],
        "reasons": orjson.dumps(score["reasons"]).decode(),
        "model_version": score["model"]["version"],
        "scored_at": datetime.fromisoformat(score["scored_at"]),
        "partition": partition,
        "offset": offset,
    }
    return row


class EventFiles:
    """Writes, merges and removes files.

    Args:
        root: Folder of the event log; made where it is missing.

    Attributes:
        mark: The id that the folder must have for anything to be written or removed; `None` asks for none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mark: str | None = None

    def write(self, rows: Sequence[dict[str, Any]]) -> list[EventFile]:
        """Write rows to one new file for each day.

        Raises:
            HistoryError: The folder has another mark.
            DependencyError: The disk takes no files.
        """
        by_day: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            by_day[row["event_time"] // _DAY_MS].append(row)
        with self._all_or_none() as written:
            for day, mine in by_day.items():
                written.append(self._write(day, pa.Table.from_pylist(mine, SCHEMA)))
        return written

    def merge(self, files: Sequence[EventFile]) -> EventFile:
        """One file with the rows of several of one day.

        Raises:
            HistoryError: A file is missing or damaged.
            DependencyError: The disk takes no files.
        """
        return self._write(files[0].day, self._read(files))

    def erase(
        self, files: Sequence[EventFile], erased: Mapping[str, int]
    ) -> tuple[dict[EventFile, EventFile | None], list[dict[str, Any]]]:
        """Write files again without what erased customers did.

        Args:
            files: Those that count.
            erased: By customer, the time of the request in ms. What happened or was scored until then goes.

        Returns:
            For each file that held such rows the one to take its place, `None` where no row is left; and
            the rows of these customers that stay, with `event_time` in ms.

        Raises:
            HistoryError: A file is missing or damaged.
            DependencyError: The disk takes no files.
        """
        replaced: dict[EventFile, EventFile | None] = {}
        stay: list[dict[str, Any]] = []
        rows = CustomerRows(self.root)
        with self._all_or_none() as written:
            for file in files:
                mine = rows.read([file.path], erased)
                gone = _gone(mine, erased)
                columns = ("customer_id", "event_time", "score", "decision", "flags")
                kept = mine.filter(pc.invert(gone)).select(columns)
                at = kept.schema.get_field_index("event_time")
                stay += kept.set_column(at, "event_time", kept["event_time"].cast(pa.int64())).to_pylist()
                if pc.any(gone).as_py():
                    table = self._read([file])
                    table = table.filter(pc.invert(_gone(table, erased)))
                    replaced[file] = None
                    if len(table):
                        replaced[file] = new = self._write(file.day, table)
                        written.append(new)
        return replaced, stay

    @contextmanager
    def _all_or_none(self) -> Iterator[list[EventFile]]:
        """What is written goes where the rest fails: tries would fill a disk that is nearly full."""
        written: list[EventFile] = []
        try:
            yield written
        except BaseException:
            self.discard(written)
            raise

    def discard(self, files: Iterable[EventFile]) -> None:
        """Remove files that will not be named, as far as the disk lets it: strays go later."""
        for file in files:
            with suppress(OSError):
                (self.root / file.path).unlink()

    def _read(self, files: Sequence[EventFile]) -> pa.Table:
        try:
            return pa.concat_tables([pq.read_table(self.root / f.path, schema=SCHEMA) for f in files])
        except (OSError, pa.ArrowException) as bad:
            raise HistoryError(f"the event log at {self.root} is damaged: {bad}") from bad

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files that the manifest does not name any more.

        Raises:
            DependencyError: The disk does not let it.
        """
        try:
            for path in paths:
                (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise DiskError(f"the event log at {self.root} lets no file go: {error.strerror}") from error

    def strays(self, named: set[str], older_than_s: float) -> list[str]:
        """Files that the manifest does not name, left by a crash long enough ago.

        None in a folder without a mark: they may be somebody else's.

        Raises:
            HistoryError: The folder has another mark.
            DependencyError: The disk does not answer.
        """
        if self.mark is None:
            return []
        event_mark.check(self.root, self.mark)
        limit = time.time() - older_than_s
        found = []
        try:
            for path in self.root.glob("day=*/*"):
                relative = str(path.relative_to(self.root))
                if relative not in named and path.stat().st_mtime < limit:
                    found.append(relative)
        except OSError as error:
            raise DiskError(f"the event log at {self.root} cannot be read: {error.strerror}") from error
        return found

    def _write(self, day: int, table: pa.Table) -> EventFile:
        # By customer: a lookup of one reads few row groups.
        table = table.sort_by([(name, "ascending") for name in ("customer_id", "event_time", "offset")])
        folder = self.root / f"day={datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day):%Y-%m-%d}"
        now_ms = time.time_ns() // 1_000_000
        if self.mark is not None:
            # A volume that is not mounted any more is an empty folder.
            event_mark.check(self.root, self.mark)
        path = folder / f"{now_ms}-{secrets.token_hex(6)}.parquet"
        partial = path.with_suffix(".partial")
        try:
            folder.mkdir(parents=self.mark is None, exist_ok=True)
            groups = min(max(len(table) // 64, _LEAST_ROW_GROUP), _ROW_GROUP)
            pq.write_table(table, partial, compression="zstd", row_group_size=groups)
            size = partial.stat().st_size
            _flush(partial)
            partial.rename(path)
            _flush(folder)
        except OSError as full:
            for left in (partial, path):
                with suppress(OSError):
                    left.unlink()
            raise DiskError(f"the event log at {self.root} takes no files: {full.strerror}") from full
        times = pc.min_max(table["event_time"].cast(pa.int64())).as_py()
        relative = str(path.relative_to(self.root))
        return EventFile(relative, day, len(table), size, times["min"], times["max"], now_ms)


def _gone(table: pa.Table, erased: Mapping[str, int]) -> Any:
    """Which rows are of erased customers and not after their requests."""
    names = pa.array(list(erased), pa.string())
    until = pc.take(
        pa.array(list(erased.values()), pa.int64()), pc.index_in(table["customer_id"], value_set=names)
    )
    early = [pc.less_equal(table[name].cast(pa.int64()), until) for name in ("event_time", "scored_at")]
    return pc.fill_null(pc.or_kleene(*early), False)


def _flush(path: Path) -> None:
    """Bring a file, or a folder's list of names, to the disk before the manifest names it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
