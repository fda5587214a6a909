"""Rows of single customers in the event log's files.

Files are sorted by customer, so a customer's rows are in one row group of a file, or in few that follow each
other; which ones is known from the least and greatest ids that Parquet keeps of each. What is read is
plain Arrow: a lookup by DuckDB costs several times as much before it reads anything.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
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
    ranges: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group in memory, and where in it each customer's rows are: `[first, behind)`."""

    table: pa.Table
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

    def read(self, path: str, customers: Iterable[str]) -> pa.Table:
        """The rows of customers in a file, in its order.

        Args:
            path: Relative to the folder.
            customers: Their ids.

        Raises:
            HistoryError: The file is missing or damaged.
        """
        wanted = sorted(customers)
        try:
            footer = self._footer(path)
            groups = [
                self._group(path, footer, number)
                for number, (least, most) in enumerate(footer.ranges)
                if any(least <= c <= most for c in wanted)
            ]
            if not groups:
                found = footer.parquet.schema.to_arrow_schema().empty_table()
            else:
                places = [(g.table, g.places[c]) for g in groups for c in wanted if c in g.places]
                slices = [table.slice(first, behind - first) for table, (first, behind) in places]
                found = pa.concat_tables(slices) if slices else groups[0].table.slice(0, 0)
        except (OSError, pa.ArrowException) as bad:
            raise HistoryError(f"the event log at {self._root} is damaged: {bad}") from bad
        return found if self._columns is None else found.select(self._columns)

    def keep_only(self, paths: Iterable[str]) -> None:
        """Forget files that are not among these: what was erased is not to stay in memory."""
        kept = set(paths)
        with self._lock:
            for path in [p for p in self._footers if p not in kept]:
                del self._footers[path]
            for key in [k for k in self._groups if k[0] not in kept]:
                self._bytes -= self._groups.pop(key).table.nbytes

    def _footer(self, path: str) -> _Footer:
        with self._lock:
            if (known := self._footers.get(path)) is not None:
                self._footers.move_to_end(path)
                return known
        parquet = pq.read_metadata(self._root / path)
        column = parquet.schema.names.index(_KEY)
        ranges = []
        for number in range(parquet.num_row_groups):
            found = parquet.row_group(number).column(column).statistics
            ranges.append((found.min, found.max))
        footer = _Footer(parquet, ranges)
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
        group = _Group(table.combine_chunks(), _places(table[_KEY]))
        with self._lock:
            if self._kept_bytes and key not in self._groups:
                self._groups[key] = group
                self._bytes += group.table.nbytes
                while self._bytes > self._kept_bytes:
                    self._bytes -= self._groups.popitem(last=False)[1].table.nbytes
        return group


def _places(keys: pa.ChunkedArray) -> dict[str, tuple[int, int]]:
    """Where each customer's rows are, in a column that is sorted."""
    counted = pc.value_counts(keys.combine_chunks())
    places, at = {}, 0
    for name, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
        places[name] = (at, at + count)
        at += count
    return places
