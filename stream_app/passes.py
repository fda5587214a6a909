"""Passes: chunks of one or several partitions from what was fetched to what is committed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from features.ports import Lease, StoreRolledBack
from schemas.topics import ERASURES, LABELS, TRANSACTIONS
from stream_app.backlog import DueLabels
from stream_app.delivery import Delivery, Failures, attributed
from stream_app.erasures import ErasureProcessor
from stream_app.labels import LabelProcessor
from stream_app.model_watch import PartitionModels
from stream_app.partition import Partition
from stream_app.ports import Log, TopicPartition
from stream_app.processor import TransactionProcessor
from stream_app.profiles import ProfileProcessor
from stream_app.resumption import rest_of
from stream_app.retry import Interrupted
from stream_app.sweep import Sweep
from stream_app.transport import Chunk

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done with the records of each topic."""

    transactions: TransactionProcessor
    labels: LabelProcessor
    due_labels: DueLabels
    profiles: ProfileProcessor
    erasures: ErasureProcessor
    sweep: Sweep

    def side_input(self, topic: str) -> LabelProcessor | ErasureProcessor | ProfileProcessor:
        """What is done with records of a topic other than transactions."""
        if topic == LABELS.name:
            return self.labels
        return self.erasures if topic == ERASURES.name else self.profiles


class Passes:
    """Runs chunks under their partitions' locks and leases.

    Args:
        partition: The partition of a number.
        delivery: The shared steps.
        models: Which set of models scores what is next of a partition.
        log: Knows seeks and what the log has.
        steps: What is done with records.
        log_start: First offset that a topic's partition has.
    """

    def __init__(
        self,
        partition: Callable[[int], Partition],
        delivery: Delivery,
        models: PartitionModels,
        log: Log,
        steps: Steps,
        log_start: Callable[[TopicPartition], Awaitable[int]],
    ) -> None:
        self._partition = partition
        self._delivery = delivery
        self._models = models
        self._log = log
        self._steps = steps
        self._log_start = log_start

    async def run(self, chunks: Sequence[Chunk]) -> Failures:
        """Run chunks of a topic, one of each partition; returns those whose lease is gone or in doubt."""
        if len(chunks) == 1:
            lease = self._partition(chunks[0].partition).lease
            ready = await self._is_ready(chunks[0])
            return await self._run_ready(chunks if ready else (), lease)
        # Nobody waits for what one partition waits for.
        alone = [chunk for chunk in chunks if self._partition(chunk.partition).holds_up]
        if alone:
            rest = [chunk for chunk in chunks if chunk not in alone]
            failures: Failures = {}
            shares = [*([chunk] for chunk in alone), *([rest] if rest else [])]
            for found in await asyncio.gather(*map(self.run, shares), return_exceptions=True):
                if isinstance(found, dict):
                    failures |= found
                elif not isinstance(found, Interrupted):
                    raise found
            return failures
        return await self._run_ready(chunks)

    async def _run_ready(self, chunks: Sequence[Chunk], lease: Lease | None = None) -> Failures:
        """Run chunks; one alone only under the lease under which it was found ready, if one is given."""
        failures: Failures = {}
        async with AsyncExitStack() as locks:
            # In one order, as everybody who wants several.
            ready = sorted(chunks, key=lambda chunk: chunk.partition)
            partitions = [self._partition(chunk.partition) for chunk in ready]
            for partition in partitions:
                await locks.enter_async_context(partition.lock)
            try:
                rests = []
                for partition, chunk in zip(partitions, ready, strict=True):
                    if lease is not None and partition.lease is not lease:
                        # It is read again: a new lease seeks.
                        continue
                    try:
                        rest = await self._rest_of(partition, chunk)
                    except StoreRolledBack as back:
                        failures[partition.number] = back
                    else:
                        rests += [(partition, rest)] if rest is not None else []
                await self._take_steps(rests, failures)
            except Interrupted:
                # Of those that only were in the same pass, nobody here knows what is published.
                for partition in partitions if len(partitions) > 1 else ():
                    if partition.lease is not None and not partition.interrupted.is_set():
                        failures.setdefault(partition.number, StoreRolledBack("a pass was interrupted"))
                _forget(partitions)
            except BaseException:
                # What is cached may be ahead of the store. Here, not outside the lock: the next lease
                # may have begun there.
                _forget(partitions)
                raise
            _forget([partition for partition in partitions if partition.number in failures])
        return failures

    async def _is_ready(self, chunk: Chunk) -> bool:
        partition = self._partition(chunk.partition)
        if chunk.topic != ERASURES.name and not await self._steps.erasures.ready(partition):
            return False
        return chunk.topic != LABELS.name or await self._steps.labels.ready(partition, chunk)

    async def _take_steps(self, chunks: Sequence[tuple[Partition, Chunk]], failures: Failures) -> None:
        if chunks and chunks[0][1].topic == TRANSACTIONS.name:
            await self._run_transactions(chunks, failures)
        else:
            for partition, chunk in chunks:
                step = self._steps.side_input(chunk.topic).process(partition, chunk)
                failures |= await attributed(partition, step)
        for partition, chunk in chunks:
            if partition.number not in failures:
                upto, observer = chunk.next_offset, self._delivery.observer
                _log.debug("chunk committed", topic=chunk.topic, partition=partition.number, upto=upto)
                observer.chunk(chunk.topic, len(chunk.records))
                observer.progress(chunk.topic, partition.number, upto)

    async def _run_transactions(self, chunks: Sequence[tuple[Partition, Chunk]], failures: Failures) -> None:
        """Score chunks part by part, the parts of all partitions in one pass."""
        going = {partition: iter(chunk.records) for partition, chunk in chunks}

        def drop_failed() -> None:
            for partition in [partition for partition in going if partition.number in failures]:
                del going[partition]
                # At once: what it counted and did not store must not be in what others look at.
                partition.forget()

        async def sweep(partitions: Sequence[Partition]) -> None:
            for partition in partitions:
                failures.update(await attributed(partition, self._sweep_if_due(partition)))
            drop_failed()

        await sweep(list(going))
        while True:
            parts = [
                (partition, part)
                for partition, records in going.items()
                if (part := self._steps.transactions.parse(partition, records)) is not None
            ]
            if not parts:
                return
            await self._steps.transactions.process(parts, failures)
            drop_failed()
            for partition, part in parts:
                if partition in going:
                    due = self._steps.due_labels.put(partition, part.published_ms)
                    failures.update(await attributed(partition, due))
            drop_failed()
            await sweep([partition for partition, _ in parts if partition in going])

    async def _sweep_if_due(self, partition: Partition) -> None:
        day = self._steps.sweep.due(partition)
        if day is not None:
            await self._steps.sweep.run(partition, day, await self._models.take(partition))

    async def _rest_of(self, partition: Partition, chunk: Chunk) -> Chunk | None:
        tp = (chunk.topic, chunk.partition)
        return await rest_of(partition, chunk, self._log.seeks(*tp), lambda: self._log_start(tp))


def _forget(partitions: Iterable[Partition]) -> None:
    for partition in partitions:
        partition.forget()
