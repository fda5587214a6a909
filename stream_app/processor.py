"""One part of a chunk: parsed, scored, published, and only then made part of the state.

The order is the guarantee. A crash before the commit repeats the same scores from the same
histories; after it, the stored offset skips the part. Nothing here decides by a clock.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.definitions import DAY_MS
from features.kernels import DUPLICATE
from features.ports import (
    Commit,
    EntityChange,
    HistoryChange,
    HistoryStore,
    Lease,
    LeaseLost,
    Outcome,
    StoreRolledBack,
)
from features.record import Records, to_records
from features.tiles import customer_hashes
from models import encoding, messages
from models.pipeline import ChurnResult, Events, Models, ScoredChunk, prepare, score_chunk
from schemas.errors import EventError
from schemas.parse import check_not_future, dump, parse_message
from schemas.topics import ALERTS, CHURN_SCORES, FRAUD_SCORES, SHADOW_SCORES, TRANSACTIONS
from schemas.transaction import Transaction
from schemas.wire import WireTransaction, read_transaction
from stream_app.dead_letter import dead_letter
from stream_app.entity_stage import EntityStage
from stream_app.partition import Partition, group_rows
from stream_app.ports import Headers, Observer, Outgoing, Publisher
from stream_app.retry import Retry
from stream_app.trace import first_traced, trace_context


@dataclass(frozen=True, slots=True)
class Placement:
    """Where customers belong."""

    partitions: int
    partition_for: Callable[[str, int], int]


@dataclass(slots=True)
class Delivery:
    """The steps that transactions, labels, profiles and the sweep share.

    Attributes:
        clock: RFC 3339 text of now; stamps `scored_at` and decides nothing.
        crash: Called with the name of each point at which a crash is worth testing.
        trace: Makes the trace context of a score from that of its transaction.
    """

    store: HistoryStore
    publisher: Publisher
    observer: Observer
    retry: Retry
    placement: Placement
    clock: Callable[[], str]
    crash: Callable[[str], None] = field(default=lambda point: None)
    trace: Callable[[Headers], Headers] = field(default=lambda headers: headers)

    async def publish(self, partition: Partition, outgoing: Sequence[Outgoing]) -> None:
        """Publish, trying until the broker has it all."""
        if outgoing:
            with self.observer.step("publish"):
                await self.retry.until_done(
                    "kafka", lambda: self.publisher.publish(outgoing, partition.number), partition.interrupted
                )

    async def commit(self, partition: Partition, commit: Commit) -> None:
        """Make a chunk part of the state.

        Raises:
            LeaseLost: Somebody else has the partition.
            StoreRolledBack: The store is not where this chunk starts.
        """
        lease = partition.require_lease()
        kind = "models" if commit.models else "commit"
        self.crash(f"before-{kind}")
        with self.observer.step("commit"):
            outcome = await self.retry.until_done(
                "redis", lambda: self.store.apply(lease, commit), partition.interrupted
            )
        self.crash(f"after-{kind}")
        if outcome is not Outcome.APPLIED:
            self.observer.lease(outcome.value)
        if outcome is Outcome.FENCED:
            raise LeaseLost(f"partition {partition.number}")
        if outcome is Outcome.ROLLED_BACK:
            raise StoreRolledBack(f"partition {partition.number}")
        partition.committed(commit.histories)

    async def load(self, partition: Partition, customer_ids: Sequence[str]) -> None:
        """Bring histories into the partition's cache, trying until the store answers.

        Raises:
            LeaseLost: Somebody else has the partition.
            StoreRolledBack: The store is not where this partition is.
        """
        try:
            with self.observer.step("load"):
                missing = await self.retry.until_done(
                    "redis", lambda: partition.load(customer_ids), partition.interrupted
                )
        except LeaseLost:
            self.observer.lease(Outcome.FENCED.value)
            raise
        except StoreRolledBack:
            self.observer.lease(Outcome.ROLLED_BACK.value)
            raise
        self.observer.cache(len(customer_ids), missing)

    def misplaced(self, partition: Partition, customer_id: str) -> int | None:
        """The partition a customer belongs in, where it is not this one.

        A record may come here by another partitioner or without a key. Its customer's history is
        elsewhere, so it is passed on and scored there.
        """
        if partition.is_known(customer_id):
            return None
        right = self.placement.partition_for(customer_id, self.placement.partitions)
        return None if right == partition.number else right

    def pass_on(self, record: Any, customer_id: str, partition: int) -> Outgoing:
        """The same record for the partition it belongs in."""
        self.observer.outcome("forwarded")
        return Outgoing(
            record.topic, partition, customer_id.encode(), record.value, trace_context(record.headers)
        )

    def refuse(self, record: Any, refused: EventError) -> Outgoing:
        """A dead letter, counted."""
        self.observer.dead_letter(refused.reason)
        return dead_letter(record, refused)


@dataclass(slots=True)
class Part:
    """Records of a chunk, sorted out, up to the first event of a new day.

    Attributes:
        next_offset: Offset behind the last record.
        records: `records[i]` is what `transactions[i]` came from.
        outgoing: Dead letters and messages for other partitions.
        erased_ms: Newest event of erased customers. Nothing of them is taken, but time goes on with them:
            what happens to others must not depend on who was erased.
    """

    next_offset: int
    transactions: list[Transaction | WireTransaction] = field(default_factory=list)
    amounts_minor: list[int] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    erased_ms: int = 0


class TransactionProcessor:
    """Scores chunks of transactions."""

    def __init__(
        self,
        delivery: Delivery,
        models: Callable[[Partition], Awaitable[Models]],
        *,
        score_features: bool = False,
        entities: EntityStage | None = None,
    ) -> None:
        self._delivery = delivery
        self._models = models
        self._score_features = score_features
        self._entities = entities

    def parse(self, partition: Partition, records: Iterator[Any]) -> Part | None:
        """Take the next part off a chunk's records; `None` where there are no more.

        A part ends behind an event that reaches a new day, where the sweep is due: what the sweep finds
        depends on the log then, and not on how the log was cut into chunks. And it ends behind the last
        transaction whose score was published before, so that it is published whole or not at all; and where
        the models that were in use at the last commit end.
        """
        with self._delivery.observer.step("parse"):
            part: Part | None = None
            lease = partition.require_lease()
            next_day_ms = (lease.watermark_ms // DAY_MS + 1) * DAY_MS
            for record in records:
                part = part or Part(0)
                part.next_offset = record.offset + 1
                event_time_ms = self._sort(partition, lease, record, part)
                if event_time_ms >= next_day_ms or partition.is_boundary(record.offset):
                    break
            return part

    async def process(self, partition: Partition, part: Part) -> None:
        """Score one part and move its customers' histories past it.

        Raises:
            LeaseLost: Nothing of it was made part of the state.
            StoreRolledBack: The same.
        """
        delivery, observer = self._delivery, self._delivery.observer
        # Once: what is put into use from here on scores the next part.
        models = await self._models(partition)
        records = to_records(part.transactions, part.amounts_minor)
        customer_ids = [t.customer_id for t in part.transactions]
        await delivery.load(partition, customer_ids)
        events = Events(part.transactions, records)
        with observer.step("score"):
            prepared = prepare(partition.arena, events, models)
        entity_changes: Sequence[EntityChange] = ()
        if self._entities is not None:
            customers = customer_hashes(customer_ids)
            counted = await self._entities.count(partition, records, customers, prepared.accepted)
            prepared.fill_in(counted.vectors)
            entity_changes = counted.changes
        with observer.step("score"):
            scored = score_chunk(partition.arena, events, models, prepared=prepared)
        with observer.step("encode"):
            outgoing, scores, churn = self._outgoing(partition, events, scored, part, models)
        delivery.crash("before-publish")
        await delivery.publish(partition, [*part.outgoing, *outgoing])
        delivery.crash("after-publish")
        with observer.step("pack"):
            accepted = scored.accepted.tolist()
            changes = _changes(partition, customer_ids, records, accepted, scored.churn)
        watermark = max(part.erased_ms, int(records["time_ms"][scored.accepted].max(initial=0)))
        await delivery.commit(
            partition,
            Commit(
                TRANSACTIONS.name,
                partition.require_lease().next_offsets.get(TRANSACTIONS.name),
                part.next_offset,
                changes,
                scores,
                churn,
                watermark_ms=watermark,
                entities=entity_changes,
            ),
        )
        if self._entities is not None:
            self._entities.committed(partition, counted)
        partition.advance(TRANSACTIONS.name, part.next_offset, watermark)
        published_ms = [record.timestamp for record in part.records]
        observer.scored(events, scored, published_ms, first_traced(part.records))
        observer.churn(scored.churn, "event")

    def _sort(self, partition: Partition, lease: Lease, record: Any, part: Part) -> int:
        """Put one record where it belongs; returns its event time where it is to be scored here, else 0."""
        try:
            transaction: Transaction | WireTransaction
            if (plain := read_transaction(record.value)) is not None:
                transaction, amount_minor = plain
            else:
                transaction = parse_message(Transaction, record.value)
                amount_minor = transaction.amount_minor
            event_time_ms = transaction.event_time_ms
            check_not_future(event_time_ms, record.timestamp)
        except EventError as refused:
            letter = self._delivery.refuse(record, refused)
            if not partition.is_published(record.offset):
                part.outgoing.append(letter)
            return 0
        elsewhere = self._delivery.misplaced(partition, transaction.customer_id)
        if elsewhere is not None:
            part.outgoing.append(self._delivery.pass_on(record, transaction.customer_id, elsewhere))
            return 0
        if lease.is_erased(transaction.customer_id, event_time_ms):
            part.erased_ms = max(part.erased_ms, event_time_ms)
            self._delivery.observer.outcome("erased")
            return event_time_ms
        part.transactions.append(transaction)
        part.amounts_minor.append(amount_minor)
        part.records.append(record)
        return event_time_ms

    def _outgoing(
        self, partition: Partition, events: Events, scored: ScoredChunk, part: Part, models: Models
    ) -> tuple[list[Outgoing], dict[str, list[bytes]], dict[str, bytes]]:
        """Messages to publish, and the newest of them by customer for lookups."""
        number, scored_at = partition.number, self._delivery.clock()
        outgoing: list[Outgoing] = []
        scores: dict[str, list[bytes]] = {}
        written = encoding.fraud_scores(
            events,
            scored,
            models,
            scored_at=scored_at,
            topic=TRANSACTIONS.name,
            partition=number,
            offsets=[record.offset for record in part.records],
            with_features=self._score_features,
        )
        trace = self._delivery.trace
        statuses, decisions = scored.features.status.tolist(), scored.decisions.tolist()
        rows = zip(events.transactions, part.records, written, statuses, decisions, strict=True)
        published = partition.is_published(part.next_offset - 1)
        for row, (transaction, record, score, status, decision) in enumerate(rows):
            if status == DUPLICATE:
                letter = self._delivery.refuse(record, _duplicate())
                if not published:
                    outgoing.append(letter)
                continue
            customer_id = transaction.customer_id
            if customer_id in scores:
                scores[customer_id].append(score)
            else:
                scores[customer_id] = [score]
            if published:
                continue
            key = customer_id.encode()
            headers = trace(trace_context(record.headers)) if record.headers else ()
            if scored.shadows:
                source = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
                outgoing += [
                    Outgoing(SHADOW_SCORES.name, number, key, dump(shadow))
                    for shadow in messages.fraud_shadows(
                        events, scored, row, scored_at=scored_at, source=source
                    )
                ]
            outgoing.append(Outgoing(FRAUD_SCORES.name, number, key, score, headers))
            if decision:
                alert = dump(messages.fraud_alert(events, scored, row, models))
                outgoing.append(Outgoing(ALERTS.name, number, key, alert, headers))
            elif (
                row in scored.unusual
                and (unusual := messages.anomaly_alert(events, scored, row, models)) is not None
            ):
                outgoing.append(Outgoing(ALERTS.name, number, key, dump(unusual), headers))
        churn, churn_messages = churn_outgoing(number, scored.churn, models, scored_at, "event")
        if not published:
            outgoing += churn_messages
        return outgoing, scores, churn


def _duplicate() -> EventError:
    return EventError(
        "duplicate_transaction",
        "transaction_id: already accepted for this customer; nothing was counted twice",
    )


def churn_outgoing(
    partition: int, results: Sequence[ChurnResult], models: Models, scored_at: str, trigger: str
) -> tuple[dict[str, bytes], list[Outgoing]]:
    """Churn scores by customer, and the messages for them and their alerts."""
    churn: dict[str, bytes] = {}
    outgoing: list[Outgoing] = []
    written = encoding.churn_scores(results, models, scored_at=scored_at, trigger=trigger)
    for result, score in zip(results, written, strict=True):
        key = result.customer_id.encode()
        churn[result.customer_id] = score
        outgoing.append(Outgoing(CHURN_SCORES.name, partition, key, score))
        if result.shadows:
            outgoing += [
                Outgoing(SHADOW_SCORES.name, partition, key, dump(shadow))
                for shadow in messages.churn_shadows(result, scored_at=scored_at)
            ]
        alert = messages.churn_alert(result, models)
        if alert is not None:
            outgoing.append(Outgoing(ALERTS.name, partition, key, dump(alert)))
    return churn, outgoing


def _changes(
    partition: Partition,
    customer_ids: Sequence[str],
    records: Records,
    accepted: Sequence[int],
    churn: Sequence[ChurnResult],
) -> list[HistoryChange]:
    changed = group_rows(customer_ids, accepted)
    for result in churn:
        changed.setdefault(result.customer_id, [])
    rows = [row for mine in changed.values() for row in mine]
    return partition.changes(list(changed), records[rows], list(map(len, changed.values())))
