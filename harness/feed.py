"""A generated bank into Kafka: its past as fast as it goes, its present by the clock."""

import asyncio
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer

from generator.bank import Bank
from generator.events import BankEvent
from schemas.parse import dump

_TURN = 500


@dataclass(slots=True)
class Sent:
    """What was published.

    Attributes:
        transactions: How many, not counting bad messages.
        frauds: Typology of fraudulent transactions by id.
        lookalikes: Kind of genuine transactions that look like fraud, by id.
        due: Time at which a transaction was to be published, by id, where the clock ran.
        bad: Messages that must become dead letters.
    """

    transactions: int = 0
    labels: int = 0
    customers: int = 0
    bad: int = 0
    frauds: dict[str, str] = field(default_factory=dict)
    lookalikes: dict[str, str] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)


class Feed:
    """Publishes a bank's events.

    Args:
        producer: Started.
        bank: The bank.
        until_ms: Events at or after it are not published: the future.
        leave_out: Topics whose messages are not published.
    """

    def __init__(
        self, producer: AIOKafkaProducer, bank: Bank, until_ms: int, leave_out: Container[str] = ()
    ) -> None:
        self._producer = producer
        self._events = (
            event for event in bank.events() if event.time_ms < until_ms and event.topic not in leave_out
        )
        self._held: BankEvent | None = None
        self.sent = Sent()

    async def past(self, upto_ms: int) -> None:
        """Publish what happened before `upto_ms`, without pauses."""
        for number, event in enumerate(self._before(upto_ms)):
            await self._send(event)
            if number % _TURN == 0:
                await asyncio.sleep(0)
        await self._producer.flush()

    async def present(self, from_ms: int, upto_ms: int, seconds: float) -> None:
        """Publish the rest by the clock, so that `upto_ms` is reached after `seconds`.

        The schedule does not wait for the system under test: what comes late counts as late.
        """
        started, speed = time.monotonic(), (upto_ms - from_ms) / 1000 / seconds
        for event in self._before(upto_ms):
            due = started + (event.time_ms - from_ms) / 1000 / speed
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            if event.topic == "transactions":
                self.sent.due[str(event.message["transaction_id"])] = due
            await self._send(event)
        await self._producer.flush()

    async def bad(self, duplicate_of: bytes | None = None) -> None:
        """Publish a handful of messages that must become dead letters."""
        for value in (
            b"not json at all",
            b'["a list"]',
            dump({"transaction_id": "bad-1", "customer_id": "c0000001", "amount": -5, "currency": "EUR"}),
            dump({"transaction_id": "bad-2", "note": "4111 1111 1111 1111"}),
            None,
        ):
            await self._producer.send("transactions", value, key=b"c0000001")
            self.sent.bad += 1
        await self._producer.flush()

    def _before(self, upto_ms: int) -> Iterator[BankEvent]:
        while True:
            event = self._held or next(self._events, None)
            self._held = None
            if event is None:
                return
            if event.time_ms >= upto_ms:
                self._held = event
                return
            yield event

    async def _send(self, event: BankEvent) -> None:
        message, sent = event.message, self.sent
        await self._producer.send(event.topic, dump(message), key=str(message["customer_id"]).encode())
        setattr(sent, event.topic, getattr(sent, event.topic) + 1)
        if event.topic == "transactions":
            if event.typology is not None:
                sent.frauds[str(message["transaction_id"])] = event.typology
            if event.lookalike is not None:
                sent.lookalikes[str(message["transaction_id"])] = event.lookalike
