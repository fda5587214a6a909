"""A bank's events, published at a steady rate, in their order or out of it."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from generator.bank import Bank
from generator.events import BankEvent
from generator.settings import BankSettings

RATE = 500
# Less than the retention of histories: what is in the log is in the state.
BANK = BankSettings(customers=4000, days=110, seed=17, start=datetime(2026, 1, 1, tzinfo=UTC))


class Traffic:
    """What a bank's customers do, on its way to a broker.

    Attributes:
        events: What is published next.
        rate: Events a second.
        sent: Messages published up to now, all topics.
    """

    def __init__(self, bank: BankSettings) -> None:
        self.events: Iterator[BankEvent] = iter(Bank(bank).events())
        self.rate = float(RATE)
        self.sent = 0

    async def run(
        self, bootstrap: str, stop: asyncio.Event, *, idempotent: bool, most: int | None = None
    ) -> None:
        """Publish until told to stop, or until so many events are sent."""
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            linger_ms=5,
            enable_idempotence=idempotent,
            acks="all",
            request_timeout_ms=20_000,
        )
        await producer.start()
        pending: set[asyncio.Future[Any]] = set()
        unacknowledged: dict[str, asyncio.Future[Any]] = {}
        started, sent = time.monotonic(), 0
        try:
            while not stop.is_set() and (most is None or sent < most):
                due = 200 if most is not None else int((time.monotonic() - started) * self.rate) - sent
                if due <= 0 or len(pending) > 20_000:
                    await asyncio.sleep(0.01)
                    pending = {future for future in pending if not future.done()}
                    started = max(started, time.monotonic() - (sent + self.rate) / self.rate)
                    continue
                for _ in range(min(due, 200)):
                    event = next(self.events)
                    key = str(event.message["customer_id"]).encode()
                    named = str(event.message.get("transaction_id"))
                    if event.topic == "labels" and named in unacknowledged:
                        # Nobody has a finding about what is not in the log yet.
                        await asyncio.wait([unacknowledged[named]], timeout=30)
                    try:
                        future = await producer.send(event.topic, json.dumps(event.message).encode(), key=key)
                    except KafkaTimeoutError:
                        # The broker is away for longer than the buffer lasts: so much less is in the log.
                        sent += 1
                        continue
                    pending.add(future)
                    if event.topic == "transactions":
                        unacknowledged[named] = future
                        future.add_done_callback(lambda _, name=named: unacknowledged.pop(name, None))
                    sent += 1
                    self.sent += 1
                await asyncio.sleep(0)
            # What the broker refused is not in the log, and the log is what counts.
            await asyncio.wait_for(asyncio.gather(*pending, return_exceptions=True), 60)
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()


def out_of_order(events: Iterator[BankEvent], random_: random.Random) -> Iterator[BankEvent]:
    """Transactions shuffled within some hours, one in a hundred held back by days; the rest follows."""
    held: list[BankEvent] = []
    while True:
        window = [event for _, event in zip(range(2000), events, strict=False)]
        if not window:
            yield from held
            return
        shuffled = [event for event in window if event.topic == "transactions"]
        late, shuffled = shuffled[::100], [e for i, e in enumerate(shuffled) if i % 100]
        random_.shuffle(shuffled)
        yield from shuffled
        held += late
        if len(held) > 200:
            yield from held[:100]
            del held[:100]
        # A label must not come before its transaction, which may still be held back.
        known = {event.message["transaction_id"] for event in held}
        for event in window:
            if event.topic != "transactions" and event.message.get("transaction_id") not in known:
                yield event
