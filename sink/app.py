"""Where the sink is put together and run.

Exactly once without Kafka's help: the offsets that a flush starts from and reaches are in the same SQL
transaction as the names of its files and its changes of customers. Kafka's consumer groups are not used:
the offsets decide, and a second sink on the same database is fenced off by them.
"""

import asyncio
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from infra.access import from_environment
from infra.consumers import connected
from infra.database import Database
from infra.event_files import EventFile, EventFiles, event_row
from infra.log_tail import LogTail
from infra.retried import Stopped, retried
from infra.sink_metrics import SinkMetrics
from infra.sink_store import SinkCommit, SinkFenced, SinkStore
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError, HistoryError, TidegateError
from schemas.topics import CHURN_SCORES, CUSTOMERS, ERASURES, FRAUD_SCORES, TRANSACTIONS
from sink.batch import Batch, activity_of
from sink.erasures import Erasures
from sink.join import PartitionJoin
from sink.settings import SinkSettings

T = TypeVar("T")
_log = structlog.get_logger()
_TOPICS = (TRANSACTIONS.name, FRAUD_SCORES.name, CHURN_SCORES.name, CUSTOMERS.name, ERASURES.name)
# A log that is ahead of the other waits: what is read and not joined is in memory.
_AHEAD = 20_000
_STRAY_S = 3600.0
_CONNECT_S = 30.0


async def run_sink(settings: SinkSettings, metrics: SinkMetrics | None = None) -> int:
    """Run until SIGTERM, SIGINT or a failure; returns the exit code.

    0 after a stop that was asked for, 3 where event log, database and Kafka do not fit, 1 otherwise.
    """
    metrics = metrics or SinkMetrics()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = Database(settings.database_url)
    sink = Sink(settings, database, EventFiles(settings.events), metrics, stop)
    try:
        if settings.metrics_port:
            metrics.serve(settings.metrics_host, settings.metrics_port)
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
        self._settings, self._files = settings, files
        self._database, self._store = database, SinkStore(database)
        self._metrics, self._stop = metrics, stop
        self._options = from_environment()[0].options()
        self._consumer: AIOKafkaConsumer | None = None
        self._joins: dict[int, PartitionJoin] = {}
        self._other: dict[tuple[str, int], int] = {}
        self._stored: dict[tuple[str, int], int] = {}
        self._batch = Batch()
        self._idle = False
        self._unscrubbed = False
        self._paused: set[TopicPartition] = set()
        # Erasures that the log held at the start, and up to where: nothing else is taken before them.
        self._first: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Read and write until told to stop.

        Raises:
            HistoryError: Event log, database and Kafka do not fit.
            DependencyError: One of them stayed away.
        """
        consumer = await self._open()
        await self._maintain()
        _log.info("sink ready", partitions=len(self._joins))
        due = time.monotonic() + self._settings.flush_s
        while not self._stop.is_set():
            fetched = await self._fetch(consumer)
            for tp, records in fetched.items():
                self._take(tp, records)
            if self._first:
                self._first = {
                    tp: end for tp, end in self._first.items() if await consumer.position(tp) < end
                }
                if not self._first:
                    consumer.resume(*self._paused)
                    self._paused.clear()
            else:
                self._regulate(consumer)
            if len(self._batch.rows) >= self._settings.flush_rows or time.monotonic() >= due:
                await self._flush()
                await self._maintain()
                due = time.monotonic() + self._settings.flush_s
        await self._flush()

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

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

    async def _open(self) -> AIOKafkaConsumer:
        admin = TopicsAdmin(self._settings.bootstrap, options=self._options)
        partitions = await self.retried("kafka", admin.source_partitions)
        cluster = await self.retried("kafka", admin.cluster_id)
        await self.retried("database", lambda: asyncio.to_thread(self._store.claim, cluster))
        self._stored = await self.retried("database", lambda: asyncio.to_thread(self._store.offsets))
        known = await self.retried("database", lambda: asyncio.to_thread(self._store.erased))
        self._batch = Batch(Erasures(known))
        consumer: Any = await self.retried("kafka", self._connect)
        self._consumer = consumer
        tps = [TopicPartition(topic, p) for topic in _TOPICS for p in range(partitions)]
        consumer.assign(tps)
        starts = await self.retried("kafka", lambda: self._starts(consumer, tps))
        for tp in tps:
            stored = self._stored.get((tp.topic, tp.partition))
            if stored is not None and stored < starts[tp] and tp.topic != CUSTOMERS.name:
                raise HistoryError(
                    f"{tp.topic} {tp.partition} starts at offset {starts[tp]}, the event log goes to "
                    f"{stored}: what lies between was deleted by the broker; start again with an empty event "
                    "log and database, and give the topic a longer retention"
                )
            consumer.seek(tp, max(starts[tp], stored or 0))
        await self._erasures_first(consumer, partitions)
        for p in range(partitions):
            self._joins[p] = PartitionJoin(
                p,
                TRANSACTIONS.name,
                self._stored.get((FRAUD_SCORES.name, p), 0),
                self._stored.get((TRANSACTIONS.name, p), 0),
            )
        return consumer

    async def _erasures_first(self, consumer: AIOKafkaConsumer, partitions: int) -> None:
        """Let everything else wait for the erasures that the log holds now."""
        tail = LogTail(self._settings.bootstrap, options=self._options)
        wanted = [(ERASURES.name, p) for p in range(partitions)]
        try:
            bounds = await self.retried("kafka", lambda: tail.bounds(wanted))
        finally:
            await tail.stop()
        ends = {TopicPartition(*tp): end for tp, (_, end) in bounds.items()}
        self._first = {tp: end for tp, end in ends.items() if await consumer.position(tp) < end}
        if self._first:
            self._paused = {tp for tp in consumer.assignment() if tp.topic != ERASURES.name}
            consumer.pause(*self._paused)

    async def _connect(self) -> Any:
        return await connected(
            self._settings.bootstrap,
            timeout_s=_CONNECT_S,
            options=self._options,
            # Never silently elsewhere than where the event log ends.
            auto_offset_reset="none",
            fetch_max_wait_ms=100,
        )

    async def _starts(
        self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        try:
            async with asyncio.timeout(30):
                found: dict[TopicPartition, int] = await consumer.beginning_offsets(tps)
                return found
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(
                f"Kafka at {self._settings.bootstrap} does not answer: {error!r}"
            ) from error

    async def _fetch(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, list[Any]]:
        try:
            found: dict[TopicPartition, list[Any]] = await consumer.getmany(
                timeout_ms=200, max_records=min(5000, self._settings.flush_rows)
            )
        except OffsetOutOfRangeError as lost:
            raise HistoryError(
                f"the log does not hold the offsets that the event log needs next ({lost}): it was replaced "
                "or cut; connect to the other one, or start again with an empty event log and database"
            ) from lost
        except (KafkaError, OSError) as error:
            self._metrics.retry("kafka")
            _log.warning("waiting", dependency="kafka", error=str(error))
            await asyncio.wait([asyncio.ensure_future(self._stop.wait())], timeout=1.0)
            return {}
        return found

    def _take(self, tp: TopicPartition, records: list[Any]) -> None:
        join = self._joins[tp.partition]
        for record in records:
            if tp.topic == TRANSACTIONS.name:
                join.add_transaction(record.offset, record.value)
            elif tp.topic == FRAUD_SCORES.name:
                join.add_score(record.offset, record.value)
            elif tp.topic == CHURN_SCORES.name:
                self._batch.add_churn(record.value)
                self._other[tp.topic, tp.partition] = record.offset + 1
            elif tp.topic == CUSTOMERS.name:
                self._batch.add_profile(record.key, record.value, record.timestamp)
                self._other[tp.topic, tp.partition] = record.offset + 1
            else:
                self._batch.add_erasure(record.value)
                self._other[tp.topic, tp.partition] = record.offset + 1
        for joined in join.take():
            self._batch.add(joined, tp.partition, event_row)

    def _regulate(self, consumer: AIOKafkaConsumer) -> None:
        """Pause the log that is too far ahead of the other, and read on where it no longer is."""
        for p, join in self._joins.items():
            for topic, waiting in (
                (TRANSACTIONS.name, join.transactions_waiting),
                (FRAUD_SCORES.name, join.scores_waiting),
            ):
                tp = TopicPartition(topic, p)
                if waiting > _AHEAD and tp not in self._paused:
                    consumer.pause(tp)
                    self._paused.add(tp)
                elif waiting <= _AHEAD // 2 and tp in self._paused:
                    consumer.resume(tp)
                    self._paused.discard(tp)

    async def _flush(self) -> None:
        """Write what is complete, in one step."""
        reached = dict(self._other)
        for p, join in self._joins.items():
            reached[FRAUD_SCORES.name, p] = join.next_score
            reached[TRANSACTIONS.name, p] = join.next_source
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
        if erased:
            stored = await self.retried("database", lambda: asyncio.to_thread(self._store.files))
            replaced, stay = await self.retried(
                "disk", lambda: asyncio.to_thread(self._files.erase, stored, erased)
            )
        if batch.rows:
            files = await self.retried("disk", lambda: asyncio.to_thread(self._files.write, batch.rows))
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
        )
        await self.retried("database", lambda: asyncio.to_thread(self._store.commit, commit))
        self._crash("after-commit")
        self._stored |= moved
        self._unscrubbed |= bool(erased)
        self._metrics.flushed(len(batch.rows), time.perf_counter() - started)
        self._metrics.erased(len(erased))
        self._metrics.skipped("unreadable", batch.unreadable)
        self._metrics.skipped("erased", batch.erased)
        for join in self._joins.values():
            self._metrics.skipped("unreadable", join.unreadable)
            self._metrics.skipped("repeated", join.repeated)
            join.unreadable = join.repeated = 0

    async def _maintain(self) -> None:
        """Merge small files, one day at a time, and remove what no reader has open any more."""
        await self.retried("database", lambda: asyncio.to_thread(self._maintain_now))

    def _maintain_now(self) -> None:
        # Of one size, so that a row is rewritten a few times and not with every flush; all of a day when
        # there is nothing else to do.
        many = self._settings.compact_files
        small: dict[tuple[int, int], list[EventFile]] = {}
        for file in self._store.files():
            if file.rows < self._settings.file_rows:
                size = 0 if self._idle else int(math.log(file.rows, many))
                small.setdefault((file.day, size), []).append(file)
        for files in small.values():
            if len(files) >= (2 if self._idle else many):
                merged = self._files.merge(files)
                self._crash("after-merge")
                if self._store.replace(files, merged):
                    self._metrics.merged(len(files))
                else:
                    self._files.remove([merged.path])
                break
        before_ms = time.time_ns() // 1_000_000 - int(self._settings.retired_s * 1000)
        retired = self._store.retired(before_ms)
        self._files.remove(retired)
        self._store.forget(retired)
        self._files.remove(self._files.strays(self._store.named(), max(_STRAY_S, self._settings.retired_s)))
        if self._unscrubbed:
            self._unscrubbed = not self._database.scrub()

    def _crash(self, point: str) -> None:
        if point == self._settings.crash_point:
            os.kill(os.getpid(), signal.SIGKILL)
