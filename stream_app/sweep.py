"""The sweep: customers who went quiet send no events, so the day's change rescores them.

The clock is event time: a partition's sweep of day D runs when its transactions have reached D. A
replay therefore sweeps as the first run did.
"""

from typing import Any

import numpy as np

from features.definitions import DAY_MS
from features.ports import Commit
from features.record import RECORD
from models.churn_scores import score_churn
from models.model_set import Models
from schemas.topics import TRANSACTIONS
from stream_app.delivery import Delivery
from stream_app.partition import Partition
from stream_app.ports import Outgoing
from stream_app.processor import churn_outgoing

_BATCH = 500


class Sweep:
    """Rescores silent customers for churn.

    Args:
        delivery: The shared steps.
        silent_days: Silence after which a customer is rescored daily.
        forget_days: Silence after which they are not any more.
    """

    def __init__(self, delivery: Delivery, *, silent_days: int, forget_days: int) -> None:
        self._delivery = delivery
        self._silent_days = silent_days
        self._forget_days = forget_days

    def due(self, partition: Partition) -> int | None:
        """The day to sweep, or `None`."""
        lease = partition.lease
        if lease is None or lease.watermark_ms == 0:
            return None
        day = lease.watermark_ms // DAY_MS
        return day if day > lease.swept_day else None

    async def run(self, partition: Partition, day: int, models: Models) -> int:
        """Rescore the partition's silent customers as of the start of a day; returns how many."""
        as_of = day * DAY_MS
        lease = partition.require_lease()
        silent: list[str] = []
        if lease.swept_day >= 0:
            after, before = as_of - self._forget_days * DAY_MS, as_of - self._silent_days * DAY_MS
            silent = await self._delivery.retry.until_done(
                "redis",
                lambda: self._delivery.store.silent_since(partition.number, after, before),
                partition.interrupted,
            )
        for start in range(0, len(silent), _BATCH):
            await self._rescore(partition, silent[start : start + _BATCH], as_of, models)
        await self._delivery.commit(partition, _commit(partition, swept_day=day))
        lease.swept_day = day
        return len(silent)

    async def _rescore(
        self, partition: Partition, customer_ids: list[str], as_of: int, models: Models
    ) -> None:
        delivery = self._delivery
        await delivery.load(partition, customer_ids)
        slots = partition.arena.slots(customer_ids)
        # Others are done already, by an event or by a sweep that a crash cut off.
        due = np.flatnonzero(partition.arena.churn_days(slots) < as_of // DAY_MS).tolist()
        wanted = [(customer_ids[i], int(slots[i]), as_of) for i in due]
        results = score_churn(partition.arena, wanted, models)
        churn: dict[str, bytes] = {}
        outgoing: list[Outgoing] = []
        numbers = [partition.number] * len(results)
        for result, score, published in churn_outgoing(results, numbers, models, delivery.clock(), "sweep"):
            churn[result.customer_id] = score
            outgoing += published
        # It was published before the score of the transaction that is next now.
        if not partition.is_published(partition.require_lease().next_offsets[TRANSACTIONS.name]):
            await delivery.publish(partition, outgoing)
        nothing = np.empty(0, dtype=RECORD)
        changes = partition.changes([r.customer_id for r in results], nothing, [0] * len(results))
        await delivery.commit(partition, _commit(partition, histories=changes, churn=churn))
        delivery.observer.outcome("swept", len(results))
        delivery.observer.churn(results, "sweep")


def _commit(partition: Partition, **changes: Any) -> Commit:
    """A commit that moves no offset but holds only where the transactions are where we are."""
    here = partition.require_lease().next_offsets[TRANSACTIONS.name]
    return Commit(TRANSACTIONS.name, here, here, **changes)
