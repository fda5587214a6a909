"""A partition rebuilt from its log, and compared with what a worker published and stored."""

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from features.arena import HistoryArena
from features.codec import History, decode
from features.definitions import DAY_MS, MAX_EVENTS, RETENTION_MS
from features.engine import Engine
from features.kernels import ACCEPTED, newest_arrival, retained_from
from features.labels import put_labels
from features.record import RECORD, Records, label_record, to_records
from features.totals import update_totals
from models.anomaly import AnomalyModel
from models.churn_scores import BANDS
from models.tree import TreeModel
from schemas.errors import EventError, HistoryError
from schemas.fields import to_epoch_ms
from schemas.label import Label
from schemas.parse import check_not_future, parse_message
from schemas.score import ChurnScore
from schemas.transaction import Transaction

_REMEMBERED = 20_000
_SHOWN_RECORDS = 200
_TOTALS = ("first_ms", "count", "debit_minor", "credit_minor", "last_day", "active_days")


class LogRecord(Protocol):
    """A record of a log, as far as it is looked at."""

    offset: int
    value: bytes | None
    timestamp: int


@dataclass(frozen=True, slots=True)
class Published:
    """A published fraud score.

    Attributes:
        offset: Of the transaction it is the score of.
        features: The vector where it was published; NaN is unknown.
        anomaly: Version of the model that said how unusual it is, and what it said; `None` where none did.
    """

    offset: int
    transaction_id: str
    version: str
    score: float
    features: Mapping[str, float] | None = None
    anomaly: tuple[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as rebuilt.

    Attributes:
        kind: `score`, `feature`, `missing score`, `unexpected score` or `history`.
        offset: Of the transaction; `None` for a stored history.
        values: What differs by name: what was found, and what it should be.
        history: Records the rebuilt value follows from, oldest first; ids are hashes.
    """

    kind: str
    partition: int
    customer_id: str | None
    transaction_id: str | None
    offset: int | None
    values: Mapping[str, tuple[Any, Any]]
    history: Sequence[Mapping[str, Any]] = ()


@dataclass(slots=True)
class Tally:
    """What was compared and what was not."""

    transactions: int = 0
    scores: int = 0
    vectors: int = 0
    histories: int = 0
    repeats: int = 0
    differences: int = 0
    not_compared: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    first: Difference | None = None

    def differs(self, difference: Difference) -> None:
        """Count a difference and keep the first."""
        self.differences += 1
        self.first = self.first or difference


@dataclass(slots=True)
class _WaitingLabel:
    offset: int
    record: Records
    about_account: bool


def read_score(value: bytes | None, topic: str, partition: int) -> Published | None:
    """A message of `scores.fraud`; `None` where it is no score of a record of this partition."""
    try:
        score = orjson.loads(value or b"")
        source = score["source"]
        if (source["topic"], source["partition"]) != (topic, partition):
            return None
        vector = score.get("features")
        features = None
        if vector is not None:
            features = {name: float("nan") if v is None else float(v) for name, v in vector.items()}
        said = score.get("anomaly")
        anomaly = None if said is None else (str(said["model"]["version"]), float(said["score"]))
        return Published(
            int(source["offset"]),
            str(score["transaction_id"]),
            str(score["model"]["version"]),
            float(score["score"]),
            features,
            anomaly,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class PartitionRebuild:
    """Histories and scores of one partition, rebuilt by the engine in the order of the log.

    The log does not say between which transactions the worker put a label in: labels come on another topic.
    A score is right if it follows from the labels put in so far or from some more of those that follow, in
    their order; once a score needed a label, it stays.

    Args:
        number: The partition.
        engine: The engine.
        model_of: The fraud model of a version; `None` where there is none to compare with.
        belongs_here: Whether a customer's history is in this partition.
        log_complete: Whether the log starts at its first record. Where it does not, histories before
            `RETENTION_MS` of it are incomplete and not compared.
        tally: Where it is counted.
        anomaly_of: The anomaly model of a version; `None` where there is none to compare with.
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
        anomaly_of: Callable[[str], AnomalyModel | None] = lambda version: None,
    ) -> None:
        self._anomaly_of = anomaly_of
        self._number = number
        self._engine = engine
        self._model_of = model_of
        self._belongs_here = belongs_here
        self._log_complete = log_complete
        self._complete_from_ms: int | None = 0 if log_complete else None
        self._tally = tally
        self._arena = HistoryArena(max_records=1 << 62)
        self._labels: dict[str, deque[_WaitingLabel]] = {}
        self._seen: dict[str, None] = {}
        self._recent: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def add_labels(self, records: Iterable[LogRecord]) -> None:
        """Labels of the partition's log, in its order; those the worker refuses are left out."""
        for record in records:
            try:
                label = parse_message(Label, record.value)
            except EventError:
                continue
            if self._belongs_here(label.customer_id):
                waiting = _WaitingLabel(record.offset, label_record(label), label.transaction_id is None)
                self._labels.setdefault(label.customer_id, deque()).append(waiting)

    def add_transactions(
        self, records: Iterable[LogRecord], scores: Mapping[int, Sequence[Published]], *, scored_from: int
    ) -> None:
        """Rebuild what follows from the next records and compare it.

        Args:
            records: In the order of the log.
            scores: Published scores by the offset of their transaction.
            scored_from: Offset of the first transaction whose score the output topic still holds.
        """
        transactions, amounts, offsets = self._accepted(records)
        expected = {offset: scores[offset] for offset in offsets if offset in scores}
        for offset in scores.keys() - set(offsets):
            for score in scores[offset]:
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
        features = self._engine.compute_chunk(self._arena, events, slots)
        accepted = features.status == ACCEPTED
        update_totals(self._arena, events, slots, features)
        self._seen.update(dict.fromkeys(customers))
        wrong = self._differing(offsets, expected, features.X, accepted)
        again = {customers[row] for row in wrong} & before.keys()
        for customer_id in again:
            rows = [row for row, c in enumerate(customers) if c == customer_id]
            self._with_labels(customer_id, before[customer_id], rows, events, offsets, expected, features.X)
        if again:
            wrong = self._differing(offsets, expected, features.X, accepted)
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
                values = self._values(score, features.X[row])
                if values is None:
                    self._tally.not_compared[f"model {score.version} or its declarations not here"] += 1
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
                self._put(customer_id, waiting.popleft())
            if not waiting:
                del self._labels[customer_id]

    def customers(self) -> list[str]:
        """Customers with an accepted transaction, in order of their first."""
        return list(self._seen)

    def compare_history(self, customer_id: str, stored: bytes | None, churn: bytes | None) -> None:
        """Compare a stored history, as far as any feature looks at it, with the rebuilt one."""
        rebuilt = History.empty()
        if customer_id in self._arena:
            slot = self._arena.slot(customer_id)
            rebuilt = History(self._arena.totals(slot), self._arena.records(slot))
        expected = retained(rebuilt.records)
        oldest = int(expected["time_ms"][0]) if len(expected) else 0
        if not self._comparable(oldest):
            self._tally.not_compared["log cut off"] += 1
            return
        self._tally.histories += 1
        try:
            found = decode(stored)
            values = _differing_records(retained(found.records), expected)
            values |= self._differing_totals(found, rebuilt, churn)
        except HistoryError as unreadable:
            values = {"history": (str(unreadable), f"{len(expected)} records")}
        if values:
            shown = _shown(expected)
            self._tally.differs(Difference("history", self._number, customer_id, None, None, values, shown))

    def _differing_totals(
        self, found: History, rebuilt: History, churn: bytes | None
    ) -> dict[str, tuple[Any, Any]]:
        values: dict[str, tuple[Any, Any]] = {}
        if self._log_complete:
            for name in _TOTALS:
                pair = (getattr(found.totals, name), getattr(rebuilt.totals, name))
                if pair[0] != pair[1]:
                    values[f"totals.{name}"] = pair
        day, band = -1, -1
        if churn is not None:
            newest = ChurnScore.model_validate_json(churn)
            day, band = to_epoch_ms(newest.as_of) // DAY_MS, BANDS.index(newest.band)
        if found.totals.churn_day != day:
            values["totals.churn_day"] = (found.totals.churn_day, day)
        if found.totals.churn_band != band:
            values["totals.churn_band"] = (found.totals.churn_band, band)
        return values

    def _accepted(self, records: Iterable[LogRecord]) -> tuple[list[Transaction], list[int], list[int]]:
        """What the worker would score here: not refused, and not passed on."""
        transactions: list[Transaction] = []
        amounts: list[int] = []
        offsets: list[int] = []
        for record in records:
            try:
                transaction = parse_message(Transaction, record.value)
                amount_minor = transaction.amount_minor
                check_not_future(transaction.event_time_ms, record.timestamp)
            except EventError:
                continue
            if transaction.customer_id in self._arena or self._belongs_here(transaction.customer_id):
                transactions.append(transaction)
                amounts.append(amount_minor)
                offsets.append(record.offset)
        return transactions, amounts, offsets

    def _begin(self, events: Records) -> None:
        if self._complete_from_ms is None:
            self._complete_from_ms = int(events["time_ms"].max()) + RETENTION_MS

    def _comparable(self, time_ms: int) -> bool:
        return self._complete_from_ms is not None and time_ms >= self._complete_from_ms

    def _copy(self, customer_id: str) -> History:
        slot = self._arena.slot(customer_id)
        return History(self._arena.totals(slot), self._arena.records(slot).copy())

    def _differing(
        self,
        offsets: Sequence[int],
        expected: Mapping[int, Sequence[Published]],
        X: npt.NDArray[np.float64],
        accepted: npt.NDArray[np.bool_],
    ) -> list[int]:
        """Rows of which a published score or vector is another."""
        by_version: dict[str, list[int]] = defaultdict(list)
        for row, offset in enumerate(offsets):
            if accepted[row]:
                for version in {score.version for score in expected.get(offset, ())}:
                    by_version[version].append(row)
        self._proba: dict[tuple[str, bytes], float] = {}
        for version, rows in by_version.items():
            model = self._model_of(version)
            if model is not None:
                for row, proba in zip(rows, model.predict_proba(X[rows]).tolist(), strict=True):
                    self._proba[version, X[row].tobytes()] = proba
        return [
            row
            for row, offset in enumerate(offsets)
            if accepted[row] and any(self._values(score, X[row]) for score in expected.get(offset, ()))
        ]

    def _values(self, score: Published, vector: npt.NDArray[np.float64]) -> dict[str, tuple[Any, Any]] | None:
        """What differs between a score and the rebuilt one; `None` where they cannot be compared."""
        model = self._model_of(score.version)
        names = self._engine.names
        same_names = score.features is not None and score.features.keys() == set(names)
        if model is None and not same_names:
            return None
        if count := len(self._engine.entities):
            # Of all partitions' events, and this is one partition: they are taken as they were published.
            if score.features is None or not same_names:
                return None
            vector = np.r_[vector[:-count], [score.features[name] for name in names[-count:]]]
        values: dict[str, tuple[Any, Any]] = {}
        if model is not None:
            key = (score.version, vector.tobytes())
            proba = self._proba.get(key)
            if proba is None:
                proba = float(model.predict_proba(vector[np.newaxis])[0])
            if score.score != proba:
                values["score"] = (score.score, proba)
        if score.anomaly is not None and (unusual := self._anomaly_of(score.anomaly[0])) is not None:
            rebuilt_anomaly = float(unusual.score(vector[np.newaxis])[0])
            if score.anomaly[1] != rebuilt_anomaly:
                values["anomaly"] = (score.anomaly[1], rebuilt_anomaly)
        if same_names and score.features is not None:
            for name, rebuilt in zip(names, vector.tolist(), strict=True):
                found = score.features[name]
                # NaN is unknown on both sides; -0.0 is 0.0 in a message.
                if found != rebuilt and not (found != found and rebuilt != rebuilt):
                    values[name] = (_or_none(found), _or_none(rebuilt))
        return values

    def _with_labels(
        self,
        customer_id: str,
        before: History,
        rows: Sequence[int],
        events: Records,
        offsets: Sequence[int],
        expected: Mapping[int, Sequence[Published]],
        X: npt.NDArray[np.float64],
    ) -> None:
        """One customer's events once more, with as few more labels before each as make its score right."""
        self._arena.put(customer_id, before)
        waiting = self._labels[customer_id]
        for row in rows:
            start = self._copy(customer_id)
            for taken in range(len(waiting) + 1):
                self._arena.put(customer_id, start)
                for label in list(waiting)[:taken]:
                    self._put(customer_id, label)
                vector = self._one(customer_id, events[row : row + 1])
                if not any(self._values(score, vector) for score in expected.get(offsets[row], ())):
                    for _ in range(taken):
                        waiting.popleft()
                    break
            else:
                self._arena.put(customer_id, start)
                vector = self._one(customer_id, events[row : row + 1])
            X[row] = vector

    def _one(self, customer_id: str, event: Records) -> npt.NDArray[np.float64]:
        slot = np.array([self._arena.slot(customer_id)], dtype=np.int64)
        features = self._engine.compute_chunk(self._arena, event, slot)
        update_totals(self._arena, event, slot, features)
        vector: npt.NDArray[np.float64] = features.X[0]
        return vector

    def _put(self, customer_id: str, label: _WaitingLabel) -> None:
        if customer_id not in self._arena:
            return
        slot = self._arena.slot(customer_id)
        if label.about_account and self._arena.totals(slot).count == 0:
            return
        put_labels(self._arena, np.array([slot]), label.record, np.array([label.about_account]))

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
            _shown(history),
        )


def retained(records: Records) -> Records:
    """The part of a history that features may look at; a label behind a transaction of the same time."""
    newest = int(newest_arrival(records, 0, len(records)))
    newest_ms = int(records["time_ms"][newest]) if newest >= 0 else 0
    first = int(retained_from(records, 0, len(records), newest_ms, RETENTION_MS, MAX_EVENTS))
    kept: Records = records[first:]
    # Where a label stands among transactions of its millisecond is no feature's business.
    return kept[np.lexsort((kept["kind"], kept["time_ms"]))]


def _differing_records(found: Records, expected: Records) -> dict[str, tuple[Any, Any]]:
    """The first record that differs, field by field; empty where all are equal bit for bit."""
    if found.tobytes() == expected.tobytes():
        return {}
    values: dict[str, tuple[Any, Any]] = {}
    if len(found) != len(expected):
        values["records"] = (len(found), len(expected))
    for i in range(min(len(found), len(expected))):
        if found[i].tobytes() != expected[i].tobytes():
            for name in RECORD.names or ():
                if found[i][name].tobytes() != expected[i][name].tobytes():
                    values[f"record {i} {name}"] = (found[i][name].item(), expected[i][name].item())
            break
    return values or {"records": ("other bytes", "these")}


def _shown(records: Records) -> list[dict[str, Any]]:
    """The newest records as numbers and hashes, as they are stored."""
    names = RECORD.names or ()
    return [
        {name: _or_none(value) for name, value in zip(names, record.tolist(), strict=True)}
        for record in records[-_SHOWN_RECORDS:]
    ]


def _or_none(value: Any) -> Any:
    return None if value != value else value
