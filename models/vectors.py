"""Vectors of a log of transactions and of what became known of them: the replay behind `features compute`."""

import heapq
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.codec import History
from features.corrections import corrections_of
from features.definitions import MAX_EVENTS, RETENTION_MS
from features.engine import ChunkFeatures, Engine
from features.entity_counts import Entities, customer_hashes, said_by
from features.kernels import ACCEPTED
from features.labels import PUT, UNKNOWN_TRANSACTION, is_leaving, put_labels
from features.record import LABEL_CODES, LABEL_KIND, RECORD, Records, label_record
from schemas.label import Label

_TEMPLATE = label_record(
    Label(customer_id="c", transaction_id="t", label="fraud", label_time=datetime(2026, 1, 1, tzinfo=UTC))
)
NO_LABEL = 0
FRAUD = LABEL_CODES["fraud"]
GENUINE = LABEL_CODES["genuine"]
Values = npt.NDArray[np.float64] | npt.NDArray[np.float32]
_GROWS = 1.25


@dataclass(frozen=True, slots=True)
class Rows:
    """`n` accepted transactions in the order of their log, as the engine takes them.

    Attributes:
        records: `(n,)`.
        labels: `(n,)` code of what became known of each; 0 for nothing.
        label_time_ms: `(n,)` since when.
        attributes: `(n, n_attributes)` of `features.attributes`, 64 bits or the 32 that models read; `None`
            where none were asked for.
        closed_ms: When customers closed their account, of those who did.
    """

    transaction_ids: Sequence[str]
    customer_ids: Sequence[str]
    records: Records
    labels: npt.NDArray[np.int8]
    label_time_ms: npt.NDArray[np.int64]
    attributes: Values | None = None
    closed_ms: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def time_ms(self) -> npt.NDArray[np.int64]:
        """`(n,)` event times."""
        times: npt.NDArray[np.int64] = self.records["time_ms"]
        return times

    def take(self, rows: npt.NDArray[np.intp]) -> "Rows":
        """Some of them, in the order asked for."""
        numbers = rows.tolist()
        return Rows(
            [self.transaction_ids[i] for i in numbers],
            [self.customer_ids[i] for i in numbers],
            self.records[rows],
            self.labels[rows],
            self.label_time_ms[rows],
            None if self.attributes is None else self.attributes[rows],
            self.closed_ms,
        )

    def part(self, begin: int, end: int) -> "Rows":
        """Those of `[begin, end)`."""
        return Rows(
            self.transaction_ids[begin:end],
            self.customer_ids[begin:end],
            self.records[begin:end],
            self.labels[begin:end],
            self.label_time_ms[begin:end],
            None if self.attributes is None else self.attributes[begin:end],
            self.closed_ms,
        )

    def frauds_only(self) -> "Rows":
        """The same without labels that say genuine: no feature looks at those."""
        return replace(self, labels=np.where(self.labels == FRAUD, self.labels, NO_LABEL).astype(np.int8))


def in_time_order(batches: Iterable[Rows], values: npt.DTypeLike = np.float64) -> Rows:
    """All rows as one, by event time; those of one time stay in the order they came in.

    Args:
        batches: In the order of the file.
        values: How attributes are kept: of a wide file they are most of what there is, and 32 bits are
            what models read.
    """
    transactions: list[str] = []
    customers: list[str] = []
    records: list[Records] = [np.empty(0, dtype=RECORD)]
    labels, times = [np.empty(0, np.int8)], [np.empty(0, np.int64)]
    attributes: Values | None = None
    closed_ms: dict[str, int] = {}
    for batch in batches:
        for customer_id, time_ms in batch.closed_ms.items():
            closed_ms[customer_id] = min(time_ms, closed_ms.get(customer_id, time_ms))
        transactions += batch.transaction_ids
        # One object a customer: a file of a million transactions has some thousand of them.
        customers += map(sys.intern, batch.customer_ids)
        records.append(batch.records)
        labels.append(batch.labels)
        times.append(batch.label_time_ms)
        if batch.attributes is not None:
            if attributes is None:
                attributes = np.empty((0, batch.attributes.shape[1]), dtype=values)
            _append(attributes, len(transactions), batch.attributes)
    if attributes is not None:
        _resize(attributes, len(transactions))
    rows = Rows(
        transactions,
        customers,
        np.concatenate(records),
        np.concatenate(labels),
        np.concatenate(times),
        attributes,
        closed_ms,
    )
    if (np.diff(rows.time_ms) >= 0).all():
        return rows
    return rows.take(np.argsort(rows.time_ms, kind="stable"))


def _append(grown: Values, end: int, rows: Values) -> None:
    # Not all batches and then one array of them: twice the room, and the half that is given back comes in
    # pieces that the allocator keeps. This one is made longer where it lies.
    if end > len(grown):
        _resize(grown, max(end, int(len(grown) * _GROWS)))
    grown[end - len(rows) : end] = rows


def _resize(grown: Values, length: int) -> None:
    grown.resize((length, grown.shape[1]), refcheck=False)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Some of these rows with their features."""

    transaction_ids: Sequence[str]
    customer_ids: Sequence[str]
    time_ms: npt.NDArray[np.int64]
    features: ChunkFeatures


def compute_vectors(
    customer_ids: Sequence[str],
    records: Records,
    engine: Engine,
    arena: HistoryArena,
    entities: Entities | None,
    attributes: Values | None = None,
) -> ChunkFeatures:
    """Vectors of transactions in their order; histories and entities move past them.

    Args:
        customer_ids: `n` ids; customers not in the arena start empty.
        records: `(n,)`.
        engine: The engine.
        arena: Histories.
        entities: Merchants, devices and so on; those not in it start empty. `None` where the engine
            declares none.
        attributes: `(n, n_attributes)`; unknown where they are not given.
    """
    for customer_id in arena.missing(customer_ids):
        arena.put(customer_id, History.empty())
    slots = np.array([arena.slot(customer_id) for customer_id in customer_ids], dtype=np.int64)
    features = engine.compute_chunk(arena, records, slots, attributes)
    if entities is not None and engine.entities:
        for key in entities.missing(entities.keys(records)):
            entities.put(key)
        accepted = np.flatnonzero(features.status == ACCEPTED)
        corrections = corrections_of(features, arena, slots)
        who = customer_hashes(customer_ids)
        vectors = entities.compute(records, who, accepted, count=True, corrections=corrections)
        features.X[:, -vectors.shape[1] :] = vectors
    return features


def may_leave(arena: HistoryArena, customer_id: str, transaction: int, newest_ms: int, more: int) -> bool:
    """Whether what a history keeps of a transaction may be out of it behind its customer's next events.

    Args:
        arena: Histories as they are before those events.
        customer_id: A customer in it.
        transaction: Hash of its id.
        newest_ms: Newest time of those events.
        more: How many they are at most.
    """
    slot, oldest_ms = arena.slot(customer_id), newest_ms - RETENTION_MS
    start, length = arena.start[slot], arena.length[slot]
    # Nearly always: labels come within days, and customers have not so many events.
    if not is_leaving(
        arena.pool, start, length, np.uint64(transaction), oldest_ms, length + more - MAX_EVENTS
    ):
        return False
    # Not where it has left already. Of several versions, at different times, the first to leave counts.
    kept = arena.kept(slot)
    events = kept[kept["kind"] != LABEL_KIND]
    versions = np.flatnonzero(events["transaction"] == transaction)
    if not len(versions):
        return False
    first = int(versions[0])
    return bool(events["time_ms"][first] < oldest_ms) or len(events) - first + more > MAX_EVENTS


class VectorReplay:
    """Runs rows through the engine, each label entering its customer's history at its own time.

    A label is put in when an event at or after its time comes, so an event sees the labels that were known
    before it, and the history sees it as it was then, however the rows are cut into batches.

    Attributes:
        labels_put: Labels that entered a history.
        labels_unknown: Labels of a transaction that the history did not keep so long.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Nobody is let go: there is no store behind it to load them from again.
        self.arena = HistoryArena(max_records=1 << 62)
        self.entities = Entities(engine.entities) if engine.entities else None
        self.labels_put = 0
        self.labels_unknown = 0
        # (time, number of the row, customer, transaction, code)
        self._waiting: list[tuple[int, int, str, int, int]] = []
        self._due: list[tuple[int, int, str, int, int]] = []
        self._rows = 0

    def feed(self, rows: Rows) -> Iterator[Vectors]:
        """Vectors of the next rows, in their order."""
        times = rows.records["time_ms"].tolist()
        transactions = rows.records["transaction"].tolist()
        labels, label_times = rows.labels.tolist(), rows.label_time_ms.tolist()
        waiting, begin = self._waiting, 0
        # Of the rows that are not computed yet: their transactions, and each customer's newest time.
        uncut: set[int] = set()
        newest: dict[str, int] = {}
        for i, (customer_id, time_ms) in enumerate(zip(rows.customer_ids, times, strict=True)):
            while waiting and waiting[0][0] <= time_ms:
                label = heapq.heappop(waiting)
                # Labels go in ahead of a batch: what they are about must come, be corrected or leave before.
                if label[3] in uncut or (
                    label[2] in newest
                    and may_leave(self.arena, label[2], label[3], newest[label[2]], i - begin)
                ):
                    yield self._compute(rows, begin, i)
                    begin = i
                    uncut.clear()
                    newest.clear()
                self._due.append(label)
            uncut.add(transactions[i])
            if time_ms > newest.get(customer_id, -1):
                newest[customer_id] = time_ms
            if labels[i] != NO_LABEL:
                label = (label_times[i], self._rows + i, customer_id, transactions[i], labels[i])
                heapq.heappush(waiting, label)
        yield self._compute(rows, begin, len(times))
        self._rows += len(times)

    def put_known(self, time_ms: int) -> None:
        """Put in the labels that are known before a moment: what is asked about it is not an event."""
        while self._waiting and self._waiting[0][0] < time_ms:
            self._due.append(heapq.heappop(self._waiting))
        self._put_due()

    def finish(self) -> None:
        """Put in the labels that became known after the last event."""
        self._due += sorted(self._waiting)
        self._waiting.clear()
        self._put_due()

    def _compute(self, rows: Rows, begin: int, end: int) -> Vectors:
        # Ahead of events that came before them: those are older, and a window ends at its event.
        self._put_due()
        customers, records = rows.customer_ids[begin:end], rows.records[begin:end]
        values = None if rows.attributes is None else rows.attributes[begin:end]
        features = compute_vectors(customers, records, self.engine, self.arena, self.entities, values)
        return Vectors(rows.transaction_ids[begin:end], customers, records["time_ms"], features)

    def _put_due(self) -> None:
        if not self._due:
            return
        records = np.repeat(_TEMPLATE, len(self._due))
        records["time_ms"] = [label[0] for label in self._due]
        records["transaction"] = np.array([label[3] for label in self._due], dtype=np.uint64)
        records["label"] = [label[4] for label in self._due]
        slots = np.array([self.arena.slot(label[2]) for label in self._due], dtype=np.int64)
        outcome = put_labels(self.arena, slots, records)
        if self.entities is not None:
            # Each once: what a label adds to a merchant is no longer there to compare with.
            for i in np.flatnonzero((outcome == PUT) & (records["label"] == FRAUD)).tolist():
                said = said_by(self.arena.kept(int(slots[i])), records[i : i + 1])
                self.entities.add(self.entities.frauds(said))
        unknown = int((outcome == UNKNOWN_TRANSACTION).sum())
        self.labels_unknown += unknown
        self.labels_put += len(self._due) - unknown
        self._due.clear()


def label_code(word: str | None) -> int:
    """Code of a label's word; 0 for none."""
    return NO_LABEL if word is None else LABEL_CODES[word]
