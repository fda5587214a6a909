"""A sink over logs in memory: real database, real files, and a broker that deletes what it is told to."""

import asyncio
import itertools
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
from aiokafka import TopicPartition

from infra import sink_feed
from infra.database import Database
from infra.event_files import EventFiles
from infra.partitioning import partition_for
from infra.sink_metrics import SinkMetrics
from infra.sink_store import SinkStore
from schemas.topics import FRAUD_SCORES, TRANSACTIONS
from sink.app import Sink
from sink.settings import SinkSettings
from tests.scoring import at


class Crash(BaseException):
    """The process is gone: nothing may catch this."""


def customer_of(partition: int) -> str:
    """One who belongs in a partition, of one or two."""
    return next(name for n in itertools.count(1) if partition_for(name := f"c-{n}", 2) == partition)


def transaction(transaction_id: str, partition: int = 0) -> bytes:
    """A transaction as its sender publishes it."""
    message = at(1.0, transaction_id=transaction_id, customer_id=customer_of(partition))
    return message.model_dump_json(exclude_unset=True).encode()


def score(transaction_id: str, offset: int, partition: int = 0) -> bytes:
    """The score of the transaction at an offset, as the worker publishes it."""
    said = {
        "transaction_id": transaction_id,
        "customer_id": customer_of(partition),
        "scored_at": "2026-01-01T00:00:00.000Z",
        "score": 0.1,
        "decision": "allow",
        "reasons": [],
        "flags": [],
        "model": {"name": "fraud", "version": "v1"},
        "source": {"topic": TRANSACTIONS.name, "partition": partition, "offset": offset},
    }
    return json.dumps(said).encode()


@dataclass(frozen=True, slots=True)
class Record:
    """What aiokafka gives for a record, as far as the sink looks."""

    offset: int
    value: bytes
    key: bytes | None = None
    timestamp: int = 1


class Broker:
    """Logs by topic and partition. `None` in a log is an offset that no consumer is given: a marker."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.logs: dict[TopicPartition, list[bytes | None]] = {}
        self.starts: dict[TopicPartition, int] = {}
        # Where a producer's transaction begins that has not ended yet: consumers are given what is before it.
        self.stable: dict[TopicPartition, int] = {}

    def log(self, topic: str, partition: int = 0) -> list[bytes | None]:
        return self.logs.setdefault(TopicPartition(topic, partition), [])

    def start(self, tp: TopicPartition) -> int:
        return self.starts.get(tp, 0)

    def cut(self, topic: str, start: int, partition: int = 0) -> None:
        """Retention deletes what is before an offset."""
        self.starts[TopicPartition(topic, partition)] = start

    def accept(self, transaction_id: str, partition: int = 0) -> int:
        """A transaction; returns its offset."""
        log = self.log(TRANSACTIONS.name, partition)
        log.append(transaction(transaction_id, partition))
        return len(log) - 1

    def score(self, transaction_id: str, offset: int, partition: int = 0) -> None:
        """The score of a transaction."""
        self.log(FRAUD_SCORES.name, partition).append(score(transaction_id, offset, partition))

    def shown(self, tp: TopicPartition, offset: int) -> Iterable[Record]:
        """Records from an offset on."""
        for number, value in enumerate(self.log(*tp)[offset : self.stable.get(tp)], offset):
            if value is not None:
                yield Record(number, value)


class Consumer:
    """Goes through the logs in small steps; where all is read it tells the sink to stop, or dies before that.

    As aiokafka's, its position is behind the last record that it gave, and behind the markers there only
    when it was asked for more.
    """

    def __init__(self, broker: Broker, stop: asyncio.Event, dies_after: int | None, fetched: int) -> None:
        self._broker, self._stop = broker, stop
        self._dies_after, self._fetched = dies_after, fetched
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._fetcher = SimpleNamespace(error_future=asyncio.get_running_loop().create_future())
        self._client = SimpleNamespace(close=self.stop)

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._positions = dict.fromkeys(partitions, 0)

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self._broker.start(tp) for tp in partitions}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._positions[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    def highwater(self, tp: TopicPartition) -> int:
        return len(self._broker.log(*tp))

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)

    async def getmany(self, **options: Any) -> dict[TopicPartition, list[Record]]:
        await asyncio.sleep(0)
        if self._dies_after is not None:
            if self._dies_after == 0:
                raise Crash
            self._dies_after -= 1
        found: dict[TopicPartition, list[Record]] = {}
        for tp in [tp for tp in self._positions if tp not in self._paused]:
            position = self._positions[tp]
            assert position >= self._broker.start(tp), "read where the log has nothing any more"
            records = list(itertools.islice(self._broker.shown(tp, position), self._fetched))
            end = self._broker.stable.get(tp, self.highwater(tp))
            self._positions[tp] = records[-1].offset + 1 if records else end
            if records:
                found[tp] = records
        if not found and not self._paused:
            self._stop.set()
        return found

    async def stop(self) -> None:
        pass


class Deployment:
    """A folder and a database, and one sink after the other over a broker's logs."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.broker = broker
        self.metrics = SinkMetrics()
        self._settings = SinkSettings(
            bootstrap="memory:1",
            database_url=f"sqlite:///{folder}/index.db",
            events=folder / "events",
            # After each fetch.
            flush_s=1e-9,
        )
        self.database = Database(self._settings.database_url)
        self.database.migrate()
        self.store = SinkStore(self.database)

    def run(self, dies_after: int | None = None, fetched: int = 3) -> None:
        """A sink until all is read and written, or dead after so many fetches.

        Args:
            fetched: How many records of a partition come at a time.

        Raises:
            HistoryError: Event log, database and Kafka do not fit.
        """
        try:
            asyncio.run(self._run(dies_after, fetched))
        except Crash:
            assert dies_after is not None

    async def _run(self, dies_after: int | None, fetched: int) -> None:
        stop, broker = asyncio.Event(), self.broker

        async def connected(*args: Any, **options: Any) -> Consumer:
            return Consumer(broker, stop, dies_after, fetched)

        class Admin:
            def __init__(self, *args: Any, **options: Any) -> None:
                pass

            async def source_partitions(self) -> int:
                return broker.partitions

            async def cluster_id(self) -> str:
                return "memory"

        class Tail(Admin):
            async def bounds(self, tps: Iterable[tuple[str, int]]) -> dict[Any, tuple[int, int]]:
                return {tp: (broker.start(TopicPartition(*tp)), len(broker.log(*tp))) for tp in tps}

            async def holds(self, topic: str, partition: int, offset: int, is_it: Any) -> bool:
                if offset < broker.start(TopicPartition(topic, partition)):
                    return True
                found = broker.log(topic, partition)[offset]
                return found is not None and is_it(json.loads(found)["transaction_id"])

            async def stop(self) -> None:
                pass

        with ExitStack() as replaced:
            for name, part in (("connected", connected), ("TopicsAdmin", Admin), ("LogTail", Tail)):
                replaced.enter_context(patch.object(sink_feed, name, part))
            files = EventFiles(self._settings.events)
            sink = Sink(self._settings, self.database, files, self.metrics, stop)
            try:
                await sink.run()
            finally:
                await sink.close()

    def close(self) -> None:
        self.database.close()

    @property
    def rows(self) -> list[str]:
        """Ids of the transactions in the event log."""
        return sorted(
            row["transaction_id"]
            for file in self.store.files()
            for row in pq.read_table(self._settings.events / file.path).to_pylist()
        )

    def skipped(self, reason: str) -> float:
        """How many messages were left out for a reason."""
        name = "tidegate_sink_skipped_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0
