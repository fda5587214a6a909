"""Questions to the event log, over the files that the manifest names.

A customer's transactions are read as `infra.event_rows` does; totals over all are `infra.event_totals`.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.answers import Answers
from infra.database import Database
from infra.event_files import EventFile
from infra.event_rows import CustomerRows
from infra.event_totals import TOO_MANY, Filter, equal, totals_json, totals_sql
from infra.sink_store import SinkStore
from schemas.errors import DependencyError, HistoryError, QuestionError, SlowAnswerError

T = TypeVar("T")
_DAY_MS: Final = 86_400_000
# A list of files is used again for so long: many lookups come within one flush of the sink.
_FILES_S: Final = 0.5
_KEPT_ANSWERS: Final = 256
_KEPT_ANSWERS_BYTES: Final = 32 << 20
# Files whose footers are read for the newest score, from the one written last on: all of a few flushes.
_LOOKED_AT: Final = 256
# Row groups in memory, decoded: a quarter of a million rows.
_KEPT_BYTES: Final = 96 << 20

COLUMNS: Final = (
    "transaction_id",
    "amount_minor",
    "amount",
    "currency",
    "credit",
    "transaction_type",
    "channel",
    "merchant_id",
    "merchant_category",
    "merchant_country",
    "counterparty_id",
    "score",
    "decision",
    "flags",
    "reasons",
    "model_version",
    "partition",
    "offset",
)
"""What a lookup shows. Positions, devices and card tokens stay in the files."""


class EventQueries:
    """The reading side of the event log.

    Args:
        database: With the manifest; written by the sink.
        root: Folder of the event log.
        page: Makes a page of rows and the next position.
        timeout_s: Limit of one question.
        threads: Of DuckDB.
        concurrent: Questions at a time; others wait.
    """

    def __init__(
        self,
        database: Database,
        root: Path,
        page: Callable[..., Any],
        *,
        timeout_s: float = 5.0,
        threads: int = 1,
        concurrent: int = 4,
    ) -> None:
        self._database = database
        self._manifest = SinkStore(database)
        self._root = root.absolute()
        self._page = page
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(concurrent)
        self._rows = CustomerRows(self._root, ("event_time", *COLUMNS), kept_bytes=_KEPT_BYTES)
        self._duckdb = duckdb.connect(config={"threads": threads})
        # Files never change: what is known of one stays true.
        self._duckdb.execute("SET parquet_metadata_cache=true; SET TimeZone='UTC'")
        self._ready = False
        self._listed = (-_FILES_S, tuple[EventFile, ...]())
        self._newest: tuple[Sequence[EventFile], int | None, int | None] = ((), None, None)
        self._answers = Answers[bytes | None](
            _KEPT_ANSWERS, size=lambda answer: len(answer or b""), most_size=_KEPT_ANSWERS_BYTES
        )

    def close(self) -> None:
        """Let go of DuckDB."""
        self._duckdb.close()

    async def of_customer(
        self, customer: Mapping[str, Any], which: Filter, after: tuple[Any, ...] | None, limit: int
    ) -> Any:
        """A customer's transactions, newest first; a page ends with the position of the next.

        Days are looked at from the newest on until the page is full.

        Args:
            customer: Their row of the customer index.
            which: Filter.
            after: Position of the previous page's last row: event time, partition, offset.
            limit: Most rows.
        """
        if not customer["transactions"]:
            return self._page([], None)
        return await self._again(lambda: self._of_customer(customer, which, after, limit))

    async def _of_customer(
        self, customer: Mapping[str, Any], which: Filter, after: tuple[Any, ...] | None, limit: int
    ) -> Any:
        first_ms, last_ms = customer["first_event_ms"], customer["last_event_ms"]
        span_days = 1 + (last_ms - first_ms) // _DAY_MS
        files = [
            f
            for f in reversed(await self._files())
            if f.max_ms >= max(first_ms, which.from_ms or 0)
            and f.min_ms <= min(last_ms, last_ms if which.to_ms is None else which.to_ms)
            and (after is None or f.min_ms <= after[0])
        ]
        rows: list[dict[str, Any]] = []
        # As many days as should fill the page at the customer's own rate, then more and more.
        days = 1 + int(1.25 * (limit + 1) * span_days / customer["transactions"])
        while files and len(rows) <= limit:
            oldest = files[0].day - days
            chosen = [f for f in files if f.day > oldest]
            files = files[len(chosen) :]
            missing = limit + 1 - len(rows)
            rows += await self._in_turn(
                lambda those=chosen, most=missing: _newest(  # type: ignore[misc]
                    self._read(those, customer["customer_id"], which, after), most
                )
            )
            days *= 4
        last = rows[limit - 1] if len(rows) > limit else None
        following = (last["event_ms"], last["partition"], last["offset"]) if last else None
        return self._page(rows[:limit], following)

    def _read(
        self, files: Sequence[EventFile], customer_id: str, which: Filter, after: tuple[Any, ...] | None
    ) -> pa.Table:
        table = self._rows.read([f.path for f in files], [customer_id]).combine_chunks()
        table = table.set_column(0, "event_ms", table["event_time"].cast(pa.int64()))
        masks = [pc.equal(table[name], value) for name, value in equal(which)]
        if which.from_ms is not None:
            masks.append(pc.greater_equal(table["event_ms"], which.from_ms))
        if which.to_ms is not None:
            masks.append(pc.less(table["event_ms"], which.to_ms))
        if which.min_score is not None:
            masks.append(pc.greater_equal(table["score"], which.min_score))
        if after is not None:
            masks.append(_before(table, after))
        for mask in masks[1:]:
            masks[0] = pc.and_(masks[0], mask)
        return table.filter(pc.fill_null(masks[0], False)) if masks else table

    async def totals(self, by: Sequence[str], which: Filter) -> bytes:
        """Counts and sums of transactions by columns and currency, as `infra.event_totals` writes them.

        An answer is kept as long as the event log's files are the same, and asked for once at a time.

        Raises:
            QuestionError: There are more groups than an answer has.
        """
        return await self._again(lambda: self._totals_of(by, which))

    async def _totals_of(self, by: Sequence[str], which: Filter) -> bytes:
        files = [
            f
            for f in await self._files()
            if (which.from_ms is None or f.max_ms >= which.from_ms)
            and (which.to_ms is None or f.min_ms < which.to_ms)
        ]
        if not files:
            return b"[]"
        sql, values = totals_sql(by, which)
        paths = [str(self._root / f.path) for f in files]
        # Not the names themselves: thousands of them, of each answer, are more than the answers.
        version = hashlib.blake2b("\n".join(paths).encode()).digest()
        question = (sql, *values)
        answer = await self._answers.get(question, lambda: self._ask(sql, [paths, *values], by), version)
        if answer is None:
            raise QuestionError(TOO_MANY)
        return answer

    async def newest(self) -> tuple[int | None, int | None]:
        """The newest event and the newest score that are stored, in ms; `None` where there is none.

        By what files hold, not by when they were written: a merge writes old rows anew.
        """
        files = await self._files()
        if self._newest[0] is not files:
            score_ms = await asyncio.to_thread(self._newest_score, files)
            self._newest = (files, max((f.max_ms for f in files), default=None), score_ms)
        return self._newest[1:]

    def _newest_score(self, files: Sequence[EventFile]) -> int | None:
        newest: int | None = None
        for file in sorted(files, key=lambda f: f.written_ms, reverse=True)[:_LOOKED_AT]:
            # What is stored was scored before: older files have nothing newer.
            if newest is not None and newest >= file.written_ms:
                break
            # A file that an erasure removed just now: the next look has its successor.
            with suppress(HistoryError):
                found = self._rows.greatest(file.path, "scored_at")
                found_ms = None if found is None else round(found.timestamp() * 1000)
                newest = max((ms for ms in (newest, found_ms) if ms is not None), default=None)
        return newest

    async def _again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, and once more of the files that count now: an erasure removes files at once."""
        try:
            return await ask()
        except _FileGone:
            self._listed = (-_FILES_S, ())
        try:
            return await ask()
        except _FileGone as gone:
            why = str(gone.__cause__).partition("\n")[0]
            raise DependencyError(
                f"a file of the event log cannot be read: {why}; where folder or database was put back, "
                "start the API again"
            ) from gone

    async def _files(self) -> Sequence[EventFile]:
        at, files = self._listed
        if time.monotonic() - at < _FILES_S:
            return files

        def read() -> tuple[EventFile, ...]:
            if not self._ready:
                if not self._database.ready():
                    raise DependencyError("there is no event log yet: start 'tidegate sink'")
                self._ready = True
            return tuple(self._manifest.files())

        try:
            async with asyncio.timeout(self._timeout_s):
                files = await asyncio.to_thread(read)
        except TimeoutError:
            raise DependencyError("the event log's manifest does not answer in time") from None
        self._listed = (time.monotonic(), files)
        self._rows.keep_only(f.path for f in files)
        return files

    async def _ask(self, sql: str, values: Sequence[Any], by: Sequence[str]) -> bytes | None:
        cursor = self._duckdb.cursor()
        try:
            return await self._in_turn(lambda: totals_json(cursor, sql, values, by))
        except DependencyError:
            cursor.interrupt()
            raise

    async def _in_turn(self, run: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s), self._turns:
                return await asyncio.to_thread(run)
        except TimeoutError:
            raise SlowAnswerError(
                f"the event log does not answer within {self._timeout_s:g} s: ask for fewer days"
            ) from None
        except (duckdb.IOException, duckdb.InvalidInputException, HistoryError) as error:
            # Its words name files, which is no secret here and helps in the log only.
            raise _FileGone from error
        except duckdb.Error as error:
            # Not its words: they repeat values.
            raise DependencyError(f"the event log cannot be asked: {type(error).__name__}") from error


class _FileGone(Exception):
    """A file could not be read: damaged, or removed since the list was made."""


def _newest(table: pa.Table, most: int) -> list[dict[str, Any]]:
    # Of so few rows Arrow's own sorting costs more than reading them.
    keys = [table[name].to_numpy() for name in ("offset", "partition", "event_ms")]
    newest = np.lexsort(keys)[: -most - 1 : -1]
    found: list[dict[str, Any]] = table.take(newest).to_pylist()
    return found


def _before(table: pa.Table, position: tuple[Any, ...]) -> pa.ChunkedArray:
    """Which rows come after a position, newest first: `(time, partition, offset) < position`."""
    time_ms, partition, offset = (table[name] for name in ("event_ms", "partition", "offset"))
    same_time = pc.equal(time_ms, position[0])
    same = pc.and_(same_time, pc.equal(partition, position[1]))
    return pc.or_(
        pc.less(time_ms, position[0]),
        pc.or_(
            pc.and_(same_time, pc.less(partition, position[1])), pc.and_(same, pc.less(offset, position[2]))
        ),
    )
