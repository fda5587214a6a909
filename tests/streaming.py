"""A log, a consumer and a publisher in memory, and a worker over them that can die anywhere."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import orjson

from features import tile_codec
from features.arena import HistoryArena
from features.codec import decode
from features.kernels import FLAG_LATE
from features.ports import Commit, Lease, Outcome
from infra.memory_store import MemoryHistoryStore
from infra.partitioning import partition_for
from models.churn_scores import ChurnResults
from models.model_set import Models
from models.pipeline import Events, ScoredChunk
from schemas.errors import DependencyError, ModelError
from schemas.parse import dump
from schemas.topics import CUSTOMERS, DEAD_LETTERS, ERASURES, FRAUD_SCORES, LABELS, TRANSACTIONS
from stream_app.delivery import Delivery, Placement
from stream_app.ports import LogRange, Outgoing
from stream_app.retry import Retry
from stream_app.transport import Chunk
from stream_app.worker import Worker

START_MS = 1_767_225_600_000  # 2026-01-01
DAY_MS = 86_400_000
PUBLISHED_MS = START_MS + 360 * DAY_MS
SCORED_AT = "2026-12-31T00:00:00.000Z"
# Erasures first: everything else waits for them, and `Stream.run` handles one chunk at a time.
TOPICS = (ERASURES.name, TRANSACTIONS.name, LABELS.name, CUSTOMERS.name)


@dataclass(frozen=True, slots=True)
class Record:
    """What aiokafka gives for a record, as far as anybody looks."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    timestamp: int = PUBLISHED_MS
    timestamp_type: int = 0
    headers: tuple[Any, ...] = ()


class Crash(BaseException):
    """The process is gone: nothing may catch this."""


class Kafka:
    """Logs by topic and partition; a hole of a compacted log is `None`."""

    def __init__(self) -> None:
        self.logs: dict[tuple[str, int], list[Record | None]] = defaultdict(list)
        self.starts: dict[tuple[str, int], int] = {}
        self.committed: dict[tuple[str, int], int] = {}

    def put(
        self,
        topic: str,
        partition: int,
        value: object,
        key: bytes | None = b"k",
        headers: tuple[tuple[str, bytes], ...] = (),
        timestamp: int = PUBLISHED_MS,
    ) -> Record:
        log = self.logs[topic, partition]
        raw = value if value is None or isinstance(value, bytes) else dump(value)
        record = Record(topic, partition, len(log), raw, key, timestamp, headers=headers)
        log.append(record)
        return record

    def range(self, tp: tuple[str, int]) -> LogRange:
        return LogRange(self.starts.get(tp, 0), len(self.logs[tp]), self.committed.get(tp))

    def messages(self, topic: str, partition: int | None = None) -> list[dict[str, Any]]:
        return [
            orjson.loads(record.value or b"null")
            for (t, p), log in sorted(self.logs.items())
            if t == topic and partition in (None, p)
            for record in log
            if record is not None
        ]


class Observer:
    """Counts."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = defaultdict(int)
        self.leases: dict[str, int] = defaultdict(int)
        self.retries: dict[str, int] = defaultdict(int)

    def step(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def chunk(self, topic: str, records: int) -> None: ...

    def outcome(self, name: str, count: int = 1) -> None:
        self.outcomes[name] += count

    def dead_letter(self, reason: str) -> None:
        self.outcomes[f"dead:{reason}"] += 1

    def retry(self, dependency: str) -> None:
        self.retries[dependency] += 1

    def lease(self, event: str) -> None:
        self.leases[event] += 1

    def progress(self, topic: str, partition: int, next_offset: int) -> None: ...

    def cache(self, lookups: int, misses: int) -> None:
        self.outcomes["cache misses"] += misses

    def scored(
        self,
        events: Events,
        chunk: ScoredChunk,
        published_ms: Sequence[int],
        traced: tuple[int, str] | None = None,
    ) -> None:
        self.outcomes["scored"] += len(chunk.accepted)
        self.outcomes["late"] += int(((chunk.features.flags & FLAG_LATE) > 0).sum())
        self.latest_published_ms = list(published_ms)

    def churn(self, results: ChurnResults, trigger: str) -> None:
        self.outcomes[f"churn by {trigger}"] += len(results)

    def label(self, name: str, decision: str, proba: float | None = None) -> None:
        self.outcomes[f"label {name}: {decision}"] += 1


class Publisher:
    """Publishes into `Kafka`; `failures` are raised first, one a call, after so many messages got through."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.failures: list[tuple[int, BaseException]] = []
        self.before: Callable[[], None] = lambda: None

    async def publish(self, messages: Sequence[Outgoing], source: int) -> None:
        self.before()
        through, error = self.failures.pop(0) if self.failures else (len(messages), None)
        for message in messages[:through]:
            self.kafka.put(
                message.topic,
                message.partition,
                message.value,
                message.key,
                message.headers,
                PUBLISHED_MS if message.timestamp_ms is None else message.timestamp_ms,
            )
        if error is not None:
            raise error


class Store(MemoryHistoryStore):
    """A memory store that fails when told to, loses replies, and can go back in time."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[BaseException] = []
        self.lost_replies = 0
        self.applied: list[tuple[Lease, Commit]] = []

    async def acquire(self, partition: int) -> Lease:
        self._maybe_fail()
        return await super().acquire(partition)

    async def load(
        self, partition: int, customer_ids: Sequence[str], lease: Lease | None = None
    ) -> list[bytes | None]:
        self._maybe_fail()
        return await super().load(partition, customer_ids, lease)

    async def apply(self, lease: Lease, commit: Commit) -> Outcome:
        self._maybe_fail()
        outcome = await super().apply(lease, commit)
        if outcome is Outcome.APPLIED:
            self.applied.append((lease, commit))
        if self.lost_replies:
            self.lost_replies -= 1
            raise DependencyError("the reply was lost")
        return outcome

    def _maybe_fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def _require_complete(self) -> None:
        """Tests look at what there is at any moment."""

    def is_building(self, partition: int = 0) -> bool:
        """Whether lookups would be refused."""
        return self._partitions[partition].building

    def state(self) -> dict[int, Any]:
        """Everything stored, in a form that compares; without what names a lease.

        When a history was packed and cut down depends on the chunks; what counts of it does not.
        """
        return {
            number: (
                dict(p.next_offsets),
                p.watermark_ms,
                p.swept_day,
                {c: what_counts(p.history(c)) for c in p.histories},
                dict(p.last_event_ms),
                {c: tuple(s) for c, s in p.scores.items() if s},
                dict(p.churn),
                dict(p.profiles),
                dict(p.erased),
            )
            for number, p in self._partitions.items()
        }

    def next_offset(self, topic: str, partition: int = 0) -> int:
        """Up to where a topic is part of what is stored."""
        return self._partitions[partition].next_offsets.get(topic, 0)

    def tiles(self) -> dict[int, Any]:
        """What is stored of merchants and devices: appended tiles of one hour are as good as one tile."""
        return {
            number: {
                key: tile_codec.merge(
                    [tile_codec.decode(v)], tile_codec.Kept(1 << 30, 1 << 30, 1 << 30)
                ).tolist()
                for key, v in p.entities.items()
            }
            for number, p in self._partitions.items()
        }


def what_counts(stored: bytes | None) -> tuple[Any, bytes]:
    """Totals and records that a feature can look at."""
    history, arena = decode(stored), HistoryArena()
    slot = arena.put("", history)
    arena.prune(slot)
    return history.totals, arena.records(slot).tobytes()


class Consumer:
    """`worker.Log` over `Kafka`: it seeks where the worker says and gives out chunks."""

    def __init__(self, kafka: Kafka, partitions: int) -> None:
        self.kafka = kafka
        self.worker: Worker | None = None
        self.given = {(topic, p) for topic in TOPICS for p in range(partitions)}
        self.next: dict[tuple[str, int], int] = {}
        self.sought: dict[tuple[str, int], int] = defaultdict(int)
        self.failures: list[BaseException] = []

    async def ranges(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], LogRange]:
        if self.failures:
            raise self.failures.pop(0)
        return {tp: self.kafka.range(tp) for tp in partitions}

    async def bounds(
        self, partitions: Iterable[tuple[str, int]]
    ) -> Mapping[tuple[str, int], tuple[int, int]]:
        return {tp: (r.start, r.end) for tp, r in (await self.ranges(partitions)).items()}

    async def seek_to_stored(self, partitions: set[tuple[str, int]]) -> None:
        assert self.worker is not None
        for tp in partitions:
            self.next.pop(tp, None)
        for tp, offset in (await self.worker.positions(partitions)).items():
            self.next[tp] = offset
            self.sought[tp] += 1

    def seeks(self, topic: str, partition: int) -> int:
        return self.sought[topic, partition]

    def check(self) -> None: ...

    def assigned(self) -> set[tuple[str, int]]:
        return set(self.given)

    async def position(self, topic: str, partition: int) -> int:
        log, at = self.kafka.logs[topic, partition], self.next.get((topic, partition), 0)
        while at < len(log) and log[at] is None:
            at += 1
        return at

    def delivered(self, topic: str, partition: int) -> int | None:
        return self.next.get((topic, partition))

    def end(self, topic: str, partition: int) -> int | None:
        return len(self.kafka.logs[topic, partition])

    def fetch(self, topic: str, partition: int, most: int = 1000) -> Chunk | None:
        """The next chunk, or `None` where there is none."""
        tp = (topic, partition)
        if tp not in self.next:
            return None
        found = [r for r in self.kafka.logs[tp][self.next[tp] :] if r is not None][:most]
        if not found:
            return None
        chunk = Chunk(topic, partition, list(found), self.next[tp], self.sought[tp])
        self.next[tp] = chunk.next_offset
        return chunk


@dataclass
class Stream:
    """A log, a store and at any time one worker."""

    models: Models
    partitions: int = 1
    kafka: Kafka = field(default_factory=Kafka)
    store: Store = field(default_factory=Store)
    observer: Observer = field(default_factory=Observer)
    give_up_s: float = 5.0
    silent_days: int = 7
    misplaced: bool = False
    tail: bool = True
    score_features: bool = False
    label_patience_s: float = 0.0
    chunk_records: int = 2000
    labels_held: int = 20_000
    known: dict[str, Models] = field(default_factory=dict)

    @property
    def current(self) -> Models:
        return self.models

    def named(self, text: str) -> Models:
        if text not in self.known:
            raise ModelError(f"no set {text}")
        return self.known[text]

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.kafka)
        self.consumer = Consumer(self.kafka, self.partitions)
        self.crash: Callable[[str], None] = lambda point: None

    async def start(self) -> Worker:
        """A new worker, as after a crash: only log and store are what they were."""
        self.consumer = Consumer(self.kafka, self.partitions)
        self.consumer.worker = self.worker = self.new_worker(self.consumer)
        await self.consumer.seek_to_stored(set(self.consumer.given))
        return self.worker

    def new_worker(self, consumer: Consumer, publisher: Publisher | None = None) -> Worker:
        place = partition_for if self.misplaced else lambda customer_id, partitions: 0
        delivery = Delivery(
            self.store,
            publisher or self.publisher,
            self.observer,
            Retry(0.001, 0.002, self.give_up_s, self.observer.retry),
            Placement(self.partitions, place),
            lambda: SCORED_AT,
            lambda point: self.crash(point),
        )

        async def check_log() -> None: ...

        async def published_upto(partition: int, stored: int) -> tuple[int, bool]:
            scores = self.kafka.messages(FRAUD_SCORES.name, partition) if self.tail else []
            return max((int(s["source"]["offset"]) + 1 for s in scores), default=0), False

        return Worker(
            delivery,
            consumer,
            self,
            topics=TOPICS,
            cached_records=100_000,
            silent_days=self.silent_days,
            forget_days=90,
            score_features=self.score_features,
            check_log=check_log,
            published_upto=published_upto,
            entities=self.models.engine.entities,
            label_patience_s=self.label_patience_s,
            chunk_records=self.chunk_records,
            labels_held=self.labels_held,
        )

    async def run(self, sizes: Iterable[int] = (), topics: Sequence[str] = TOPICS) -> None:
        """Handle what is in the log, in chunks of these sizes and then as it comes."""
        wanted: Iterator[int] = iter(sizes)
        more = True
        while more and not self.worker.failed.done():
            more = False
            for topic in topics:
                for number in range(self.partitions):
                    most = 1000 if topic == ERASURES.name else next(wanted, 1000)
                    chunk = self.consumer.fetch(topic, number, most)
                    if chunk is not None:
                        more = True
                        await self.worker.handle([chunk])

    async def run_side_by_side(self, *topics: str, sizes: Iterable[int] = ()) -> None:
        """Handle what is in the log of topics with all partitions under way at once, as the worker does.

        Raises:
            Crash: The worker died in a chunk; what ran beside it went no further.
        """
        wanted, worker, died = iter(sizes), self.worker, list[BaseException]()
        tps = [(topic, number) for topic in topics for number in range(self.partitions)]
        handle = worker.lanes._handle

        async def guarded(chunks: Any) -> None:
            try:
                await handle(chunks)
            except Crash as crash:
                died.append(crash)

        worker.lanes._handle = guarded  # type: ignore[method-assign]
        try:
            while not worker.failed.done():
                for tp in tps:
                    chunk = self.consumer.fetch(*tp, next(wanted, 7)) if worker.has_room(*tp) else None
                    if chunk is not None:
                        worker.submit(chunk)
                await asyncio.sleep(0)
                if died:
                    await worker.lanes.close()
                    raise died[0]
                idle = all(worker.lanes.is_idle(*tp) for tp in tps)
                if idle and all(self.consumer.next.get(tp) == self.consumer.end(*tp) for tp in tps):
                    return
        finally:
            worker.lanes._handle = handle  # type: ignore[method-assign]

    def transact(
        self, count: int, customers: int = 3, first: int = 0, partition: int = 0
    ) -> list[dict[str, Any]]:
        """Put transactions into the log: some hours between them, ids `t-<n>`, customers `c-<n>`."""
        sent = [transaction(first + n, customer=f"c-{(first + n) % customers}") for n in range(count)]
        for message in sent:
            self.kafka.put(TRANSACTIONS.name, partition, message, str(message["customer_id"]).encode())
        return sent

    @property
    def scored(self) -> list[str]:
        return [m["transaction_id"] for m in self.kafka.messages(FRAUD_SCORES.name)]

    @property
    def dead(self) -> list[dict[str, Any]]:
        return self.kafka.messages(DEAD_LETTERS.name)

    @property
    def reasons(self) -> list[str]:
        return [letter["reason"] for letter in self.dead]


def transaction(number: int, *, customer: str = "c-1", **fields: Any) -> dict[str, Any]:
    """A transaction, three hours after the one with the number before."""
    return {
        "transaction_id": f"t-{number}",
        "customer_id": customer,
        "event_time": START_MS + number * 3 * 3_600_000,
        "amount": f"{10 + number % 90}.50",
        "currency": "EUR",
        "merchant_id": f"m-{number % 5}",
        **fields,
    }


def label(
    transaction_id: str, *, customer: str, value: str = "fraud", at_ms: int = START_MS
) -> dict[str, Any]:
    return {"customer_id": customer, "transaction_id": transaction_id, "label": value, "label_time": at_ms}
