"""Waiting for what another topic's log held."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from schemas.errors import DependencyError
from stream_app.delivery import Delivery
from stream_app.partition import Partition

_LOOK_AGAIN_S = 1.0


class Order:
    """Waits until what was in another topic's log is processed.

    Args:
        delivery: The shared steps.
        log_end: Next offset of a topic's partition, as the broker knows it now.
        passed: Whether nothing is left to process before an offset of it.
    """

    def __init__(
        self,
        delivery: Delivery,
        log_end: Callable[[str, int], Awaitable[int]],
        passed: Callable[[str, int, int], Awaitable[bool]],
    ) -> None:
        self._delivery = delivery
        self._log_end = log_end
        self._passed = passed

    async def caught_up(
        self, partition: Partition, topic: str, done: Callable[[], bool] = lambda: False
    ) -> bool:
        """Wait for a topic, or until there is no need; false when the partition was lost meanwhile."""
        lease = partition.lease
        if lease is None:
            return False
        end = await self._delivery.retry.until_done(
            "kafka", lambda: self._log_end(topic, partition.number), partition.interrupted
        )
        while partition.lease is lease and not partition.interrupted.is_set():
            if (partition.next_offset(topic) or 0) >= end or done():
                return True
            # The log may end with what is no record: a transaction's marker, a compacted one.
            moved = await partition.moved(lease, _LOOK_AGAIN_S)
            # During a rebalance the consumer does not say where it is: the next look will.
            with suppress(DependencyError):
                if not moved and await self._passed(topic, partition.number, end):
                    return True
        return False
