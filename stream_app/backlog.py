"""Labels between the transactions of a backlog, in the order in which both were published.

A label waits for the transactions before it. Where a log of months is worked off (a rebuild, a worker that
was away, a log that was filled before its first worker), that would be until the end of all transactions:
scores on the way would know of no fraud, and what a label is about would have left the history. So behind
each day of event time the labels are put in that were published before what is processed by then.

Nothing is refused on the way: a log need not be in the order of event time, so what a label is about may
still come. Such a label is put off: published once more, to the end of its log.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final

import structlog

from features.definitions import DAY_MS
from schemas.errors import DependencyError, EventError
from schemas.label import Label
from schemas.parse import parse_message
from schemas.topics import LABELS
from stream_app.lanes import Lanes
from stream_app.partition import Partition
from stream_app.ports import Log
from stream_app.retry import Interrupted
from stream_app.side_inputs import LabelProcessor
from stream_app.transport import Chunk

_log = structlog.get_logger()
_APART_MS: Final = 20
"""Two producers' clocks: what is published closer together may have been published either way round.
Not more: a log of years may have been filled in seconds."""
_LOOK_AGAIN_S: Final = 0.005


class DueLabels:
    """Puts labels that the log held when a partition was taken into histories on the way through it.

    Args:
        labels: Processes them.
        lanes: Holds what was fetched and not processed.
        log: Knows seeks and how far the log was read.
        rest_of: What of a chunk is next of its partition.
        done: Called with what is part of the state.
        patience_s: So long labels that were not fetched yet are waited for; after that they come behind
            the transactions.
    """

    def __init__(
        self,
        labels: LabelProcessor,
        lanes: Lanes,
        log: Log,
        rest_of: Callable[[Partition, Chunk], Awaitable[Chunk | None]],
        done: Callable[[Partition, Chunk], None],
        patience_s: float,
    ) -> None:
        self._labels = labels
        self._lanes = lanes
        self._log = log
        self._rest_of = rest_of
        self._done = done
        self._patience_s = patience_s

    async def put(self, partition: Partition, published_ms: int) -> None:
        """Put in what was published before a transaction up to which all are processed, once a day.

        Args:
            partition: Its lock is held.
            published_ms: When the last transaction that was processed was published, by the log.

        Raises:
            StoreRolledBack: Labels between the store and what was fetched were never delivered.
            HistoryError: They are not in the log any more.
            Interrupted: The partition is taken over, or the worker stops.
        """
        before, reached_ms = published_ms - _APART_MS, partition.require_lease().watermark_ms
        end, day = partition.labels_end, reached_ms // DAY_MS
        if (partition.next_offset(LABELS.name) or 0) >= end or day <= partition.labels_day:
            return
        partition.labels_day = day

        def is_due(record: Any) -> bool:
            # By both: who publishes may give records times of their own, such as when a label was told.
            return record.offset < end and record.timestamp < before and _told_ms(record) <= reached_ms

        while (chunk := await self._next(partition)) is not None:
            rest = await self._rest_of(partition, chunk)
            if rest is None:
                return
            due = list(takewhile(is_due, rest.records))
            if due:
                mine = replace(rest, records=due)
                await self._labels.process(partition, mine, final=False)
                self._done(partition, mine)
            if len(due) < len(rest.records):
                return

    async def _next(self, partition: Partition) -> Chunk | None:
        """The next chunk of what the log held when the partition was taken, once it is fetched."""
        topic, number = LABELS.name, partition.number
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while (position := partition.next_offset(topic) or 0) < partition.labels_end:
            # Makes room for what is fetched next.
            self._lanes.discard(topic, number, position)
            seeks = self._log.seeks(topic, number)
            for chunk in self._lanes.held(topic, number):
                if chunk.seek == seeks and chunk.next_offset > position:
                    return chunk
            if partition.interrupted.is_set():
                raise Interrupted
            if await self._is_read(number, position, partition.labels_end):
                break
            if loop.time() >= until:
                _log.warning("labels are not fetched: they come behind the transactions", partition=number)
                partition.labels_end = 0
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
        return None

    async def _is_read(self, number: int, position: int, end: int) -> bool:
        """Whether nothing is left before the end: a log may end with what is no record."""
        if self._log.delivered(LABELS.name, number) != position:
            return False
        # During a rebalance the consumer does not say where it is.
        with suppress(DependencyError):
            return await self._log.position(LABELS.name, number) >= end
        return False


def _told_ms(record: Any) -> int:
    """When a label was told, in event time; 0 where nobody can read it: it waits for nothing."""
    try:
        return parse_message(Label, record.value).label_time_ms
    except EventError:
        return 0
