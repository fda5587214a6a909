"""Where the sink is put together and run.

Exactly once without Kafka's help: the offsets that a flush starts from and reaches are in the same SQL
transaction as the names of its files and its changes of customers. Kafka's consumer groups are not used:
the offsets decide, and a second sink on the same database is fenced off by them.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import structlog

from infra import event_mark
from infra.access import from_environment
from infra.database import Database
from infra.event_files import EventFile, EventFiles, event_row
from infra.event_upkeep import EventUpkeep
from infra.partitioning import partition_for
from infra.retried import Stopped, retried
from infra.sink_commit import SinkCommit, record_name
from infra.sink_feed import SinkFeed
from infra.sink_metrics import SinkMetrics
from infra.sink_store import SinkFenced, SinkStore
from infra.unnamed_files import unnamed_files
from schemas.errors import DependencyError, TidegateError
from schemas.topics import CHURN_SCORES, CUSTOMERS, FRAUD_SCORES, TRANSACTIONS
from sink.batch import Batch, activity_of
from sink.erasures import Erasures
from sink.join import PartitionJoin
from sink.progress import Progress, by_topic
from sink.settings import SinkSettings

T = TypeVar("T")
_log = structlog.get_logger()


async def run_sink(settings: SinkSettings, metrics: SinkMetrics | None = None) -> int:
    """Run until SIGTERM, SIGINT or a failure; returns the exit code.

    0 after a stop that was asked for, 3 where event log, database and Kafka do not fit, 1 otherwise.
    """
    # Several lines a second while a broker is away; the sink itself says that it waits.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    metrics = metrics or SinkMetrics()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if settings.metrics_port:
        metrics.serve(settings.metrics_host, settings.metrics_port)
    database = Database(settings.database_url)
    sink = Sink(settings, database, EventFiles(settings.events), metrics, stop)
    try:
        await sink.retried("database", lambda: asyncio.to_thread(database.migrate))
        await sink.run()
        return 0
    except Stopped:
        return 0
    except TidegateError as error:
        _log.error("sink stopped", error=str(error), kind=type(error).__name__)
        return 1 if isinstance(error, DependencyError) else 3
    finally:
        await sink.close()
        database.close()


class Sink:
    """Reads the topics and writes what is complete."""

    def __init__(
        self,
        settings: SinkSettings,
        database: Database,
        files: EventFiles,
        metrics: SinkMetrics,
        stop: asyncio.Event,
    ) -> None:
        self._settings, self._files, self._store = settings, files, SinkStore(database)
        self._metrics, self._stop = metrics, stop
        options = from_environment()[0].options()
        self._feed = SinkFeed(settings.bootstrap, min(5000, settings.flush_rows), options=options)
        self._upkeep = EventUpkeep(
            database,
            files,
            many=settings.compact_files,
            file_rows=settings.file_rows,
            # Meanwhile nothing is read, and no signal is heeded.
            budget_s=min(settings.flush_s / 2, 10.0),
            retired_s=settings.retired_s,
            merged=metrics.merged,
            crash=self._crash,
        )
        self._joins: dict[int, PartitionJoin] = {}
        self._stored: dict[tuple[str, int], int] = {}
        self._newest: dict[tuple[str, int], tuple[int, str]] = {}
        self._batch = Batch()
        self._idle = self._lost = self._told = False
        self._progress = Progress()
        metrics.watch(self._progress.behind_s)

    async def run(self) -> None:
        """Read and write until told to stop.

        Raises:
            HistoryError: Event log, database and Kafka do not fit.
            DependencyError: One of them stayed away.
        """
        await self._open()
        await self._ask(self._upkeep.run, self._idle)
        _log.info("sink ready", partitions=len(self._joins))
        due = time.monotonic() + self._settings.flush_s
        while not self._stop.is_set():
            for (topic, partition), records in (await self.retried("kafka", self._fetch)).items():
                self._take(topic, partition, records)
            await self._feed.regulate(dict(chain.from_iterable(j.waiting() for j in self._joins.values())))
            if len(self._batch.rows) >= self._settings.flush_rows or time.monotonic() >= due:
                await self._flush()
                await self._measure()
                await self._ask(self._upkeep.run, self._idle)
                due = time.monotonic() + self._settings.flush_s
        await self._flush()

    async def close(self) -> None:
        """Disconnect."""
        await self._feed.close()

    async def retried(self, dependency: str, call: Callable[[], Awaitable[T]]) -> T:
        """Call until it succeeds.

        Raises:
            Stopped: The sink was told to stop during a pause.
            DependencyError: The dependency stayed away for `give_up_s`.
        """
        return await retried(
            dependency,
            call,
            self._stop,
            self._metrics.retry,
            first_s=0.1,
            most_s=5.0,
            give_up_s=self._settings.give_up_s,
            final=SinkFenced,
        )

    async def _ask(self, call: Callable[..., T], *args: Any) -> T:
        """A question or change of the database, tried until it answers."""
        return await self.retried("database", partial(asyncio.to_thread, call, *args))

    async def _open(self) -> None:
        """Go to where the event log ends."""
        partitions, cluster = await self.retried("kafka", self._feed.claim)
        await self._ask(self._store.claim, cluster, partitions)
        await self.retried("disk", lambda: asyncio.to_thread(self._claim_folder))
        self._stored = stored = await self._ask(self._store.offsets)
        self._batch = Batch(Erasures(await self._ask(self._store.erased)))
        self._newest = newest = await self._ask(self._store.newest)
        await self.retried("kafka", lambda: self._feed.check(newest))
        starts = await self.retried("kafka", lambda: self._feed.open(partitions, stored))
        # Begun now, it begins where the log does: what was deleted before is gone for everybody.
        begins = stored or starts
        self._joins = {
            p: PartitionJoin(
                p, topic, stored.get((FRAUD_SCORES.name, p), 0), begins.get((topic, p), 0), starts[topic, p]
            )
            for topic, p in starts
            if topic == TRANSACTIONS.name
        }

    def _claim_folder(self) -> None:
        named = [file.path for file in self._store.files()]
        self._files.mark = event_mark.claim(self._files.root, self._store, named)

    async def _fetch(self) -> dict[tuple[str, int], list[Any]]:
        if self._lost:
            # What was read and not written is read again. The log may be another one now.
            await self._open()
            self._lost = False
        self._progress.ask()
        try:
            return await self._feed.fetch()
        except DependencyError:
            self._lost = True
            raise

    def _take(self, topic: str, partition: int, records: list[Any]) -> None:
        join, batch = self._joins[partition], self._batch
        if records:
            self._progress.read(topic, partition, records[-1].timestamp)
        for record in records:
            if topic == TRANSACTIONS.name:
                join.add_transaction(record.offset, record.value)
            elif topic == FRAUD_SCORES.name:
                join.add_score(record.offset, record.value)
            elif topic == CHURN_SCORES.name:
                batch.add_churn(record.value)
            elif topic == CUSTOMERS.name:
                batch.add_profile(record.key, record.value, record.timestamp)
            else:
                batch.add_erasure(record.value, record.timestamp)
        for joined in join.take():
            if partition_for(joined.transaction.customer_id, len(self._joins)) == partition:
                batch.add(joined, partition, event_row)
            else:  # When partitions were added it was passed on, and scored once more where it belongs.
                batch.moved += 1
        if join.rewind:
            self._feed.seek(TRANSACTIONS.name, partition, join.begin())

    async def _look_closer(self) -> None:
        """Ask the log about scores that do not fit what was read.

        Raises:
            HistoryError: Topics were made again.
        """
        late = []
        for p, join in self._joins.items():
            read_upto, all_read = await self._feed.progress(TRANSACTIONS.name, p)
            if join.waits_for is not None and (all_read or join.waits_for < read_upto):
                late.append((p, join, read_upto))
        if late:
            ask = [(TRANSACTIONS.name, p) for p, _, _ in late]
            bounds = await self.retried("kafka", lambda: self._feed.bounds(ask))
            for p, join, read_upto in late:
                if count := join.drop_unfound(read_upto, bounds[TRANSACTIONS.name, p][1]):
                    _log.warning("scores of transactions that are not there", partition=p, scores=count)
                    self._take(TRANSACTIONS.name, p, [])
        if not self._told and any(join.expired for join in self._joins.values()):
            self._told = True
            _log.warning("scores of transactions that the broker deleted before the event log was begun")
        # A crash makes the worker repeat scores, and so does a topic that was made again.
        doubtful = {p for p, join in self._joins.items() if join.repeated or join.foreign}
        newest = {key: record for key, record in self._newest.items() if key[1] in doubtful}
        if newest:
            await self.retried("kafka", lambda: self._feed.check(newest))

    async def _flush(self) -> None:
        """Write what is complete, in one step."""
        await self._look_closer()
        # All that was given out is in the batch or waits in a join.
        reached = await self._feed.positions()
        newest: dict[tuple[str, int], tuple[int, str]] = {}
        for join in self._joins.values():
            newest |= join.reach(reached)
        moved = {key: offset for key, offset in reached.items() if offset != self._stored.get(key, 0)}
        self._idle = not self._batch.rows
        if not moved:
            return
        erasures = self._batch.erasures
        batch, self._batch = self._batch, Batch(erasures)
        erased = erasures.take()
        self._crash("before-write")
        started = time.perf_counter()
        files: list[EventFile] = []
        replaced: dict[EventFile, EventFile | None] = {}
        stay: list[dict[str, Any]] = []
        with unnamed_files(self._files) as written:
            if erased:
                stored = await self._ask(self._store.files)
                erase = partial(asyncio.to_thread, self._files.erase, stored, erased)
                replaced, stay = await self.retried("disk", erase)
                written += [file for file in replaced.values() if file is not None]
            if batch.rows:
                files = await self.retried("disk", partial(asyncio.to_thread, self._files.write, batch.rows))
                written += files
            self._crash("after-write")
            commit = SinkCommit(
                {key: self._stored[key] for key in moved if key in self._stored},
                moved,
                files,
                activity_of([*stay, *batch.rows]),
                batch.churn,
                batch.profiles,
                erased,
                replaced,
                [c for c in {**batch.churn, **batch.profiles} if erasures.until_ms(c) >= 0],
                newest,
            )
            await self._ask(self._store.commit, commit)
        self._crash("after-commit")
        self._stored |= moved
        self._newest |= {key: (offset, record_name(id_)) for key, (offset, id_) in newest.items()}
        self._upkeep.unscrubbed |= bool(erased)
        self._metrics.flushed(len(batch.rows), time.perf_counter() - started)
        self._metrics.erased(len(erased))
        self._metrics.skipped(batch.flushed(), *(join.flushed() for join in self._joins.values()))

    async def _measure(self) -> None:
        """Say how far the event log is behind."""
        unread = await self._feed.unread()
        self._metrics.lag(by_topic(unread))
        # Transactions wait for the worker, not for the sink.
        mine = {key: count for key, count in unread.items() if key[0] != TRANSACTIONS.name}
        waiting = [(FRAUD_SCORES.name, p) for p, join in self._joins.items() if join.scores_waiting]
        self._progress.stored(mine, waiting)

    def _crash(self, point: str) -> None:
        if point == self._settings.crash_point:
            os.kill(os.getpid(), signal.SIGKILL)
