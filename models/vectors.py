"""Vectors of a log of transactions and of what became known of them: the replay behind `features compute`."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.codec import History
from features.engine import ChunkFeatures, Engine
from features.labels import UNKNOWN_TRANSACTION, put_labels
from features.record import LABEL_CODES, Records, label_record
from schemas.label import Label

_TEMPLATE = label_record(
    Label(customer_id="c", transaction_id="t", label="fraud", label_time=datetime(2026, 1, 1, tzinfo=UTC))
)
NO_LABEL = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """`n` accepted transactions in the order of their log, as the engine takes them.

    Attributes:
        records: `(n,)`.
        labels: `(n,)` code of what became known of each; 0 for nothing.
        label_time_ms: `(n,)` since when.
    """

    transaction_ids: Sequence[str]
    customer_ids: Sequence[str]
    records: Records
    labels: npt.NDArray[np.int8]
    label_time_ms: npt.NDArray[np.int64]

    def part(self, begin: int, end: int) -> "Rows":
        """Those of `[begin, end)`."""
        return Rows(
            self.transaction_ids[begin:end],
            self.customer_ids[begin:end],
            self.records[begin:end],
            self.labels[begin:end],
            self.label_time_ms[begin:end],
        )


@dataclass(frozen=True, slots=True)
class Vectors:
    """Some of these rows with their features."""

    transaction_ids: Sequence[str]
    customer_ids: Sequence[str]
    time_ms: npt.NDArray[np.int64]
    features: ChunkFeatures


class VectorReplay:
    """Runs rows through the engine, each label entering its customer's history at its own time.

    A label is put in when an event at or after its time comes, so an event sees the labels that were known
    before it, however the rows are cut into batches.

    Attributes:
        labels_put: Labels that entered a history.
        labels_unknown: Labels of a transaction that the history did not keep so long.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Nobody is let go: there is no store behind it to load them from again.
        self.arena = HistoryArena(max_records=1 << 62)
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
        for i, time_ms in enumerate(times):
            while waiting and waiting[0][0] <= time_ms:
                label = heapq.heappop(waiting)
                if label[1] >= self._rows + begin:
                    # Its own transaction comes first.
                    yield self._compute(rows, begin, i)
                    begin = i
                self._due.append(label)
            if labels[i] != NO_LABEL:
                label = (label_times[i], self._rows + i, rows.customer_ids[i], transactions[i], labels[i])
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
        customers = rows.customer_ids[begin:end]
        for customer_id in self.arena.missing(customers):
            self.arena.put(customer_id, History.empty())
        slots = np.array([self.arena.slot(customer_id) for customer_id in customers], dtype=np.int64)
        records = rows.records[begin:end]
        features = self.engine.compute_chunk(self.arena, records, slots)
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
        unknown = int((outcome == UNKNOWN_TRANSACTION).sum())
        self.labels_unknown += unknown
        self.labels_put += len(self._due) - unknown
        self._due.clear()


def label_code(word: str | None) -> int:
    """Code of a label's word; 0 for none."""
    return NO_LABEL if word is None else LABEL_CODES[word]
