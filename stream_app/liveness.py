"""Looks after partitions that are assigned but stand still.

Faust and the Kafka client can lose a partition without a word: a chunk dropped on its way to an agent, a
fetch that never comes back, a lease taken by a worker that the group had already given up on. Whatever
the cause, a partition is sought again, and where that does not help the worker ends and is started anew.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from schemas.errors import DependencyError
from stream_app.ports import TopicPartition

_log = structlog.get_logger()


class Progress(Protocol):
    """What is known of partitions; none of it blocks for long."""

    def assigned(self) -> set[TopicPartition]:
        """What the group gave to this worker; empty during a rebalance."""
        ...

    def check(self) -> None:
        """Raise what ended the Kafka client's own tasks, if anything did."""
        ...

    def is_busy(self, topic: str, partition: int) -> bool:
        """Whether a lease is being taken, or a chunk is under way, if only to wait for a dependency."""
        ...

    def reached(self, topic: str, partition: int) -> int | None:
        """Next offset to process; `None` where the partition is not ours."""
        ...

    async def is_behind(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, bool]:
        """Whether the log holds records that were not processed.

        Raises:
            DependencyError: The broker does not say.
        """
        ...

    async def seek(self, partition: int) -> None:
        """Take the lease of a partition again and seek its topics."""
        ...


@dataclass(slots=True)
class _Still:
    """A partition of a topic that did not move."""

    at: int | None
    since: float
    sought: bool = False


class Liveness:
    """Watches partitions.

    Args:
        progress: What it looks at.
        lost_s: A partition without a lease is taken again after it: longer than it takes a worker that
            was paused to hear that it is no longer in the group, or two would take it in turns.
        still_s: A partition that is behind and does not move is sought after it, once; after as long
            again `fail` is called.
        fail: Ends the worker.
        clock: Seconds.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        lost_s: float,
        still_s: float,
        fail: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress
        self._lost_s = lost_s
        self._still_s = still_s
        self._fail = fail
        self._clock = clock
        self._still: dict[TopicPartition, _Still] = {}

    async def run(self, every_s: float) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.look()
            except DependencyError:
                # The broker is away: nothing can move, and whoever needs it waits and says so.
                self._still.clear()
            except Exception as error:
                self._fail(error)
                return

    async def look(self) -> None:
        """Look once."""
        now, progress = self._clock(), self._progress
        progress.check()
        seen = {tp: progress.reached(*tp) for tp in progress.assigned() if not progress.is_busy(*tp)}
        self._still = {
            tp: self._still[tp] if tp in self._still and self._still[tp].at == at else _Still(at, now)
            for tp, at in seen.items()
        }
        lost = {tp for tp, still in self._still.items() if still.at is None}
        for number in sorted({tp[1] for tp in lost if now - self._still[tp].since >= self._lost_s}):
            _log.warning("partition without a lease, taking it again", partition=number)
            await progress.seek(number)
            for tp in [tp for tp in lost if tp[1] == number]:
                del self._still[tp]
        slow = {tp for tp in self._still.keys() - lost if now - self._still[tp].since >= self._still_s}
        behind = await progress.is_behind(slow) if slow else {}
        for tp in slow:
            if not behind[tp]:
                self._still[tp] = _Still(self._still[tp].at, now)
        for number in sorted({tp[1] for tp in slow if behind[tp]}):
            await self._stir(sorted(tp for tp in slow if behind[tp] and tp[1] == number), number)

    async def _stir(self, stuck: list[TopicPartition], number: int) -> None:
        """Seek a partition of which these topics stand still; end the worker where that was done before."""
        for topic, _ in stuck:
            still = self._still[topic, number]
            if still.sought:
                self._fail(RuntimeError(f"{topic}[{number}] stands still at offset {still.at}"))
                return
        _log.warning(
            "partition stands still, seeking it again", topics=[t for t, _ in stuck], partition=number
        )
        await self._progress.seek(number)
        for tp in stuck:
            self._still[tp] = _Still(self._still[tp].at, self._clock(), sought=True)
