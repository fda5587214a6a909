"""Labels between the transactions of a backlog, in the order in which both were published.

A label waits for the transactions before it. Where a log of months is worked off (a rebuild, a worker that
was away, a log that was filled before its first worker), that would be until the end of all transactions:
scores on the way would know of no fraud, and what a label is about would have left the history. So behind
each day of event time the labels are put in that were published before what is processed by then.

Nothing is refused on the way, nor passed on: a log need not be in the order of event time, so what a label is
about may still come. Such a label is left for its turn, and those behind it are held in memory meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog

from features.definitions import DAY_MS
from schemas.errors import DependencyError, EventError
from schemas.label import read_label
from schemas.topics import LABELS
from stream_app.labels import LabelProcessor
from stream_app.labels_ahead import LabelsAhead, Waiting
from stream_app.lanes import Lanes
from stream_app.partition import Partition
from stream_app.ports import Log, TopicPartition
from stream_app.retry import Interrupted

_log = structlog.get_logger()
MOST_HELD: Final = 20_000
"""Labels of a partition that are held behind one that is left: what comes behind these waits for its turn."""
_AT_ONCE: Final = 1_000
"""As many at most are made part of the state in one step: Redis does nothing else meanwhile."""
_APART_MS: Final = 20
"""Two producers' clocks: what is published closer together may have been published either way round.
Not more: a log of years may have been filled in seconds."""
_LOOK_AGAIN_S: Final = 0.005
_ASK_S: Final = 5.0


class DueLabels:
    """Puts labels that the log held when a partition was taken into histories on the way through it.

    Args:
        labels: Puts them in.
        lanes: Holds what was fetched and not processed.
        log: Knows seeks and how far the log was read.
        log_start: First offset that a topic's partition has.
        patience_s: So long labels that were not fetched yet are waited for; after that they come in their
            turn, behind the transactions.
        most_held: Bound of what is held.
    """

    def __init__(
        self,
        labels: LabelProcessor,
        lanes: Lanes,
        log: Log,
        log_start: Callable[[TopicPartition], Awaitable[int]],
        patience_s: float,
        most_held: int = MOST_HELD,
    ) -> None:
        self._labels = labels
        self._lanes = lanes
        self._log = log
        self._log_start = log_start
        self._patience_s = patience_s
        self._most_held = most_held

    def has_room(self, partition: Partition) -> bool:
        """Whether more labels of a partition may be fetched."""
        ahead = partition.ahead
        most = self._most_held if ahead is not None and ahead.seen < ahead.end else None
        return self._lanes.has_room(LABELS.name, partition.number, most)

    async def put(self, partition: Partition, published_ms: int) -> None:
        """Put in what was published before a transaction up to which all are processed, once a day.

        Args:
            partition: Its lock is held.
            published_ms: When the last transaction that was processed was published, by the log.

        Raises:
            LeaseLost: Somebody else has the partition.
            StoreRolledBack: The store is not where this partition is.
            Interrupted: The partition is taken over, or the worker stops.
        """
        ahead, reached_ms = partition.ahead, partition.require_lease().watermark_ms
        day, position = reached_ms // DAY_MS, partition.next_offset(LABELS.name)
        if ahead is None or position is None or position >= ahead.end or day <= ahead.day:
            return
        ahead.day = day
        ahead.forget(position)
        before = published_ms - _APART_MS
        await self._look(partition, ahead, before)
        await self._ask_of_gap(partition, ahead)
        # By both: who publishes may give records times of their own, such as when a label was told.
        due = [
            each.record
            for each in ahead.waiting
            if each.record.timestamp < before and each.told_ms <= reached_ms
        ]
        for start in range(0, len(due), _AT_ONCE):
            some = due[start : start + _AT_ONCE]
            tried = {record.offset for record in some}
            ahead.waiting = [each for each in ahead.waiting if each.record.offset not in tried]
            await self._labels.put_known(partition, some, partial(ahead.tried, tried))
            if partition.interrupted.is_set():
                raise Interrupted

    async def _ask_of_gap(self, partition: Partition, ahead: LabelsAhead) -> None:
        """See whether what has no record never had one: the end of a transaction, something compacted."""
        now_s = asyncio.get_running_loop().time()
        if ahead.gap is None or now_s < ahead.ask_s:
            return
        # An answer takes as long as the broker may wait with a fetch: not every day of event time.
        ahead.ask_s = now_s + _ASK_S
        if await self._log_start((LABELS.name, partition.number)) <= ahead.gap:
            ahead.gap = None

    async def _look(self, partition: Partition, ahead: LabelsAhead, before: int) -> None:
        """Take in what was fetched; where the log has more that may be due, once it is fetched."""
        loop, number = asyncio.get_running_loop(), partition.number
        until = loop.time() + self._patience_s
        while await self._take_in(partition, ahead):
            if ahead.newest_ms >= before or not self.has_room(partition):
                return
            if partition.interrupted.is_set():
                raise Interrupted
            if await self._is_read(number, ahead):
                ahead.seen = ahead.end
            elif loop.time() >= until:
                _log.warning("labels are not fetched: they come behind the transactions", partition=number)
                ahead.end = ahead.seen
            else:
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def _take_in(self, partition: Partition, ahead: LabelsAhead) -> bool:
        """Take in what was fetched; whether there is more to fetch."""
        number, seeks = partition.number, self._log.seeks(LABELS.name, partition.number)
        # Makes room for what is fetched next.
        self._lanes.discard(LABELS.name, number, partition.next_offset(LABELS.name) or 0, seeks)
        for chunk in self._lanes.held(LABELS.name, number):
            if chunk.seek != seeks or chunk.next_offset <= ahead.seen:
                continue
            if chunk.after > ahead.seen:
                return False  # never delivered: found out in its turn, as what retention let go is
            for record in chunk.records:
                if ahead.seen <= record.offset < ahead.end:
                    if record.offset > ahead.seen and ahead.gap is None:
                        ahead.gap = ahead.seen
                    ahead.seen = record.offset + 1
                    ahead.newest_ms = record.timestamp
                    told_ms = _told_ms(record)
                    if told_ms is None:
                        ahead.left.add(record.offset)
                    else:
                        ahead.waiting.append(Waiting(record, told_ms))
            ahead.seen = min(chunk.next_offset, ahead.end)
        return ahead.seen < ahead.end

    async def _is_read(self, number: int, ahead: LabelsAhead) -> bool:
        """Whether nothing is left to fetch: a log may end with what is no record."""
        if self._log.delivered(LABELS.name, number) != ahead.seen:
            return False
        # During a rebalance the consumer does not say where it is.
        with suppress(DependencyError):
            return await self._log.position(LABELS.name, number) >= ahead.end
        return False


def _told_ms(record: Any) -> int | None:
    """When a label was told, in event time; `None` where it will be refused."""
    try:
        return read_label(record.value, record.timestamp).label_time_ms
    except EventError:
        return None
