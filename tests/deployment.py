"""A running deployment for tests: real broker, Valkey and workers, and a look at what came out."""

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis import Redis

from features.codec import History, decode
from generator.bank import Bank
from generator.settings import BankSettings
from harness.processes import WorkerProcess
from infra.embedded import EmbeddedStack
from infra.kafka_cluster import KafkaCluster
from infra.topics_admin import TopicsAdmin
from schemas.money import to_minor

PARTITIONS = 4
# TIDEGATE_TEST_BROKER=kafka runs the same tests on Apache Kafka, =containers fault tests in containers.
BROKER = os.environ.get("TIDEGATE_TEST_BROKER", "embedded")
CONTAINERS = BROKER == "containers"
KAFKA = BROKER == "kafka" or CONTAINERS
OUTPUTS = ("scores.fraud", "scores.churn", "scores.shadow", "alerts", "transactions.dlq")


@dataclass
class Log:
    """What was published as transactions, to compare with."""

    ids: list[str] = field(default_factory=list)
    totals: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))

    def add(self, message: dict[str, Any]) -> None:
        minor = to_minor(Decimal(str(message["amount"])), message["currency"])
        credit = message.get("direction") == "credit"
        mine = self.totals[message["customer_id"]]
        mine[0] += 1
        mine[1 + credit] += minor
        self.ids.append(message["transaction_id"])


class Deployment:
    """Broker, Valkey, and as many workers as a test starts."""

    def __init__(self, folder: Path, models: Path, *, durable: bool = True, kafka: bool = KAFKA) -> None:
        self.folder = folder
        self.stack = EmbeddedStack(folder, durable=durable)
        if kafka:
            self.stack.broker = KafkaCluster(folder)  # type: ignore[assignment]
        self.models = models
        self.workers: list[WorkerProcess] = []
        self.log = Log()

    def worker(self, **settings: Any) -> WorkerProcess:
        """A worker that is not started yet."""
        worker = WorkerProcess(
            self.folder,
            {
                "bootstrap": self.stack.bootstrap,
                "redis_url": self.stack.redis_url,
                "models": self.models,
                "partitions": PARTITIONS,
                "session_timeout_s": 6,
                "log_format": "json",
                **settings,
            },
            name=f"worker-{len(self.workers)}",
        )
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.stack.stop()

    async def create_topics(self) -> None:
        await TopicsAdmin(self.stack.bootstrap).create(PARTITIONS)

    async def publish(
        self, messages: Iterable[tuple[str, bytes | None, bytes | None]], compression: str | None = None
    ) -> None:
        """Publish `(topic, key, value)` in order."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.stack.bootstrap,
            linger_ms=5,
            max_request_size=2_000_000,
            compression_type=compression,
        )
        await producer.start()
        try:
            for topic, key, value in messages:
                await producer.send(topic, value, key=key)
            await producer.flush()
        finally:
            await producer.stop()

    async def publish_bank(self, settings: BankSettings, *, keyed: bool = True) -> Counter[str]:
        """Publish a generated bank and remember its transactions."""
        counts: Counter[str] = Counter()

        def messages() -> Iterable[tuple[str, bytes | None, bytes | None]]:
            for event in Bank(settings).events():
                counts[event.topic] += 1
                if event.topic == "transactions":
                    self.log.add(event.message)
                key = str(event.message["customer_id"]).encode() if keyed else None
                yield event.topic, key, json.dumps(event.message).encode()

        await self.publish(messages())
        return counts

    def committed(self, topic: str) -> int:
        """Records of a source topic that are part of the state."""
        with Redis.from_url(self.stack.redis_url) as redis:
            done = [redis.hget(f"{{tg:{p}}}:meta", f"next:{topic}") for p in range(PARTITIONS)]
        return sum(int(n or 0) for n in done)

    def outcomes(self) -> dict[str, int]:
        """Lifetime counts and sums of every customer in Redis: `(count, debit, credit)` in minor units."""
        return {
            customer: [h.totals.count, h.totals.debit_minor, h.totals.credit_minor]
            for customer, h in histories(self.stack.redis_url, "tg").items()
            if h.totals.count
        }

    def logs(self, worker: WorkerProcess) -> list[dict[str, Any]]:
        lines = worker.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def histories(url: str, namespace: str) -> dict[str, History]:
    """Every history of a namespace, by customer."""
    found = {}
    with Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{{{namespace}:*}}:h:*"):
            # Both parts at one instant: a worker may pack the history between two reads.
            newest, packed = client.mget(key, key.replace(b":h:", b":b:", 1))
            found[key.decode().split(":h:", 1)[1]] = decode(newest + (packed or b""))
    return found


class Outputs:
    """Everything on the output topics, read as it comes."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self.records: dict[str, list[tuple[int, dict[str, Any]]]] = {topic: [] for topic in OUTPUTS}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Outputs":
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        await consumer.start()
        try:
            tps = [TopicPartition(topic, p) for topic in OUTPUTS for p in range(PARTITIONS)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            while True:
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    self.records[tp.topic] += [(tp.partition, json.loads(r.value)) for r in records]
        finally:
            await consumer.stop()

    def scored(self) -> Counter[str]:
        return Counter(score["transaction_id"] for _, score in self.records["scores.fraud"])

    def dead(self) -> Counter[str]:
        return Counter(letter["reason"] for _, letter in self.records["transactions.dlq"])

    async def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._task is not None
            if self._task.done():
                self._task.result()
            assert time.monotonic() < deadline, (
                f"{what} did not come in {timeout_s} s: {len(self.scored())} scored, {dict(self.dead())}"
            )
            await asyncio.sleep(0.05)

    async def until_scored(self, ids: Iterable[str], timeout_s: float = 90) -> None:
        wanted = set(ids)
        await self.until(lambda: wanted <= self.scored().keys(), timeout_s, f"{len(wanted)} scores")

    def conflicting(self) -> list[str]:
        """Transactions with two different scores."""
        seen: dict[str, Any] = {}
        differing = []
        for _, score in self.records["scores.fraud"]:
            said = {name: value for name, value in score.items() if name != "scored_at"}
            if seen.setdefault(score["transaction_id"], said) != said:
                differing.append(score["transaction_id"])
        return differing


async def eventually(condition: Callable[[], Awaitable[bool] | bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        assert time.monotonic() < deadline, f"{what} did not happen in {timeout_s} s"
        await asyncio.sleep(0.05)
