"""A deployment verified: its topics replayed through the engine, compared with its scores and histories."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from features.engine import Engine
from infra.history_store import RedisHistoryStore
from infra.log_reader import LogReader
from infra.log_tail import LogTail
from infra.partitioning import partition_for
from infra.topics_admin import TopicsAdmin
from models.anomaly import AnomalyModel
from models.differences import Tally
from models.published_scores import Published, read_score
from models.registry import ModelRegistry
from models.tree import TreeModel
from models.verification import PartitionRebuild
from schemas.dead_letter import DeadLetter
from schemas.errors import HistoryError, ModelError
from schemas.topics import DEAD_LETTERS, FRAUD_SCORES, LABELS, TRANSACTIONS

_HISTORIES = 500
Progress = Callable[[int, int, int], None]


@dataclass(slots=True)
class _Scores:
    """Scores of a partition, read ahead as far as they are needed."""

    batches: AsyncIterator[list[object]]
    partition: int
    rebuild: PartitionRebuild
    tally: Tally
    waiting: deque[Published]
    ended: bool = False
    done: int = 0

    async def upto(self, offset: int) -> dict[int, list[Published]]:
        """Scores of the transactions before an offset that were not given out."""
        found: dict[int, list[Published]] = {}
        while True:
            while self.waiting:
                score = self.waiting[0]
                if score.offset >= offset:
                    break
                self.waiting.popleft()
                if score.offset < self.done:
                    self.rebuild.add_repeat(score)
                else:
                    found.setdefault(score.offset, []).append(score)
            if self.waiting or self.ended:
                self.done = offset
                return found
            await self.more()

    async def more(self) -> None:
        """Read some more."""
        records = await anext(self.batches, None)
        if records is None:
            self.ended = True
            return
        for record in records:
            value: bytes | None = record.value  # type: ignore[attr-defined]
            score = read_score(value, TRANSACTIONS.name, self.partition)
            if score is None:
                self.tally.not_compared["no score of this partition's transactions"] += 1
            else:
                self.waiting.append(score)


class Verifier:
    """Compares what a deployment published and stored with what its log says. Changes nothing.

    Args:
        bootstrap: Its brokers.
        store: Its histories.
        registry: Its models.
        engine: Its declarations.
        on_progress: Called with partition, next offset and how far it goes.
    """

    def __init__(
        self,
        bootstrap: str,
        store: RedisHistoryStore,
        registry: ModelRegistry,
        engine: Engine,
        *,
        on_progress: Progress = lambda partition, done, total: None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = options
        self._bootstrap = bootstrap
        self._store = store
        self._registry = registry
        self._on_progress = on_progress
        self._engine = engine
        self._models: dict[str, TreeModel | None] = {}
        self._anomaly: dict[str, AnomalyModel | None] = {}
        self.tally = Tally()

    async def run(self, only: Sequence[int] | None = None) -> Tally:
        """Verify all partitions, or some.

        Raises:
            DependencyError: Kafka or Redis does not answer, or nothing is stored.
            HistoryError: What is stored is from another log.
        """
        partitions = await self._store.partitions()
        admin = TopicsAdmin(self._bootstrap, options=self._options)
        await self._store.claim_topology(await admin.source_partitions(), await admin.cluster_id())
        tail = LogTail(self._bootstrap, options=self._options)
        await tail.start()
        try:
            for number in range(partitions) if only is None else only:
                await self._partition(number, partitions, tail)
        finally:
            await tail.stop()
        return self.tally

    async def _partition(self, number: int, partitions: int, tail: LogTail) -> None:
        topics = [(name, number) for name in (TRANSACTIONS.name, LABELS.name, FRAUD_SCORES.name)]
        processed = await self._store.next_offsets(number)
        upto = processed.get(TRANSACTIONS.name, 0)
        # Behind the store's offsets: what they cover is published by now.
        bounds = await tail.bounds(topics)
        log_start, log_end = bounds[topics[0]]
        if upto > log_end:
            raise HistoryError(
                f"{TRANSACTIONS.name}[{number}] ends at {log_end}, the histories go up to {upto}: this is "
                "not the log they were built from"
            )
        rebuild = PartitionRebuild(
            number,
            self._engine,
            self._model_of,
            lambda customer_id: partition_for(customer_id, partitions) == number,
            log_complete=log_start == 0,
            tally=self.tally,
            refused_labels=await self._refused_labels(number, tail),
            anomaly_of=self._anomaly_of,
            # Behind the offsets: whoever was erased before what they cover is among these.
            erased=await self._store.erased(number),
        )
        async with AsyncExitStack() as readers:
            labels = await self._reader(readers, *topics[1], bounds[topics[1]][0])
            scored = await self._reader(readers, *topics[2], bounds[topics[2]][0])
            source = await self._reader(readers, *topics[0], log_start)
            await _add_labels(rebuild, labels, max(bounds[topics[1]][1], processed.get(LABELS.name, 0)))
            scores = _Scores(scored.until(bounds[topics[2]][1]), number, rebuild, self.tally, deque())
            # What was let go by retention of the output topic is not missing.
            scored_from = 0
            if bounds[topics[2]][0] > 0:
                await scores.more()
                scored_from = scores.waiting[0].offset if scores.waiting else upto
            async for records in source.until(upto):
                found = await scores.upto(records[-1].offset + 1)
                rebuild.add_transactions(records, found, scored_from=scored_from)
                self._on_progress(number, records[-1].offset + 1, upto)
            await self._histories(number, rebuild, source, labels, processed)

    async def _refused_labels(self, number: int, tail: LogTail) -> set[int]:
        """Offsets of a partition's labels that have a dead letter."""
        tp = (DEAD_LETTERS.name, number)
        start, end = (await tail.bounds([tp]))[tp]
        found: set[int] = set()
        if start == end:
            return found
        async with AsyncExitStack() as readers:
            letters = await self._reader(readers, *tp, start)
            async for records in letters.until(end):
                for record in records:
                    with suppress(ValidationError):  # Somebody else's message says nothing of labels.
                        source = DeadLetter.model_validate_json(record.value or b"").source
                        if (source.topic, source.partition) == (LABELS.name, number):
                            found.add(source.offset)
        return found

    async def _histories(
        self,
        number: int,
        rebuild: PartitionRebuild,
        source: LogReader,
        labels: LogReader,
        processed: dict[str, int],
    ) -> None:
        """Compare stored histories, each batch at the offset at which it was read: a worker may go on."""
        rebuild.put_labels(processed.get(LABELS.name, 0))
        stored = await self._store.customers(number)
        customers = list(dict.fromkeys([*rebuild.customers(), *stored]))
        for start in range(0, len(customers), _HISTORIES):
            batch = customers[start : start + _HISTORIES]
            offsets, histories, churn = await self._store.snapshot(number, batch)
            rebuild.add_erased(await self._store.erased(number))
            await _add_labels(rebuild, labels, offsets.get(LABELS.name, 0))
            async for records in source.until(offsets.get(TRANSACTIONS.name, 0)):
                # Their scores are the next run's business.
                rebuild.add_transactions(records, {}, scored_from=1 << 62)
            rebuild.put_labels(offsets.get(LABELS.name, 0))
            for customer_id, history, score in zip(batch, histories, churn, strict=True):
                rebuild.compare_history(customer_id, history, score)

    async def _reader(self, stack: AsyncExitStack, topic: str, partition: int, start: int) -> LogReader:
        reader = await stack.enter_async_context(
            LogReader(self._bootstrap, topic, partition, options=self._options)
        )
        reader.seek(start)
        return reader

    def _model_of(self, version: str) -> TreeModel | None:
        if version not in self._models:
            try:
                model = self._registry.load("fraud", self._engine.names, version)
            except ModelError:
                self._models[version] = None
            else:
                fits = model.card.features_hash == self._engine.hash
                self._models[version] = model if fits else None
        return self._models[version]

    def _anomaly_of(self, version: str) -> AnomalyModel | None:
        if version not in self._anomaly:
            try:
                self._anomaly[version] = self._registry.load_anomaly(version, self._engine)
            except ModelError:
                self._anomaly[version] = None
        return self._anomaly[version]


async def _add_labels(rebuild: PartitionRebuild, labels: LogReader, upto: int) -> None:
    async for records in labels.until(upto):
        rebuild.add_labels(records)
