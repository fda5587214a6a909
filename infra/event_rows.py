"""Rows of single customers in the event log's files.

Files are sorted by customer, so a customer's rows are in one row group of a file, or in few that follow each
other; which ones is known from the least and greatest ids that Parquet keeps of each. What is read is
plain Arrow: a lookup by DuckDB costs several times as much before it reads anything.
"""

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import HistoryError

_KEY: Final = "customer_id"


@dataclass(frozen=True, slots=True)
class _Footer:
    """What is known of a file: its footer, and the least and greatest customer of each row group."""

    parquet: Any
    least: list[str]
    greatest: list[str]

    def groups(self, customer: str) -> range:
        """The row groups that a customer may be in: as their ids are sorted, these follow each other."""
        return range(bisect_left(self.greatest, customer), bisect_right(self.least, customer))


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group in memory, and where in it each customer's rows are: `[first, behind)`."""

    rows: pa.RecordBatch
    places: dict[str, tuple[int, int]]


class CustomerRows:
    """Reads rows of customers; may be used by several threads.

    Args:
        root: Folder of the event log.
        columns: To read, in this order; `None`: all.
        kept_bytes: Of row groups kept in memory. Files never change: what is known of one stays true.
        kept_footers: Files whose footers are kept.
    """

    def __init__(
        self,
        root: Path,
        columns: Sequence[str] | None = None,
        *,
        kept_bytes: int = 0,
        kept_footers: int = 2048,
    ) -> None:
        self._root = root
        self._columns = None if columns is None else list(columns)
        self._read_columns = None if columns is None else list(dict.fromkeys([_KEY, *columns]))
        self._kept_bytes, self._kept_footers = kept_bytes, kept_footers
        self._footers: OrderedDict[str, _Footer] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], _Group] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, paths: Sequence[str], customers: Iterable[str]) -> pa.Table:
        """The rows of customers in files, in the files' order and in each in its own.

        Args:
            paths: Relative to the folder; at least one.
            customers: Their ids.

        Raises:
            HistoryError: A file is missing or damaged.
        """
        wanted = sorted(customers)
        try:
            slices = [rows for path in paths for rows in self._slices(path, wanted)]
            if slices:
                return pa.Table.from_batches(slices)
            schema = self._footer(paths[0]).parquet.schema.to_arrow_schema()
        except (OSError, pa.ArrowException) as bad:
            raise HistoryError(f"the event log at {self._root} is damaged: {bad}") from bad
        found = schema.empty_table()
        return found if self._columns is None else found.select(self._columns)

    def _slices(self, path: str, wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        footer = self._footer(path)
        for number in sorted({number for customer in wanted for number in footer.groups(customer)}):
            group = self._group(path, footer, number)
            for customer in wanted:
                if (place := group.places.get(customer)) is not None:
                    yield group.rows.slice(place[0], place[1] - place[0])

    def greatest(self, path: str, column: str) -> Any:
        """The greatest value of a column in a file, as its footer says; `None` where it does not.

        Raises:
            HistoryError: The file is missing or damaged.
        """
        try:
            parquet = self._footer(path).parquet
        except (OSError, pa.ArrowException) as bad:
            raise HistoryError(f"the event log at {self._root} is damaged: {bad}") from bad
        place = parquet.schema.names.index(column)
        groups = (parquet.row_group(number).column(place) for number in range(parquet.num_row_groups))
        found = [g.statistics.max for g in groups if g.is_stats_set and g.statistics.has_min_max]
        return max(found, default=None)

    def keep_only(self, paths: Iterable[str]) -> None:
        """Forget files that are not among these: what was erased is not to stay in memory."""
        kept = set(paths)
        with self._lock:
            for path in [p for p in self._footers if p not in kept]:
                del self._footers[path]
            for key in [k for k in self._groups if k[0] not in kept]:
                self._bytes -= self._groups.pop(key).rows.nbytes

    def _footer(self, path: str) -> _Footer:
        with self._lock:
            if (known := self._footers.get(path)) is not None:
                self._footers.move_to_end(path)
                return known
        parquet = pq.read_metadata(self._root / path)
        column = parquet.schema.names.index(_KEY)
        groups = map(parquet.row_group, range(parquet.num_row_groups))
        ranges = [group.column(column).statistics for group in groups]
        footer = _Footer(parquet, [found.min for found in ranges], [found.max for found in ranges])
        with self._lock:
            self._footers[path] = footer
            while len(self._footers) > self._kept_footers:
                self._footers.popitem(last=False)
        return footer

    def _group(self, path: str, footer: _Footer, number: int) -> _Group:
        key = (path, number)
        with self._lock:
            if (known := self._groups.get(key)) is not None:
                self._groups.move_to_end(key)
                return known
        with pq.ParquetFile(self._root / path, metadata=footer.parquet) as file:
            # One thread: the pieces are small, and other requests want the cores as well.
            table = file.read_row_group(number, columns=self._read_columns, use_threads=False)
        places = _places(table[_KEY])
        if self._columns is not None:
            table = table.select(self._columns)
        # One piece of memory for each column: a slice of it costs next to nothing.
        group = _Group(table.combine_chunks().to_batches()[0], places)
        with self._lock:
            if self._kept_bytes and key not in self._groups:
                self._groups[key] = group
                self._bytes += group.rows.nbytes
                while self._bytes > self._kept_bytes:
                    self._bytes -= self._groups.popitem(last=False)[1].rows.nbytes
        return group


def _places(keys: pa.ChunkedArray) -> dict[str, tuple[int, int]]:
    """Where each customer's rows are, in a column that is sorted."""
    counted = pc.value_counts(keys.combine_chunks())
    places, at = {}, 0
    for name, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
        places[name] = (at, at + count)
        at += count
    return places
