"""Erasures end a customer's history and profile."""

from features.ports import Commit
from schemas.erasure import erased_name, read_erasure
from schemas.errors import EventError
from schemas.topics import ERASURES
from stream_app.delivery import Delivery
from stream_app.order import Order
from stream_app.partition import Partition
from stream_app.ports import Outgoing
from stream_app.transport import Chunk


class ErasureProcessor:
    """Erases customers.

    Everything else of a partition waits until the erasures that its log held when it was taken are done: so
    a replay knows who was erased before it meets what they did.
    """

    def __init__(self, delivery: Delivery, order: Order) -> None:
        self._delivery = delivery
        self._order = order

    async def ready(self, partition: Partition) -> bool:
        """Wait for the erasures of the log; false when the partition was lost meanwhile."""
        if not partition.erasures_read:
            lease = partition.lease
            if not await self._order.caught_up(partition, ERASURES.name) or partition.lease is not lease:
                return False
            partition.erasures_read = True
        return True

    async def process(self, partition: Partition, chunk: Chunk) -> None:
        """Erase a chunk's customers."""
        delivery = self._delivery
        erased: dict[str, int] = {}
        outgoing: list[Outgoing] = []
        for record in chunk.records:
            try:
                erasure = read_erasure(record.value, record.timestamp)
            except EventError as refused:
                outgoing.append(delivery.refuse(record, refused))
                continue
            customer_id = erasure.customer_id
            right = delivery.placement.partition_for(customer_id, delivery.placement.partitions)
            if right == partition.number:
                erased[customer_id] = max(erasure.requested_at_ms, erased.get(customer_id, 0))
            else:
                outgoing.append(delivery.pass_on(record, customer_id, right))
        await delivery.publish(partition, outgoing)
        lease = partition.require_lease()
        await delivery.commit(
            partition,
            Commit(ERASURES.name, lease.next_offsets.get(ERASURES.name), chunk.next_offset, erased=erased),
        )
        for customer_id, until_ms in erased.items():
            name = erased_name(customer_id)
            lease.erased[name] = max(until_ms, lease.erased.get(name, -1))
        if erased:
            partition.forget_histories()
        partition.advance(ERASURES.name, chunk.next_offset)
        delivery.observer.outcome("erased_customers", len(erased))
