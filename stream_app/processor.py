"""One part of a chunk: parsed, scored, published, and only then made part of the state.

The order is the guarantee. A crash before the commit repeats the same scores from the same
histories; after it, the stored offset skips the part. Nothing here decides by a clock.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import numpy as np

from features.corrections import Correction, corrections_of
from features.definitions import DAY_MS
from features.entity_counts import customer_hashes
from features.kernels import DUPLICATE
from features.ports import Lease, LeaseLost, StoreRolledBack
from features.record import Records, to_records
from models import encoding, messages
from models.churn_scores import ChurnResult
from models.model_set import Models
from models.pipeline import Events, Prepared, ScoredChunk, prepare, score_chunk
from schemas.errors import EventError
from schemas.parse import check_not_future, dump, parse_message
from schemas.topics import ALERTS, CHURN_SCORES, FRAUD_SCORES, SHADOW_SCORES, TRANSACTIONS
from schemas.transaction import Transaction
from schemas.wire import WireTransaction, read_transaction
from stream_app.delivery import Delivery, Failures
from stream_app.entity_stage import Counted, EntityStage
from stream_app.members import Member, Part, commits_of, members_of, without
from stream_app.partition import Partition
from stream_app.ports import Outgoing
from stream_app.trace import first_traced, trace_context


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
                part.published_ms = record.timestamp
                if event_time_ms >= next_day_ms or partition.is_boundary(record.offset):
                    break
            return part

    async def process(self, parts: Sequence[tuple[Partition, Part]], failures: Failures) -> None:
        """Score parts and move their customers' histories past them.

        Args:
            parts: Of different partitions, whose locks are held and whose arenas share their memory; with
                features of entities, less than an hour apart.
            failures: Takes in partitions of which nothing was made part of the state, and why: `LeaseLost` or
                `StoreRolledBack`; at once, so that it is known where a later step is interrupted.
        """
        # Mostly one set. Taken once: what is put into use from here on scores the next parts.
        passes: list[tuple[Models, list[tuple[Partition, Part]]]] = []
        for partition, part in parts:
            try:
                models = await self._models(partition)
                await self._delivery.load(partition, [t.customer_id for t in part.transactions])
            except (LeaseLost, StoreRolledBack) as error:
                failures[partition.number] = error
                continue
            if not passes or passes[-1][0] is not models:
                passes.append((models, []))
            passes[-1][1].append((partition, part))
        for models, together in passes:
            await self._pass(together, models, failures)

    async def _pass(
        self, parts: Sequence[tuple[Partition, Part]], models: Models, failures: Failures
    ) -> None:
        """Score parts with one set of models."""
        delivery, observer = self._delivery, self._delivery.observer
        members, whole = members_of(parts)
        arena = members[0].partition.arena
        records = to_records(whole.transactions, whole.amounts_minor)
        events = Events(whole.transactions, records)
        slots = np.concatenate([m.partition.arena.slots(m.customer_ids) for m in members])
        with observer.step("score"):
            prepared = prepare(arena, events, models, slots)
        counted: list[Counted] = []
        if self._entities is not None:
            corrections = corrections_of(prepared.features, arena, prepared.slots)
            counted = await self._count(self._entities, members, records, prepared, corrections)
        with observer.step("score"):
            scored = score_chunk(arena, events, models, prepared=prepared)
        with observer.step("encode"):
            self._encode(members, whole, events, scored, models)
        delivery.crash("before-publish")
        failures |= await delivery.publish_all([(m.partition, m.outgoing) for m in members])
        delivery.crash("after-publish")
        with observer.step("pack"):
            commits = [
                (member.partition, commit)
                for member, commit in zip(
                    members, commits_of(members, records, scored, [c.changes for c in counted]), strict=True
                )
                if member.partition.number not in failures
            ]
        failures |= await delivery.commit_all(commits)
        if self._entities is not None:
            for member, of_member in zip(members, counted, strict=True):
                if member.partition.number not in failures:
                    self._entities.committed(member.partition, of_member)
        for partition, commit in commits:
            if partition.number not in failures:
                partition.advance(TRANSACTIONS.name, commit.next_offset, commit.watermark_ms)
        if failed := [member for member in members if member.partition.number in failures]:
            scored = without(scored, failed)
        published_ms = [record.timestamp for record in whole.records]
        observer.scored(events, scored, published_ms, first_traced(whole.records))
        observer.churn(scored.churn, "event")

    @staticmethod
    async def _count(
        entities: EntityStage,
        members: Sequence[Member],
        records: Records,
        prepared: Prepared,
        corrections: Sequence[Correction],
    ) -> list[Counted]:
        """Fill in the features of entities; what each member adds to these."""
        mine = [records[member.rows.start : member.rows.stop] for member in members]
        accepted, counted = prepared.accepted, []
        for member, rows in zip(members, mine, strict=True):
            bounds = np.searchsorted(accepted, (member.rows.start, member.rows.stop))
            first = member.rows.start
            those = accepted[slice(*bounds)] - first
            corrected = [c._replace(row=c.row - first) for c in corrections if c.row in member.rows]
            customers = customer_hashes(member.customer_ids)
            counted.append(await entities.count(member.partition, rows, customers, those, corrected))
        prepared.fill_in(np.concatenate([of_member.vectors for of_member in counted]))
        return counted

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

    def _encode(
        self, members: Sequence[Member], whole: Part, events: Events, scored: ScoredChunk, models: Models
    ) -> None:
        """Write messages to publish, and of them the newest of each customer, for lookups."""
        scored_at, records = self._delivery.clock(), whole.records
        written = encoding.fraud_scores(
            events,
            scored,
            models,
            scored_at=scored_at,
            topic=TRANSACTIONS.name,
            partitions=[record.partition for record in records],
            offsets=[record.offset for record in records],
            with_features=self._score_features,
        )
        statuses, decisions = scored.features.status.tolist(), scored.decisions.tolist()
        for member in members:
            self._write(member, events, scored, models, scored_at, written, statuses, decisions)
        member_of = {c: m for m in members for c in m.customer_ids} if len(members) > 1 else {}
        owners = [member_of.get(result.customer_id, members[0]) for result in scored.churn]
        numbers = [member.partition.number for member in owners]
        churned = churn_outgoing(scored.churn, numbers, models, scored_at, "event")
        for member, (result, score, outgoing) in zip(owners, churned, strict=True):
            member.churn[result.customer_id] = score
            if not member.partition.is_published(member.part.next_offset - 1):
                member.outgoing += outgoing

    def _write(
        self,
        member: Member,
        events: Events,
        scored: ScoredChunk,
        models: Models,
        scored_at: str,
        written: Sequence[bytes],
        statuses: Sequence[int],
        decisions: Sequence[int],
    ) -> None:
        """Write what follows from a member's rows."""
        number, outgoing, scores, trace = (
            member.partition.number,
            member.outgoing,
            member.scores,
            self._delivery.trace,
        )
        published = member.partition.is_published(member.part.next_offset - 1)
        for row, customer_id, record in zip(
            member.rows, member.customer_ids, member.part.records, strict=True
        ):
            if statuses[row] == DUPLICATE:
                letter = self._delivery.refuse(record, _duplicate())
                if not published:
                    outgoing.append(letter)
                continue
            score = written[row]
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
            if decisions[row]:
                alert = dump(messages.fraud_alert(events, scored, row, models))
                outgoing.append(Outgoing(ALERTS.name, number, key, alert, headers))
            elif (
                row in scored.unusual
                and (unusual := messages.anomaly_alert(events, scored, row, models)) is not None
            ):
                outgoing.append(Outgoing(ALERTS.name, number, key, dump(unusual), headers))


def _duplicate() -> EventError:
    return EventError(
        "duplicate_transaction",
        "transaction_id: already accepted for this customer; nothing was counted twice",
    )


def churn_outgoing(
    results: Sequence[ChurnResult], partitions: Sequence[int], models: Models, scored_at: str, trigger: str
) -> Iterator[tuple[ChurnResult, bytes, list[Outgoing]]]:
    """Each result with its churn score and what is published of it, to its partition."""
    written = encoding.churn_scores(results, models, scored_at=scored_at, trigger=trigger)
    for result, partition, score in zip(results, partitions, written, strict=True):
        key = result.customer_id.encode()
        outgoing = [Outgoing(CHURN_SCORES.name, partition, key, score)]
        if result.shadows:
            outgoing += [
                Outgoing(SHADOW_SCORES.name, partition, key, dump(shadow))
                for shadow in messages.churn_shadows(result, scored_at=scored_at)
            ]
        alert = messages.churn_alert(result, models)
        if alert is not None:
            outgoing.append(Outgoing(ALERTS.name, partition, key, dump(alert)))
        yield result, score, outgoing
