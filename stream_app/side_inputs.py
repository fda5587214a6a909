"""Chunks of the two side inputs: labels join a customer's history, profiles are kept beside it."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from features.definitions import MAX_EVENTS, RETENTION_MS
from features.kernels import contains_transaction, retained_from
from features.ports import Commit
from features.record import LABEL_CODES, LABEL_KIND, Records, label_record
from features.tiles import find_fraud
from schemas.customer import Customer, Profile
from schemas.errors import EventError
from schemas.label import Label
from schemas.parse import parse_message
from schemas.topics import CUSTOMERS, LABELS, TRANSACTIONS
from stream_app.entity_stage import EntityStage
from stream_app.partition import Partition, newest_event_ms
from stream_app.ports import Outgoing
from stream_app.processor import Delivery
from stream_app.transport import Chunk

_LOOK_AGAIN_S = 1.0


class LabelProcessor:
    """Puts labels into histories.

    A label follows its transaction on another topic, so it can be read first. It waits until every
    transaction that was published before it was read has been processed.

    Args:
        delivery: The shared steps.
        log_end: Next offset of the transactions partition, as the broker knows it now.
        passed: Whether nothing is left to process before an offset of it.
        entities: Are told of frauds.
    """

    def __init__(
        self,
        delivery: Delivery,
        log_end: Callable[[int], Awaitable[int]],
        passed: Callable[[int, int], Awaitable[bool]],
        entities: EntityStage | None = None,
    ) -> None:
        self._delivery = delivery
        self._log_end = log_end
        self._passed = passed
        self._entities = entities

    async def ready(self, partition: Partition) -> bool:
        """Wait for the transactions; false when the partition was lost meanwhile."""
        lease = partition.lease
        if lease is None:
            return False
        end = await self._delivery.retry.until_done(
            "kafka", lambda: self._log_end(partition.number), partition.interrupted
        )
        while partition.lease is lease and not partition.interrupted.is_set():
            if (partition.next_offset(TRANSACTIONS.name) or 0) >= end:
                return True
            # The log may end with what is no record: a transaction's marker, a compacted one.
            moved = await partition.moved(lease, _LOOK_AGAIN_S)
            if not moved and await self._passed(partition.number, end):
                return True
        return False

    async def process(self, partition: Partition, chunk: Chunk) -> None:
        """Append a chunk's labels to their customers' histories."""
        delivery = self._delivery
        labels: list[tuple[Any, Label]] = []
        outgoing: list[Outgoing] = []
        for record in chunk.records:
            try:
                label = parse_message(Label, record.value)
            except EventError as refused:
                outgoing.append(delivery.refuse(record, refused))
                continue
            elsewhere = delivery.misplaced(partition, label.customer_id)
            if elsewhere is None:
                labels.append((record, label))
            else:
                outgoing.append(delivery.pass_on(record, label.customer_id, elsewhere))
        await delivery.load(partition, [label.customer_id for _, label in labels])
        appended: dict[str, list[Records]] = {}
        for record, label in labels:
            try:
                if self._put(partition, label):
                    appended.setdefault(label.customer_id, []).append(label_record(label))
            except EventError as refused:
                outgoing.append(delivery.refuse(record, refused))
        counted = None
        if self._entities is not None:
            histories = {c: partition.arena.records(partition.arena.slot(c)) for c in appended}
            found = [find_fraud(histories[c], r) for c, records in appended.items() for r in records]
            counted = await self._entities.confirm(partition, [fraud for fraud in found if fraud is not None])
        await delivery.publish(partition, outgoing)
        changes = [
            partition.change(customer_id, np.concatenate(records))
            for customer_id, records in appended.items()
        ]
        await delivery.commit(
            partition,
            Commit(
                LABELS.name,
                partition.require_lease().next_offsets.get(LABELS.name),
                chunk.next_offset,
                changes,
                entities=counted.changes if counted is not None else (),
            ),
        )
        if self._entities is not None and counted is not None:
            self._entities.committed(partition, counted)
        partition.advance(LABELS.name, chunk.next_offset)
        delivery.observer.outcome("labelled", sum(map(len, appended.values())))

    def _put(self, partition: Partition, label: Label) -> bool:
        """Put a label into the cached history; false where it is already there."""
        slot = partition.arena.slot(label.customer_id)
        history = partition.arena.records(slot)
        record = label_record(label)
        same = (history["kind"] == LABEL_KIND) & (history["transaction"] == record["transaction"])
        if (same & (history["label"] == LABEL_CODES[label.label])).any():
            return False
        if label.transaction_id is not None:
            newest = newest_event_ms(history)
            first = retained_from(history, 0, len(history), newest, RETENTION_MS, MAX_EVENTS)
            if not contains_transaction(history, first, len(history), record["transaction"][0]):
                raise EventError(
                    "unknown_transaction",
                    "transaction_id: no such transaction of this customer in the history kept "
                    f"({RETENTION_MS // 86_400_000} days); check both ids",
                )
        elif partition.arena.totals(slot).count == 0:
            raise EventError(
                "unknown_customer",
                "customer_id: no transaction of this customer was ever accepted; check the id",
            )
        partition.arena.insert(slot, record)
        return True


class ProfileProcessor:
    """Keeps the latest profile of each customer, without contact data."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

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
                kept = Profile.model_validate(customer.model_dump(include=set(Profile.model_fields)))
                profile = kept.model_dump_json(exclude_none=True).encode()
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
