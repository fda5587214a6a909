"""A partition rebuilt from its log, and compared with what a worker published and stored."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.attributes import attribute_values
from features.codec import History, decode
from features.definitions import RETENTION_MS
from features.engine import Engine
from features.kernels import ACCEPTED
from features.labels import UNKNOWN_TRANSACTION, put_labels
from features.record import LABEL_KIND, TRANSACTION_KIND, Records, label_record, to_records
from features.totals import update_totals
from models.anomaly import AnomalyModel
from models.differences import Difference, Tally, differing_records, differing_totals, retained, shown_records
from models.published_scores import Published, ScoreComparison
from models.tree import TreeModel
from schemas.erasure import erased_name
from schemas.errors import EventError, HistoryError
from schemas.label import read_label
from schemas.parse import check_not_future, parse_message
from schemas.transaction import Transaction

_REMEMBERED = 20_000


class LogRecord(Protocol):
    """A record of a log, as far as it is looked at."""

    offset: int
    value: bytes | None
    timestamp: int


@dataclass(slots=True)
class _WaitingLabel:
    offset: int
    record: Records
    about_account: bool


class PartitionRebuild:
    """Histories and scores of one partition, rebuilt by the engine in the order of the log.

    The log does not say between which transactions the worker put a label in: labels come on another topic.
    A score is right if it follows from the labels put in so far or from some more of those that follow, in
    their order; once a score needed a label, it stays. A label that no score needed before its transaction
    left the history may be in the stored one or not: both are right.

    Args:
        number: The partition.
        engine: The engine.
        model_of: The fraud model of a version; `None` where there is none to compare with.
        belongs_here: Whether a customer's history is in this partition.
        log_complete: Whether the log starts at its first record. Where it does not, histories before
            `RETENTION_MS` of it are incomplete and not compared.
        tally: Where it is counted.
        refused_labels: Offsets of labels that have a dead letter. One that was read before its transaction is
            in no history, unless it was read again by a rebuild.
        anomaly_of: The anomaly model of a version; `None` where there is none to compare with.
        erased: Until when (ms since 1970) nothing is taken of erased customers, by `erased_name`. Nothing of
            them is rebuilt, shown or compared, what they did since included, as scores before the erasure
            follow from what is gone: all that is looked at is that nothing from before the request is kept.
    """

    def __init__(
        self,
        number: int,
        engine: Engine,
        model_of: Callable[[str], TreeModel | None],
        belongs_here: Callable[[str], bool],
        *,
        log_complete: bool,
        tally: Tally,
        refused_labels: Container[int] = (),
        anomaly_of: Callable[[str], AnomalyModel | None] = lambda version: None,
        erased: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._erased = dict(erased)
        self._anomaly_of = anomaly_of
        self._number = number
        self._engine = engine
        self._scores = ScoreComparison(engine, model_of, anomaly_of)
        self._belongs_here = belongs_here
        self._log_complete = log_complete
        self._complete_from_ms: int | None = 0 if log_complete else None
        self._tally = tally
        self._arena = HistoryArena(max_records=1 << 62)
        self._labels: dict[str, deque[_WaitingLabel]] = {}
        # Labels whose history held what they are about at some time: only those a worker can have put in.
        self._possible: dict[str, set[bytes]] = {}
        self._about_accounts: dict[str, list[Records]] = {}
        self._refused_labels = refused_labels
        self._refused: dict[str, set[bytes]] = {}
        self._seen: dict[str, None] = {}
        self._recent: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def add_erased(self, until_ms: Mapping[str, int]) -> None:
        """Customers who were erased meanwhile."""
        self._erased.update(until_ms)

    def add_labels(self, records: Iterable[LogRecord]) -> None:
        """Labels of the partition's log, in its order; those the worker refuses are left out.

        Those behind what it has processed too: in a backlog it puts labels in ahead of their turn.
        """
        for record in records:
            try:
                label = read_label(record.value, record.timestamp)
            except EventError:
                continue
            if self._belongs_here(label.customer_id):
                about_account = label.transaction_id is None
                waiting = _WaitingLabel(record.offset, label_record(label), about_account)
                self._labels.setdefault(label.customer_id, deque()).append(waiting)
                if record.offset in self._refused_labels:
                    self._refused.setdefault(label.customer_id, set()).add(waiting.record.tobytes())
                if about_account:
                    self._about_accounts.setdefault(label.customer_id, []).append(waiting.record)
                elif label.customer_id in self._arena:
                    kept = self._arena.kept(self._arena.slot(label.customer_id))
                    self._now_possible(label.customer_id, kept["transaction"])

    def add_transactions(
        self, records: Iterable[LogRecord], scores: Mapping[int, Sequence[Published]], *, scored_from: int
    ) -> None:
        """Rebuild what follows from the next records and compare it.

        Args:
            records: In the order of the log.
            scores: Published scores by the offset of their transaction.
            scored_from: Offset of the first transaction whose score the output topic still holds.
        """
        transactions, amounts, offsets, erased, elsewhere = self._accepted(records)
        expected = {offset: scores[offset] for offset in offsets if offset in scores}
        if erased:
            self._tally.not_compared["of an erased customer"] += len(erased)
        for offset in scores.keys() - {*offsets, *erased}:
            for score in scores[offset]:
                if score.transaction_id == elsewhere.get(offset):
                    self._tally.not_compared["of a customer who belongs to another partition now"] += 1
                else:
                    self._unexpected(score, "no transaction of this partition is at its offset")
        if not transactions:
            return
        events = to_records(transactions, amounts)
        self._begin(events)
        customers = [t.customer_id for t in transactions]
        for customer_id in self._arena.missing(customers):
            self._arena.put(customer_id, History.empty())
        before = {c: self._copy(c) for c in dict.fromkeys(customers) if self._labels.get(c)}
        slots = np.array([self._arena.slot(c) for c in customers], dtype=np.int64)
        said = attribute_values(self._engine.attributes, transactions)
        features = self._engine.compute_chunk(self._arena, events, slots, said)
        accepted = features.status == ACCEPTED
        update_totals(self._arena, events, slots, features)
        self._seen.update(dict.fromkeys(customers))
        for customer_id in before:
            mine = accepted & (slots == self._arena.slot(customer_id))
            self._now_possible(customer_id, events["transaction"][mine])
        wrong = self._scores.differing_rows(offsets, expected, features.X, accepted)
        again = {customers[row] for row in wrong} & before.keys()
        for customer_id in again:
            rows = [row for row, c in enumerate(customers) if c == customer_id]
            self._with_labels(
                customer_id, before[customer_id], rows, events, offsets, expected, features.X, said
            )
        if again:
            wrong = self._scores.differing_rows(offsets, expected, features.X, accepted)
        for row, offset in enumerate(offsets):
            found = expected.get(offset, ())
            if not accepted[row]:
                for score in found:
                    self._unexpected(score, "its transaction came before and counts once")
                continue
            self._tally.transactions += 1
            comparable = self._comparable(int(events["time_ms"][row]))
            if not found and comparable and offset >= scored_from:
                self._tally.differs(self._difference("missing score", transactions, events, offsets, row, {}))
            elif not found or not comparable:
                self._tally.not_compared["log cut off" if found else "score not in the topic"] += 1
            for score in found if comparable else ():
                values = self._scores.differing_values(score, features.X[row])
                if values is None:
                    self._tally.not_compared[self._scores.why_not(score)] += 1
                    continue
                self._tally.scores += 1
                self._tally.vectors += score.features is not None
                if score.anomaly is not None and self._anomaly_of(score.anomaly[0]) is None:
                    self._tally.not_compared[f"anomaly model {score.anomaly[0]} not here"] += 1
                if values:
                    kind = "score" if values.keys() <= {"score", "anomaly"} else "feature"
                    self._tally.differs(self._difference(kind, transactions, events, offsets, row, values))
            if found:
                self._recent[offset] = (found[0].transaction_id, found[0].score)
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)

    def add_repeat(self, score: Published) -> None:
        """A score that was published again, behind later ones."""
        self._tally.repeats += 1
        before = self._recent.get(score.offset)
        if before is None:
            self._tally.not_compared["score published again, long after"] += 1
        elif before != (score.transaction_id, score.score):
            self._unexpected(score, "differs from what was published before")

    def put_labels(self, before_offset: int) -> None:
        """Put in all labels before an offset of their log: the worker has processed them."""
        for customer_id, waiting in list(self._labels.items()):
            while waiting and waiting[0].offset < before_offset:
                self._put(customer_id, waiting.popleft(), though_gone=False)
            if not waiting:
                del self._labels[customer_id]

    def customers(self) -> list[str]:
        """Customers with an accepted transaction, in order of their first."""
        return list(self._seen)

    def compare_history(self, customer_id: str, stored: bytes | None, churn: bytes | None) -> None:
        """Compare a stored history, as far as any feature looks at it, with the rebuilt one."""
        if (until_ms := self._erased_until_ms(customer_id)) is not None:
            self._compare_erased(customer_id, stored, until_ms)
            return
        rebuilt = History.empty()
        if customer_id in self._arena:
            slot = self._arena.slot(customer_id)
            rebuilt = History(self._arena.totals(slot), self._arena.records(slot))
        rebuilt_records = _without(
            rebuilt.records, undecided := self._undecided(customer_id, rebuilt.records)
        )
        expected = retained(rebuilt_records)
        oldest = int(expected["time_ms"][0]) if len(expected) else 0
        if not self._comparable(oldest):
            self._tally.not_compared["log cut off"] += 1
            return
        self._tally.histories += 1
        try:
            found = decode(stored)
            values = differing_records(retained(_without(found.records, undecided)), expected)
            values |= differing_totals(found.totals, rebuilt.totals, churn, log_complete=self._log_complete)
        except HistoryError as unreadable:
            values = {"history": (str(unreadable), f"{len(expected)} records")}
        if values:
            shown = shown_records(expected)
            self._tally.differs(Difference("history", self._number, customer_id, None, None, values, shown))

    def _compare_erased(self, customer_id: str, stored: bytes | None, until_ms: int) -> None:
        """See that nothing is kept of an erased customer from before the request."""
        try:
            records = decode(stored).records
        except HistoryError as unreadable:
            values: Mapping[str, tuple[Any, Any]] = {"history": (str(unreadable), "erased")}
        else:
            kept = int(((records["kind"] == TRANSACTION_KIND) & (records["time_ms"] <= until_ms)).sum())
            values = {"records of an erased customer": (kept, 0)} if kept else {}
        if values:
            self._tally.differs(Difference("history", self._number, customer_id, None, None, values, ()))

    def _erased_until_ms(self, customer_id: str) -> int | None:
        return self._erased.get(erased_name(customer_id)) if self._erased else None

    def _accepted(
        self, records: Iterable[LogRecord]
    ) -> tuple[list[Transaction], list[int], list[int], list[int], dict[int, str]]:
        """What the worker would score here: not refused, not passed on, and not of an erased customer.

        Returns:
            Transactions, amounts and offsets; then offsets of those of erased customers, and ids by offset of
            those passed on: one has a score where partitions were added since.
        """
        transactions: list[Transaction] = []
        amounts: list[int] = []
        offsets: list[int] = []
        erased: list[int] = []
        elsewhere: dict[int, str] = {}
        for record in records:
            try:
                transaction = parse_message(Transaction, record.value)
                amount_minor = transaction.amount_minor
                check_not_future(transaction.event_time_ms, record.timestamp)
            except EventError:
                continue
            if self._erased_until_ms(transaction.customer_id) is not None:
                erased.append(record.offset)
            elif transaction.customer_id in self._arena or self._belongs_here(transaction.customer_id):
                transactions.append(transaction)
                amounts.append(amount_minor)
                offsets.append(record.offset)
            else:
                elsewhere[record.offset] = transaction.transaction_id
        return transactions, amounts, offsets, erased, elsewhere

    def _begin(self, events: Records) -> None:
        if self._complete_from_ms is None:
            self._complete_from_ms = int(events["time_ms"].max()) + RETENTION_MS

    def _comparable(self, time_ms: int) -> bool:
        return self._complete_from_ms is not None and time_ms >= self._complete_from_ms

    def _copy(self, customer_id: str) -> History:
        slot = self._arena.slot(customer_id)
        return History(self._arena.totals(slot), self._arena.records(slot).copy())

    def _with_labels(
        self,
        customer_id: str,
        before: History,
        rows: Sequence[int],
        events: Records,
        offsets: Sequence[int],
        expected: Mapping[int, Sequence[Published]],
        X: npt.NDArray[np.float64],
        said: npt.NDArray[np.float64] | None,
    ) -> None:
        """One customer's events once more, with as few more labels before each as make its score right."""
        self._arena.put(customer_id, before)
        waiting = self._labels[customer_id]
        for row in rows:
            told = None if said is None else said[row : row + 1]
            start = self._copy(customer_id)
            for though_gone, taken in product((False, True), range(len(waiting) + 1)):
                self._arena.put(customer_id, start)
                unknown = [w for w in islice(waiting, taken) if not self._put(customer_id, w, though_gone)]
                vector = self._one(customer_id, events[row : row + 1], told)
                if not any(
                    self._scores.differing_values(score, vector) for score in expected.get(offsets[row], ())
                ):
                    for _ in range(taken):
                        waiting.popleft()
                    # What such a label is about may come later in the log.
                    waiting.extendleft(reversed(unknown))
                    break
            else:
                self._arena.put(customer_id, start)
                vector = self._one(customer_id, events[row : row + 1], told)
            X[row] = vector

    def _one(
        self, customer_id: str, event: Records, said: npt.NDArray[np.float64] | None
    ) -> npt.NDArray[np.float64]:
        slot = np.array([self._arena.slot(customer_id)], dtype=np.int64)
        features = self._engine.compute_chunk(self._arena, event, slot, said)
        update_totals(self._arena, event, slot, features)
        vector: npt.NDArray[np.float64] = features.X[0]
        return vector

    def _put(self, customer_id: str, label: _WaitingLabel, though_gone: bool) -> bool:
        """Put a label in; where a score needs it even though its transaction has left the history since.

        Returns:
            Whether what it is about is known.
        """
        if customer_id not in self._arena:
            return False
        slot = self._arena.slot(customer_id)
        if label.about_account and self._arena.totals(slot).count == 0:
            return False
        possible = label.record.tobytes() in self._possible.get(customer_id, ())
        unasked = label.about_account or (though_gone and possible)
        outcome = put_labels(self._arena, np.array([slot]), label.record, np.array([unasked]))
        return bool(outcome[0] != UNKNOWN_TRANSACTION)

    def _now_possible(self, customer_id: str, transactions: npt.NDArray[np.uint64]) -> None:
        held = set(transactions.tolist())
        for label in self._labels[customer_id]:
            if int(label.record["transaction"][0]) in held:
                self._possible.setdefault(customer_id, set()).add(label.record.tobytes())

    def _undecided(self, customer_id: str, rebuilt: Records) -> set[bytes]:
        """Labels that may be in the stored history or not, by when the worker put them in."""
        # The rebuild puts in as late as it can, maybe too late for what a label is about.
        possible = self._possible.get(customer_id, set())
        undecided = possible - {record.tobytes() for record in rebuilt[rebuilt["kind"] == LABEL_KIND]}
        # Of an account the same is put in once, and again when the first has left the history.
        told = self._about_accounts.get(customer_id, [])
        words = Counter(int(record["label"][0]) for record in told)
        undecided |= {record.tobytes() for record in told if words[int(record["label"][0])] > 1}
        # In a backlog labels are put in ahead of their turn.
        undecided |= {waiting.record.tobytes() for waiting in self._labels.get(customer_id, ())}
        return undecided | self._refused.get(customer_id, set())

    def _unexpected(self, score: Published, why: str) -> None:
        self._tally.differs(
            Difference(
                "unexpected score",
                self._number,
                None,
                score.transaction_id,
                score.offset,
                {"score": (score.score, None), "why": (why, None)},
            )
        )

    def _difference(
        self,
        kind: str,
        transactions: Sequence[Transaction],
        events: Records,
        offsets: Sequence[int],
        row: int,
        values: Mapping[str, tuple[Any, Any]],
    ) -> Difference:
        customer_id = transactions[row].customer_id
        records = self._arena.records(self._arena.slot(customer_id))
        later = [i for i in range(row, len(transactions)) if transactions[i].customer_id == customer_id]
        came_later = np.isin(records["transaction"], events["transaction"][later]) & (records["kind"] == 0)
        history = retained(records[~came_later & (records["time_ms"] < events["time_ms"][row])])
        return Difference(
            kind,
            self._number,
            customer_id,
            transactions[row].transaction_id,
            offsets[row],
            values,
            shown_records(history),
        )


def _without(records: Records, labels: Container[bytes]) -> Records:
    kept: Records = records[[record.tobytes() not in labels for record in records]] if labels else records
    return kept
