"""Labels join the histories of their customers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from features.definitions import RETENTION_MS
from features.entity_counts import SaidOf, said_by
from features.labels import PUT, UNKNOWN_TRANSACTION, put_labels
from features.ports import Commit
from features.record import RECORD, TRANSACTION_KIND, Records, label_record
from models.model_set import Models
from models.pipeline import DECISIONS, decide
from models.roles import split
from models.tree import Vector
from schemas.errors import EventError
from schemas.label import Label, read_label
from schemas.topics import LABELS, TRANSACTIONS
from stream_app.delivery import Delivery
from stream_app.entity_stage import Counted, EntityStage
from stream_app.order import Order
from stream_app.partition import Partition
from stream_app.ports import Outgoing
from stream_app.transport import Chunk

AHEAD: Final = "labels.ahead"
"""Source of commits that put labels in and move no offset of their log: they are counted."""


class LabelProcessor:
    """Puts labels into histories.

    A label follows its transaction on another topic, so it can be read first. It waits until every
    transaction that was published before it was read has been processed; where that is a backlog,
    `backlog.DueLabels` puts it in on the way.

    Args:
        delivery: The shared steps.
        order: Waits for other topics.
        models: The models in use.
        entities: Are told of frauds.
    """

    def __init__(
        self,
        delivery: Delivery,
        order: Order,
        models: Callable[[], Models],
        entities: EntityStage | None = None,
    ) -> None:
        self._delivery = delivery
        self._order = order
        self._models = models
        self._entities = entities

    async def ready(self, partition: Partition, chunk: Chunk) -> bool:
        """Wait for the transactions, or until a chunk is done; false when the partition was lost."""

        def is_done() -> bool:
            return (partition.next_offset(LABELS.name) or 0) >= chunk.next_offset

        return await self._order.caught_up(partition, TRANSACTIONS.name, is_done)

    async def process(self, partition: Partition, chunk: Chunk) -> None:
        """Append a chunk's labels to their customers' histories."""
        delivery, ahead = self._delivery, partition.ahead
        labels: list[tuple[Any, Label]] = []
        outgoing: list[Outgoing] = []
        for record in chunk.records:
            if ahead is not None and record.offset in ahead.done:
                continue
            try:
                label = read_label(record.value, record.timestamp)
            except EventError as refused:
                outgoing.append(delivery.refuse(record, refused))
                continue
            elsewhere = delivery.misplaced(partition, label.customer_id)
            if elsewhere is None:
                labels.append((record, label))
            else:
                outgoing.append(delivery.pass_on(record, label.customer_id, elsewhere))
        put = await self._put_all(partition, labels)
        for record, label, unknown in put.unknown:
            # What it is about was erased: a dead letter would bring it back.
            if partition.require_lease().is_erased(label.customer_id, 0):
                delivery.observer.outcome("erased")
            else:
                outgoing.append(delivery.refuse(record, unknown))
        await delivery.publish(partition, outgoing)
        await self._commit(partition, put, LABELS.name, chunk.next_offset)

    async def put_known(
        self, partition: Partition, records: Sequence[Any], next_offset: Callable[[set[int]], int]
    ) -> None:
        """Append those of a few labels of whom the transaction is there, ahead of their turn.

        Args:
            partition: Its lock is held.
            records: Of labels that can be read, in the order of their log.
            next_offset: Told the offsets of those that are in, says before which all labels are done.
        """
        labels = [(record, read_label(record.value, record.timestamp)) for record in records]
        # Not of others: who is loaded counts as one of this partition.
        mine = [each for each in labels if self._delivery.misplaced(partition, each[1].customer_id) is None]
        put = await self._put_all(partition, mine)
        unknown = {record.offset for record, _, _ in put.unknown}
        upto = next_offset({record.offset for record, _ in mine} - unknown)
        if upto > (partition.next_offset(LABELS.name) or 0):
            await self._commit(partition, put, LABELS.name, upto)
            self._delivery.observer.progress(LABELS.name, partition.number, upto)
        elif put.appended:
            # An offset of its own, so that a commit that is tried again is known for the same.
            count = partition.require_lease().next_offsets.get(AHEAD, 0)
            await self._commit(partition, put, AHEAD, count + 1)

    async def _put_all(self, partition: Partition, labels: Sequence[tuple[Any, Label]]) -> "_Put":
        """Put labels into cached histories and count their frauds."""
        await self._delivery.load(partition, [label.customer_id for _, label in labels])
        put, arena = _Put(), partition.arena
        said: list[SaidOf] = []
        for record, label in labels:
            try:
                if self._put(partition, label):
                    appended = label_record(label)
                    put.appended.setdefault(label.customer_id, []).append(appended)
                    put.added.append((label, self._vector(partition, label)))
                    if self._entities is not None:
                        # Now: of two labels about a transaction each adds what the one before did not.
                        said += said_by(arena.kept(arena.slot(label.customer_id)), appended)
            except EventError as refused:
                put.unknown.append((record, label, refused))
        if self._entities is not None:
            put.counted = await self._entities.confirm(partition, said)
        return put

    async def _commit(self, partition: Partition, put: "_Put", source: str, next_offset: int) -> None:
        """Make labels part of the state."""
        delivery, counted = self._delivery, put.counted
        records = [np.concatenate(those) for those in put.appended.values()]
        changes = partition.changes(
            list(put.appended), np.concatenate([np.empty(0, RECORD), *records]), [len(r) for r in records]
        )
        await delivery.commit(
            partition,
            Commit(
                source,
                partition.require_lease().next_offsets.get(source),
                next_offset,
                changes,
                entities=counted.changes if counted is not None else (),
            ),
        )
        if self._entities is not None and counted is not None:
            self._entities.committed(partition, counted)
        partition.advance(source, next_offset)
        delivery.observer.outcome("labelled", sum(map(len, put.appended.values())))
        for name, decision, proba in self._decided(put.added):
            delivery.observer.label(name, decision, proba)

    def _vector(self, partition: Partition, label: Label) -> Vector | None:
        """The features of a labelled transaction, as of its own time; `None` where the label names none."""
        if label.transaction_id is None:
            return None
        history = partition.arena.records(partition.arena.slot(label.customer_id))
        named = history["transaction"] == label_record(label)["transaction"]
        event = history[named & (history["kind"] == TRANSACTION_KIND)][:1]
        if len(event) == 0:
            # Corrected to a time that is not kept.
            return None
        return self._models().engine.compute(history, event, int(event["time_ms"][0]))

    def _decided(
        self, labels: Sequence[tuple[Label, Vector | None]]
    ) -> Iterator[tuple[str, str, float | None]]:
        """Each label with what the model in use says of its transaction; `none` where there is none.

        Computed again and not looked up: scores are not kept as long as a label takes.
        """
        models = self._models()
        known = [(label.customer_id, vector) for label, vector in labels if vector is not None]
        X = np.array([vector for _, vector in known]).reshape(len(known), len(models.engine.names))
        proba, decisions = np.empty(len(known)), np.empty(len(known), dtype=np.int8)
        challenger = models.challengers.get("fraud")
        for model, rows in split(models.fraud, challenger, [c for c, _ in known], np.arange(len(known))):
            proba[rows] = model.predict_proba(X[rows])
            decisions[rows] = decide(model, proba[rows])
        said = zip(decisions.tolist(), proba.tolist(), strict=True)
        for label, vector in labels:
            if vector is None:
                yield label.label, "none", None
            else:
                decision, value = next(said)
                yield label.label, DECISIONS[decision], value

    def _put(self, partition: Partition, label: Label) -> bool:
        """Put a label into the cached history; false where it is already there."""
        arena = partition.arena
        slot = arena.slot(label.customer_id)
        about_account = label.transaction_id is None
        if about_account and arena.totals(slot).count == 0:
            raise EventError(
                "unknown_customer",
                "customer_id: no transaction of this customer was ever accepted; check the id",
            )
        outcome = put_labels(arena, np.array([slot]), label_record(label), np.array([about_account]))[0]
        if outcome == UNKNOWN_TRANSACTION:
            raise EventError(
                "unknown_transaction",
                "transaction_id: no such transaction of this customer in the history kept "
                f"({RETENTION_MS // 86_400_000} days); check both ids",
            )
        return bool(outcome == PUT)


@dataclass(slots=True)
class _Put:
    """What became of labels.

    Attributes:
        appended: Records by customer.
        added: The same labels, with the vectors of their transactions.
        unknown: Those that are about nothing that is there, and why.
        counted: What they add to entities.
    """

    appended: dict[str, list[Records]] = field(default_factory=dict)
    added: list[tuple[Label, Vector | None]] = field(default_factory=list)
    unknown: list[tuple[Any, Label, EventError]] = field(default_factory=list)
    counted: Counted | None = None
