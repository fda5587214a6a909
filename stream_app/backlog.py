"""Labels between the transactions of a backlog, in the order in which both were published.

A label waits for the transactions before it. Where a log of months is worked off (a rebuild, a worker that
was away, a log that was filled before its first worker), that would be until the end of all transactions:
scores on the way would know of no fraud, and what a label is about would have left the history. So behind
every part of a chunk, which is a day of event time at most, the labels are put in that were published before
what is processed by then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final

import structlog

from schemas.errors import EventError
from schemas.label import Label
from schemas.parse import parse_message
from schemas.topics import LABELS
from stream_app.partition import Partition
from stream_app.retry import Interrupted
from stream_app.side_inputs import LabelProcessor
from stream_app.transport import Chunk

_log = structlog.get_logger()
_APART_MS: Final = 20
"""Two producers' clocks: what is published closer together may have been published either way round.
Not more: a log of years may have been filled in seconds."""
_LOOK_AGAIN_S: Final = 0.005


class DueLabels:
    """Puts labels into histories on the way through a backlog.

    Args:
        labels: Processes them.
        held: Chunks of labels of a partition that were fetched and not processed, in order.
        rest_of: What of a chunk is next of its partition.
        done: Called with what is part of the state.
        patience_s: So long those that the log held when the partition was taken are waited for.
    """

    def __init__(
        self,
        labels: LabelProcessor,
        held: Callable[[int], Sequence[Chunk]],
        rest_of: Callable[[Partition, Chunk], Awaitable[Chunk | None]],
        done: Callable[[Partition, Chunk], None],
        patience_s: float,
    ) -> None:
        self._labels = labels
        self._held = held
        self._rest_of = rest_of
        self._done = done
        self._patience_s = patience_s

    async def put(self, partition: Partition, published_ms: int) -> None:
        """Put in what was published before a transaction, up to which all are processed.

        Args:
            partition: Its lock is held.
            published_ms: When the last transaction that was processed was published.

        Raises:
            StoreRolledBack: Labels between the store and what was fetched were never delivered.
            HistoryError: They are not in the log any more.
        """
        before, reached_ms = published_ms - _APART_MS, partition.require_lease().watermark_ms

        def is_due(record: Any) -> bool:
            # Both: who publishes may give records times of their own, such as when a label was told.
            return record.timestamp < before and _told_ms(record) <= reached_ms

        while await self._are_fetched(partition):
            for chunk in self._unread(partition):
                rest = await self._rest_of(partition, chunk)
                if rest is None:
                    return
                due = list(takewhile(is_due, rest.records))
                if due:
                    mine = replace(rest, records=due)
                    await self._labels.process(partition, mine)
                    self._done(partition, mine)
                if len(due) < len(rest.records):
                    return

    def _unread(self, partition: Partition) -> list[Chunk]:
        position = partition.next_offset(LABELS.name) or 0
        return [chunk for chunk in self._held(partition.number) if chunk.next_offset > position]

    async def _are_fetched(self, partition: Partition) -> bool:
        """Whether there are labels to look at; where the log has more, once they are fetched."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while not self._unread(partition):
            position = partition.next_offset(LABELS.name)
            if position is None or position >= partition.labels_end:
                return False
            if partition.interrupted.is_set():
                raise Interrupted
            if loop.time() >= until:
                # The log may end with what is no record, and will not be waited for again.
                _log.info("labels are not fetched, going on without them", partition=partition.number)
                partition.labels_end = 0
                return False
            await asyncio.sleep(_LOOK_AGAIN_S)
        return True


def _told_ms(record: Any) -> int:
    """When a label was told, in event time; 0 where nobody can read it: it waits for nothing."""
    try:
        return parse_message(Label, record.value).label_time_ms
    except EventError:
        return 0
