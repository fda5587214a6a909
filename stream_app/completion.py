"""Says when a partition's histories hold all that the log held when they were begun.

Before that lookups would find less of a customer than there was, and a payment would look like a first one.
"""

import asyncio
from collections.abc import Callable

import structlog

from schemas.topics import TRANSACTIONS
from stream_app.delivery import Delivery
from stream_app.order import Order
from stream_app.partition import Partition
from stream_app.retry import Interrupted

_log = structlog.get_logger()


class Completion:
    """Watches partitions whose histories are being built.

    Args:
        delivery: The shared steps.
        order: Knows how far topics are.
        fail: Ends the worker.
    """

    def __init__(self, delivery: Delivery, order: Order, fail: Callable[[Exception], None]) -> None:
        self._delivery = delivery
        self._order = order
        self._fail = fail
        self._watching: set[asyncio.Future[None]] = set()

    def watch(self, partition: Partition) -> None:
        """Under the lease that it has now, until it is built or the lease is gone."""
        if partition.require_lease().building:
            watching = asyncio.ensure_future(self._watch(partition))
            self._watching.add(watching)
            watching.add_done_callback(self._watching.discard)

    def stop(self) -> None:
        """Watch none any more."""
        for watching in self._watching:
            watching.cancel()

    async def _watch(self, partition: Partition) -> None:
        lease = partition.require_lease()
        try:
            if await self._order.caught_up(partition, TRANSACTIONS.name):
                store, retry = self._delivery.store, self._delivery.retry
                await retry.until_done("redis", lambda: store.complete(lease), partition.interrupted)
                _log.info("histories are complete", partition=partition.number)
        except Interrupted:
            return
        except Exception as error:
            self._fail(error)
