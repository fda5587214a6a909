"""Anyone's file, read through a mapping: the rows that are good, and an account of all the others."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from infra.mapping import Mapping
from infra.row_mapper import MappedRow, RowLabel
from infra.tabular import Batch, open_table
from schemas.errors import ConfigError, EventError
from schemas.parse import check_not_future
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

_SHOWN = 10
# Reasons name fields and columns, not cells, but a column of free text may still make many.
_MOST_REASONS = 1000


class Event(NamedTuple):
    """A good row.

    Attributes:
        raw: The transaction as a message.
        closed_ms: When its customer closed the account, if the file says so.
    """

    row_number: int
    transaction: Transaction | WireTransaction
    event_time_ms: int
    raw: bytes
    label: RowLabel | None
    closed_ms: int | None = None


class PlainEvent(NamedTuple):
    """A good row, as far as the engine needs it."""

    transaction: Transaction | WireTransaction
    amount_minor: int
    label: RowLabel | None
    closed_ms: int | None = None


class RefusedRow(NamedTuple):
    """A row that cannot become a transaction.

    Attributes:
        line: Where it begins in the file, from 1; `None` for formats without lines.
    """

    row_number: int
    line: int | None
    reason: str

    @property
    def place(self) -> str:
        """Where a person finds it."""
        return f"row {self.row_number}" if self.line is None else f"line {self.line}"


@dataclass(slots=True)
class Account:
    """What became of the rows. `rows` is the sum of the four below.

    Attributes:
        accepted: Good ones.
        skipped: Left out on purpose by the mapping.
        outside: Good, but not within the times asked for.
        refused: Bad ones.
        first_refused: The first ten of them.
        reasons: How many were refused for what.
    """

    accepted: int = 0
    skipped: int = 0
    outside: int = 0
    refused: int = 0
    first_refused: list[RefusedRow] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Rows read."""
        return self.accepted + self.skipped + self.outside + self.refused

    @classmethod
    def together(cls, accounts: Iterable["Account"]) -> "Account":
        """One account of what several have read of a file."""
        total = cls()
        for one in accounts:
            total.accepted += one.accepted
            total.skipped += one.skipped
            total.outside += one.outside
            total.refused += one.refused
            total.first_refused += one.first_refused
            total.reasons += one.reasons
        total.first_refused = sorted(total.first_refused)[:_SHOWN]
        return total


class Intake:
    """The events of a file, in its order. A context manager; iterate once.

    The file and the mapping are checked against each other here, before any row is read.

    Args:
        path: CSV, gzipped CSV or Parquet.
        mapping: How its columns become transactions.
        from_ms: Earlier events are left out.
        to_ms: Events at or after it are left out.
        limit: Stop after this many events.
        now_ms: Refuse events more than a day after it, as the worker would.
        stop_when_refused: Stop at the first bad row.
        on_refused: Called with every bad row.
        every: Number of the first batch that is wanted, from 0, and distance of the others: for several that
            share a file.

    Raises:
        ConfigError: The file is no table, or lacks columns of the mapping.
    """

    def __init__(
        self,
        path: Path,
        mapping: Mapping,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        limit: int | None = None,
        now_ms: int | None = None,
        stop_when_refused: bool = False,
        on_refused: Callable[[RefusedRow], None] = lambda row: None,
        every: tuple[int, int] = (0, 1),
    ) -> None:
        self._mapping = mapping
        self._every = every
        self._ended = limit is not None and limit <= 0
        self._from_ms, self._to_ms, self._limit, self._now_ms = from_ms, to_ms, limit, now_ms
        self._stop_when_refused = stop_when_refused
        self._on_refused = on_refused
        self.account = Account()
        self._table = open_table(path, mapping.csv)
        try:
            mapping.check(self._table.columns)
        except ConfigError:
            self._table.close()
            raise

    @property
    def total_rows(self) -> int | None:
        """Rows of the file, where it says so."""
        return self._table.total_rows

    def progress(self) -> float:
        """Share of the file that has been read, 0 to 1."""
        return self._table.progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

    def __iter__(self) -> Iterator[Event]:
        """The good rows.

        Raises:
            ConfigError: The file is damaged from some row on.
        """
        for batch in self._batches():
            for row in self._good(batch, plain=False):
                if isinstance(row.transaction, Transaction):
                    yield Event(
                        row.row_number, row.transaction, row.event_time_ms, row.raw, row.label, row.closed_ms
                    )

    def plain(self) -> Iterator[list[PlainEvent]]:
        """The same rows, read in less time; of each batch those that are good.

        Raises:
            ConfigError: The file is damaged from some row on.
        """
        for batch in self._batches():
            yield [
                PlainEvent(row.transaction, row.amount_minor, row.label, row.closed_ms)
                for row in self._good(batch, plain=True)
                if row.transaction is not None
            ]

    def _batches(self) -> Iterator[Batch]:
        first, step = self._every
        batches = self._table.batches(list(self._mapping.uses()), first=first, step=step)
        while not self._ended and (batch := next(batches, None)) is not None:
            yield batch

    def _good(self, batch: Batch, *, plain: bool) -> Iterator[MappedRow]:
        account = self.account
        for row in self._mapping.rows(batch.columns, batch.first_row, batch.broken, plain=plain):
            if row.skipped:
                account.skipped += 1
            elif row.transaction is None or (problem := self._not_yet(row.event_time_ms)) is not None:
                reason = row.problem or problem or ""
                self._refuse(RefusedRow(row.row_number, batch.line_of(row.row_number), reason))
                if self._stop_when_refused:
                    self._ended = True
                    return
            elif not self._within(row.event_time_ms):
                account.outside += 1
            else:
                account.accepted += 1
                self._ended = account.accepted == self._limit
                yield row
                if self._ended:
                    return

    def _not_yet(self, time_ms: int) -> str | None:
        try:
            check_not_future(time_ms, self._now_ms)
        except EventError:
            return "event_time: more than a day from now; check the time's format and unit"
        return None

    def _within(self, time_ms: int) -> bool:
        return (self._from_ms is None or time_ms >= self._from_ms) and (
            self._to_ms is None or time_ms < self._to_ms
        )

    def _refuse(self, row: RefusedRow) -> None:
        account = self.account
        account.refused += 1
        if len(account.first_refused) < _SHOWN:
            account.first_refused.append(row)
        known = row.reason in account.reasons or len(account.reasons) < _MOST_REASONS
        account.reasons[row.reason if known else "other reasons"] += 1
        self._on_refused(row)


@contextmanager
def bad_rows_file(path: Path | None) -> Iterator[Callable[[RefusedRow], None]]:
    """A function that writes refused rows to a CSV file of row, line and reason; or does nothing.

    Raises:
        ConfigError: The file cannot be written.
    """
    if path is None:
        yield lambda row: None
        return
    try:
        file = path.open("w", newline="", encoding="utf-8")
    except OSError as unwritable:
        raise ConfigError(f"{path}: cannot be written: {unwritable.strerror or unwritable}") from unwritable
    with file:
        writer = csv.writer(file)
        writer.writerow(("row", "line", "reason"))
        yield writer.writerow
