"""Scores and labels as they come, from the start of their topics, and vectors of what they are about."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from features.codec import decode
from features.engine import Engine, Matrix
from features.entity_counts import Entities, customer_hashes
from features.ports import HistoryStore
from features.record import RECORD, Records
from infra.consumers import connected
from infra.log_tail import LogTail
from models.label_learning import Finding, Findings, event_of
from schemas.errors import DependencyError, EventError, HistoryError
from schemas.fields import to_epoch_ms
from schemas.label import read_label
from schemas.score import FraudScore
from schemas.topics import FRAUD_SCORES, LABELS

_log = structlog.get_logger()
_RECORDS = 5000
_WAIT_MS = 250


class LabelTopics:
    """Reads `scores.fraud` and `labels` into findings; in no consumer group.

    Attributes:
        scores, labels: Messages read.
        unreadable: Messages that are neither; left out.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        partitions: Of each topic.
        timeout_s: Limit of one answer.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        *,
        timeout_s: float = 30.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.scores = self.labels = self.unreadable = 0
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._options = options
        self._tps = [TopicPartition(t.name, p) for t in (FRAUD_SCORES, LABELS) for p in range(partitions)]
        self._consumer: Any = None
        self._ends: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Connect, and see how far the topics go.

        Raises:
            DependencyError: The broker does not answer.
        """
        tail = LogTail(self._bootstrap, timeout_s=self._timeout_s, committed_only=True, options=self._options)
        await tail.start()
        try:
            bounds = await tail.bounds((tp.topic, tp.partition) for tp in self._tps)
        finally:
            await tail.stop()
        self._ends = {TopicPartition(*tp): end for tp, (start, end) in bounds.items() if end > start}
        self._consumer = await connected(
            self._bootstrap,
            timeout_s=self._timeout_s,
            options=self._options,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_WAIT_MS,
        )
        self._consumer.assign(self._tps)

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is None:
            return
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._consumer.stop()

    @property
    def caught_up(self) -> bool:
        """Whether all was read that was there at the start."""
        return not self._ends

    async def read(self, findings: Findings) -> int:
        """Take in what has come; how many messages that were.

        Raises:
            DependencyError: The broker does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                fetched = await self._consumer.getmany(timeout_ms=_WAIT_MS, max_records=_RECORDS)
                # Not by the records: behind the last may be the end of a transaction.
                for tp, end in list(self._ends.items()):
                    if await self._consumer.position(tp) >= end:
                        del self._ends[tp]
        except (KafkaError, OSError, TimeoutError) as error:
            raise DependencyError(f"Kafka at {self._bootstrap} does not answer: {error!r}") from error
        for tp, records in fetched.items():
            for record in records:
                if tp.topic == FRAUD_SCORES.name:
                    self._take_score(record.value or b"", findings)
                else:
                    self._take_label(record, findings)
        return sum(map(len, fetched.values()))

    def _take_score(self, value: bytes, findings: Findings) -> None:
        try:
            score = FraudScore.model_validate_json(value)
        except ValidationError:
            self.unreadable += 1
        else:
            findings.scored(score.customer_id, score.transaction_id, to_epoch_ms(score.event_time))
            self.scores += 1

    def _take_label(self, record: "ConsumerRecord[bytes, bytes]", findings: Findings) -> None:
        try:
            findings.reported(read_label(record.value, record.timestamp))
        except EventError:
            # The worker has made a dead letter of it.
            self.unreadable += 1
        else:
            self.labels += 1


async def vectors_of(
    findings: Sequence[Finding], store: HistoryStore, engine: Engine
) -> tuple[list[Finding], Matrix, npt.NDArray[np.int64]]:
    """Vectors as of when the transactions were scored, from what the store holds.

    Args:
        findings: What is asked for.
        store: Histories, and what is counted of entities.
        engine: The declarations.

    Returns:
        The findings whose transactions are still there with all that their windows held, `(n, n_features)`,
        and the times of the transactions.
    """
    customers = list(dict.fromkeys(finding.customer_id for finding in findings))
    histories = {
        customer_id: _records(stored)
        for customer_id, stored in zip(customers, await store.histories(customers), strict=True)
    }
    kept, events = [], []
    for finding in findings:
        event = event_of(histories[finding.customer_id], finding.transaction)
        if event is not None:
            kept.append(finding)
            events.append(event)
    records = np.concatenate([np.zeros(0, dtype=RECORD), *events])
    vectors = np.full((len(kept), len(engine.entities)), np.nan)
    if engine.entities and kept:
        entities = Entities(engine.entities)
        keys = entities.keys(records)
        entities.put_stored(keys, await store.entities(keys))
        whole = np.flatnonzero(entities.holds_windows(records))
        kept, records = [kept[i] for i in whole.tolist()], records[whole]
        who = customer_hashes(finding.customer_id for finding in kept)
        vectors = entities.compute(records, who, np.arange(len(kept)), count=False)
    times = records["time_ms"].copy()
    X = np.full((len(kept), len(engine.names)), np.nan)
    for row, finding in enumerate(kept):
        history = histories[finding.customer_id]
        X[row] = engine.compute(history, records[row : row + 1], int(times[row]))
    X[:, len(engine.names) - len(engine.entities) :] = vectors
    return kept, X, times


def _records(stored: bytes | None) -> Records:
    try:
        return decode(stored).records
    except HistoryError as damaged:
        # The worker and `tidegate verify` say whose; here it is one that cannot be learned from.
        _log.warning("a history cannot be read", error=str(damaged))
        return decode(None).records
