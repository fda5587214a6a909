"""Steps that transactions, labels, profiles and the sweep share: load, publish, commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.ports import Commit, HistoryStore, LeaseLost, Outcome, StoreRolledBack
from schemas.errors import DependencyError, EventError
from stream_app.dead_letter import dead_letter
from stream_app.partition import Partition
from stream_app.ports import Headers, Observer, Outgoing, Publisher
from stream_app.retry import AnyOf, Retry
from stream_app.trace import trace_context

Failures = dict[int, LeaseLost | StoreRolledBack]
"""Partitions that are not where they were thought to be, and why."""


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
            partition.alone = False

    async def publish_all(self, outgoing: Sequence[tuple[Partition, Sequence[Outgoing]]]) -> Failures:
        """Publish what comes of several partitions; returns those of which nothing may be committed.

        Of several, each is tried once: who has to be waited for is waited for alone.
        """
        if len(outgoing) == 1:
            ((partition, messages),) = outgoing
            return await attributed(partition, self.publish(partition, messages))
        once = [(partition, self._publish_once(partition, messages)) for partition, messages in outgoing]
        with self.observer.step("publish"):
            return await _each(once)

    async def _publish_once(self, partition: Partition, outgoing: Sequence[Outgoing]) -> None:
        if not outgoing:
            return
        try:
            await self.publisher.publish(outgoing, partition.number)
        except DependencyError as error:
            partition.alone = True
            self.observer.retry("kafka")
            raise StoreRolledBack(f"partition {partition.number}: {error}") from error

    async def commit(self, partition: Partition, commit: Commit) -> None:
        """Make a chunk part of the state.

        Raises:
            LeaseLost: Somebody else has the partition.
            StoreRolledBack: The store is not where this chunk starts.
        """
        for failure in (await self.commit_all([(partition, commit)])).values():
            raise failure

    async def commit_all(self, commits: Sequence[tuple[Partition, Commit]]) -> Failures:
        """Make parts of several partitions part of the state; returns those of which nothing was."""
        if not commits:
            return {}
        leased = [(partition.require_lease(), commit) for partition, commit in commits]
        kind = "models" if commits[0][1].models else "commit"
        interrupted = [partition.interrupted for partition, _ in commits]
        self.crash(f"before-{kind}")
        with self.observer.step("commit"):
            outcomes = await self.retry.until_done(
                "redis", lambda: self.store.apply_all(leased), AnyOf(interrupted)
            )
        self.crash(f"after-{kind}")
        failures: Failures = {}
        for (partition, commit), outcome in zip(commits, outcomes, strict=True):
            if outcome is not Outcome.APPLIED:
                self.observer.lease(outcome.value)
            if outcome is Outcome.FENCED:
                failures[partition.number] = LeaseLost(f"partition {partition.number}")
            elif outcome is Outcome.ROLLED_BACK:
                failures[partition.number] = StoreRolledBack(f"partition {partition.number}")
            else:
                partition.committed(commit.histories)
        return failures

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
        """The same record for the partition it belongs in, published when it was published."""
        self.observer.outcome("forwarded")
        return Outgoing(
            record.topic,
            partition,
            customer_id.encode(),
            record.value,
            trace_context(record.headers),
            record.timestamp,
        )

    def refuse(self, record: Any, refused: EventError) -> Outgoing:
        """A dead letter, counted."""
        self.observer.dead_letter(refused.reason)
        return dead_letter(record, refused)


async def attributed(partition: Partition, step: Awaitable[object]) -> Failures:
    """Take a step; a lease that is gone is returned, as the partition's."""
    try:
        await step
    except (LeaseLost, StoreRolledBack) as error:
        return {partition.number: error}
    return {}


async def _each(steps: Sequence[tuple[Partition, Awaitable[None]]]) -> Failures:
    """Take a step for each partition, side by side, each to its end."""
    failures: Failures = {}
    for found in await asyncio.gather(*(attributed(*step) for step in steps), return_exceptions=True):
        if isinstance(found, BaseException):
            raise found
        failures |= found
    return failures
