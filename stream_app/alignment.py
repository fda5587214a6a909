"""Keeps a worker's partitions together in event time while a backlog is worked off.

What happens at a merchant is spread over all partitions. A window ends some hours before the event, so
partitions may be that far apart; one that ran further ahead would miss what the others have not read yet.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from features.entities import SLACK_TILES

_log = structlog.get_logger()
_LOOK_AGAIN_S: Final = 0.01


class Alignment:
    """Says up to which hour a partition may go.

    Args:
        is_idle: Whether a partition has nothing to read, or is not ours: those do not hold others.
        patience_s: After so long without any progress a partition goes on: what holds it stands still.
            Counted in looks: time in which this worker did nothing at all says nothing of the others.
    """

    def __init__(self, is_idle: Callable[[int], bool], *, patience_s: float = 5.0) -> None:
        self._is_idle = is_idle
        self._patience_s = patience_s
        self._reached: dict[int, int] = {}
        self._left_behind: dict[int, int] = {}  # until they move again
        self._moved = asyncio.Event()

    def begin(self, partition: int, hour: int) -> None:
        """A partition is ours and has read everything before an hour."""
        self._reached[partition] = hour
        self._signal()

    def reach(self, partition: int, hour: int) -> None:
        """A partition counted everything before an hour."""
        if partition in self._reached and hour > self._reached[partition]:
            self._reached[partition] = hour
            self._signal()

    def reached(self, partition: int) -> int | None:
        """Hour before which a partition counted everything; `None` before it is ours."""
        return self._reached.get(partition)

    def limit(self, partition: int) -> int | None:
        """Last hour that a partition may go on to; `None` where no other holds it."""
        held = [
            hour
            for other, hour in self._reached.items()
            if other != partition and self._left_behind.get(other) != hour and not self._is_idle(other)
        ]
        return min(held) + SLACK_TILES if held else None

    async def wait(self, partition: int, hour: int, interrupted: asyncio.Event) -> int | None:
        """Wait until a partition may process an hour; returns the last hour it may go on to, or `None`.

        An interruption ends the wait: what follows is not made part of the state.
        """
        self.reach(partition, hour)
        before, looks = dict(self._reached), 0
        while (limit := self.limit(partition)) is not None and limit < hour and not interrupted.is_set():
            if before != self._reached:
                before, looks = dict(self._reached), 0
            elif looks * _LOOK_AGAIN_S > self._patience_s:
                slow = {p: h for p, h in before.items() if p != partition and h + SLACK_TILES < hour}
                _log.warning("partitions stand still, going on without them", partitions=sorted(slow))
                self._left_behind |= slow
                continue
            try:
                await asyncio.wait_for(self._moved.wait(), _LOOK_AGAIN_S)
            except TimeoutError:
                looks += 1
        return limit

    def _signal(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
