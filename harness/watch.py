"""What comes out, seen by an independent consumer."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import ALERTS, CHURN_SCORES, DEAD_LETTERS, FRAUD_SCORES

_TOPICS = (FRAUD_SCORES, CHURN_SCORES, ALERTS, DEAD_LETTERS)


@dataclass(slots=True)
class Seen:
    """What was read from the output topics.

    Attributes:
        scores: Fraud scores by transaction: decision.
        repeated: Fraud scores of a transaction that already had one.
        latency_s: From the time a transaction was due to its score being read.
        first_score, last_score: When the first and the newest fraud score were read.
    """

    scores: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    churn: int = 0
    alerts: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[str] = field(default_factory=Counter)
    recent_alerts: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=12))
    at_risk: dict[str, dict[str, Any]] = field(default_factory=dict)
    latency_s: list[float] = field(default_factory=list)
    first_score: float = 0.0
    last_score: float = 0.0


class Watcher:
    """Reads the output topics from their start.

    Args:
        bootstrap: The broker.
        partitions: Of every topic.
        due: When transactions were to be published, by id; grows while it is read.
    """

    def __init__(self, bootstrap: str, partitions: int, due: Mapping[str, float]) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # The embedded broker looks again after half of it.
            fetch_max_wait_ms=10,
        )
        self._partitions = partitions
        self._due = due
        self.seen = Seen()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Read until cancelled."""
        await self._consumer.start()
        try:
            tps = [TopicPartition(t.name, p) for t in _TOPICS for p in range(self._partitions)]
            self._consumer.assign(tps)
            await self._consumer.seek_to_beginning(*tps)
            while True:
                fetched = await self._consumer.getmany(timeout_ms=200, max_records=5000)
                now = time.monotonic()
                for tp, records in fetched.items():
                    for record in records:
                        self._take(tp.topic, orjson.loads(record.value), now)
                if fetched:
                    self._changed.set()
                    self._changed = asyncio.Event()
        finally:
            await self._consumer.stop()

    async def until(self, transactions: int, bad: int, timeout_s: float) -> bool:
        """Wait for as many scores and dead letters; false when they do not come in time."""
        deadline = time.monotonic() + timeout_s
        while len(self.seen.scores) < transactions or self.seen.dead_letters.total() < bad:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                await asyncio.wait_for(self._changed.wait(), min(left, 1.0))
            except TimeoutError:
                continue
        return True

    def _take(self, topic: str, message: dict[str, Any], now: float) -> None:
        seen = self.seen
        if topic == FRAUD_SCORES.name:
            transaction_id = message["transaction_id"]
            seen.repeated += transaction_id in seen.scores
            seen.scores[transaction_id] = message["decision"]
            seen.first_score, seen.last_score = seen.first_score or now, now
            if transaction_id in self._due:
                seen.latency_s.append(now - self._due[transaction_id])
        elif topic == CHURN_SCORES.name:
            seen.churn += 1
            if message["band"] == "low":
                seen.at_risk.pop(message["customer_id"], None)
            else:
                seen.at_risk[message["customer_id"]] = message
        elif topic == ALERTS.name:
            seen.alerts[f"{message['kind']} {message['severity']}"] += 1
            seen.recent_alerts.append(message)
        else:
            seen.dead_letters[message["reason"]] += 1
