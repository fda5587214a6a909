"""Profiles are kept beside the histories of their customers."""

from collections.abc import Awaitable, Callable, Mapping

from features.ports import Commit
from schemas.customer import CONTACT_FIELDS, Customer, Profile, SealedContact
from schemas.errors import EventError
from schemas.fields import to_epoch_ms
from schemas.parse import parse_message
from schemas.topics import CUSTOMERS
from stream_app.delivery import Delivery
from stream_app.partition import Partition
from stream_app.ports import Outgoing
from stream_app.transport import Chunk

Seal = Callable[[str, Mapping[str, str]], Awaitable[SealedContact]]
"""Encrypts a customer's contact data; raises `DependencyError`."""


class ProfileProcessor:
    """Keeps the latest profile of each customer; contact data sealed, or not at all.

    Args:
        delivery: The shared steps.
        seal: Encrypts contact data; `None`: it is not kept.
    """

    def __init__(self, delivery: Delivery, seal: Seal | None = None) -> None:
        self._delivery = delivery
        self._seal = seal

    async def process(self, partition: Partition, chunk: Chunk) -> None:
        """Store a chunk's profiles."""
        delivery = self._delivery
        profiles: dict[str, bytes | None] = {}
        outgoing: list[Outgoing] = []
        for record in chunk.records:
            if record.value is None and record.key:
                # The topic is compacted: a null value is how a profile is taken back.
                customer_id, profile = record.key.decode("utf-8", errors="replace"), None
            else:
                try:
                    customer = parse_message(Customer, record.value)
                except EventError as refused:
                    outgoing.append(delivery.refuse(record, refused))
                    continue
                customer_id = customer.customer_id
                updated_ms = to_epoch_ms(customer.updated_at) if customer.updated_at else record.timestamp
                if partition.require_lease().is_erased(customer_id, updated_ms):
                    delivery.observer.outcome("erased")
                    continue
                profile = await self._profile(partition, customer)
            elsewhere = delivery.misplaced(partition, customer_id)
            if elsewhere is None:
                profiles[customer_id] = profile
            else:
                outgoing.append(delivery.pass_on(record, customer_id, elsewhere))
        await delivery.publish(partition, outgoing)
        await delivery.commit(
            partition,
            Commit(
                CUSTOMERS.name,
                partition.require_lease().next_offsets.get(CUSTOMERS.name),
                chunk.next_offset,
                profiles=profiles,
            ),
        )
        partition.advance(CUSTOMERS.name, chunk.next_offset)
        delivery.observer.outcome("profiled", len(profiles))

    async def _profile(self, partition: Partition, customer: Customer) -> bytes:
        kept = Profile.model_validate(customer.model_dump(include=set(Profile.model_fields) - {"contact"}))
        contact = customer.model_dump(include=set(CONTACT_FIELDS), exclude_none=True)
        seal = self._seal
        if seal is not None and contact:
            # The master key may be in another service: wait for it as for Redis and Kafka.
            sealed = await self._delivery.retry.until_done(
                "keys", lambda: seal(customer.customer_id, contact), partition.interrupted
            )
            kept = kept.model_copy(update={"contact": sealed})
        return kept.model_dump_json(exclude_none=True).encode()
