"""A file's events into Kafka, at the pace asked for, each label when it became known."""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from infra.intake import Event
from infra.pacing import Pacer
from infra.row_mapper import closed_message, label_message
from schemas.errors import EventError

_TOLD: Final = -1
"""Of a closed account: no time is before it, so nothing more is published of it."""


class Publishes(Protocol):
    """The one thing this module needs of a publisher."""

    async def publish(self, topic: str, key: bytes, value: bytes, timestamp_ms: int | None = None) -> None:
        """Hand one message over."""


@dataclass(slots=True)
class Published:
    """What was handed over.

    Attributes:
        labels: All of them.
        accounts_closed: Those that say so.
    """

    transactions: int = 0
    labels: int = 0
    accounts_closed: int = 0
    labels_refused: int = 0
    labels_not_yet: int = 0


class _Waiting(NamedTuple):
    """A label whose time has not come; the earliest is the smallest.

    Attributes:
        closes: Whose account it says is closed; empty for a label of a transaction.
    """

    time_ms: int
    row_number: int
    closes: str
    key: bytes
    raw: bytes


class Replay:
    """Publishes events in the order they come.

    Labels wait in memory until an event is later than their own time, so that a reader learns of a fraud
    when it would have: as many wait as the file has rows in one label delay. Those still waiting after the
    last event follow it; but for those that nobody can know yet, which a worker would refuse. A file says on
    many rows that an account was closed: that is one label, of the earliest time known when it is due.

    Args:
        publisher: Connected.
        pacer: Asked before each message.
        topic: For transactions.
        labels_topic: For labels; `None`: none are published.
        now_ms: The time of day.
    """

    def __init__(
        self,
        publisher: Publishes,
        pacer: Pacer,
        *,
        topic: str,
        labels_topic: str | None = None,
        now_ms: Callable[[], int],
    ) -> None:
        self._publisher = publisher
        self._pacer = pacer
        self._topic = topic
        self._labels_topic = labels_topic
        self._now_ms = now_ms
        self._waiting: list[_Waiting] = []
        self._closed_ms: dict[str, int] = {}
        self.published = Published()

    async def run(self, events: Iterable[Event]) -> None:
        """Publish everything.

        Raises:
            DependencyError: Kafka did not take a message in time.
        """
        for event in events:
            await self._labels_until(event.event_time_ms)
            await self._pacer.wait(event.event_time_ms)
            key = event.transaction.customer_id.encode()
            await self._publisher.publish(self._topic, key, event.raw)
            self.published.transactions += 1
            if self._labels_topic is not None:
                self._hold_label(event, key)
                self._hold_closing(event, key)
        await self._labels_until(None)

    def _hold_label(self, event: Event, key: bytes) -> None:
        if event.label is None:
            return
        try:
            raw = label_message(event.transaction, event.label)
        except EventError:
            # Its time is beyond what the contract takes.
            self.published.labels_refused += 1
            return
        heapq.heappush(self._waiting, _Waiting(event.label.time_ms, event.row_number, "", key, raw))

    def _hold_closing(self, event: Event, key: bytes) -> None:
        closed_ms, customer_id = event.closed_ms, event.transaction.customer_id
        if closed_ms is None or closed_ms >= self._closed_ms.get(customer_id, closed_ms + 1):
            return
        self._closed_ms[customer_id] = closed_ms
        try:
            raw = closed_message(customer_id, closed_ms)
        except EventError:
            self.published.labels_refused += 1
            return
        heapq.heappush(self._waiting, _Waiting(closed_ms, event.row_number, customer_id, key, raw))

    async def _labels_until(self, time_ms: int | None) -> None:
        while self._waiting and (time_ms is None or self._waiting[0].time_ms <= time_ms):
            label = heapq.heappop(self._waiting)
            if label.closes and self._closed_ms[label.closes] < label.time_ms:
                # Another row has said since that it was earlier.
                continue
            await self._pacer.wait(label.time_ms)
            if label.time_ms > self._now_ms():
                self.published.labels_not_yet += 1
                continue
            await self._publisher.publish(self._labels_topic or "", label.key, label.raw)
            self.published.labels += 1
            if label.closes:
                self.published.accounts_closed += 1
                self._closed_ms[label.closes] = _TOLD
