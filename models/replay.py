"""History replayed through the engine: the only way training data is made."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from features import kernels
from features.arena import HistoryArena
from features.attributes import attribute_values
from features.codes import transaction_hash
from features.definitions import DAY_MS
from features.engine import ChunkFeatures, Engine
from features.lifetime import customer_names, customer_vector
from features.record import label_record, to_records
from features.tiles import Entities, find_fraud
from models.churn import ChurnRows
from models.vectors import compute_vectors, may_leave
from schemas.label import Label
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

_CHUNK = 2000


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Vectors of a replayed history and what became of them.

    Attributes:
        X: `(n, n_features)` as float32, columns in declaration order, one row per transaction.
        time_ms: `(n,)` event times.
        transaction_ids: `n` ids.
        fraud_known_ms: Time at which a transaction's fraud became known, by id.
        churn_X: `(m, n_columns)`, customers as of cut-off days, columns of `features.lifetime`.
        churn_as_of_ms: `(m,)`.
        churned: `(m,)` whether no transaction followed within the horizon, or the account was closed in it.
        churn_customers: `m` ids.
        end_ms: Newest event time: what was not known by then is not used.
    """

    X: npt.NDArray[np.float32]
    time_ms: npt.NDArray[np.int64]
    transaction_ids: list[str]
    fraud_known_ms: dict[str, int]
    churn_X: npt.NDArray[np.float32]
    churn_as_of_ms: npt.NDArray[np.int64]
    churned: npt.NDArray[np.bool_]
    churn_customers: list[str]
    end_ms: int

    @property
    def churn_rows(self) -> ChurnRows:
        """What the churn model learns from."""
        outcome = self.churned.astype(np.int8)
        return ChurnRows(self.churn_customers, self.churn_as_of_ms, self.churn_X, outcome)


@dataclass(slots=True)
class _Snapshots:
    """Customers as of cut-off days, taken while the replay passes them."""

    horizon_ms: int
    rows: list[npt.NDArray[np.float32]] = field(default_factory=list)
    customers: list[str] = field(default_factory=list)
    as_of_ms: list[int] = field(default_factory=list)
    times: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    closed: dict[str, int] = field(default_factory=dict)

    def take(self, arena: HistoryArena, engine: Engine, as_of_ms: int) -> None:
        """Snapshot of everybody not yet silent for long: who is gone for certain teaches nothing."""
        for customer_id, times in self.times.items():
            before = bisect_left(times, as_of_ms)
            if self.closed.get(customer_id, as_of_ms) < as_of_ms:
                continue
            if before and times[before - 1] >= as_of_ms - 3 * self.horizon_ms // 2:
                slot = arena.slot(customer_id)
                vector = customer_vector(engine, arena.records(slot), arena.totals(slot), as_of_ms)
                self.rows.append(vector.astype(np.float32))
                self.customers.append(customer_id)
                self.as_of_ms.append(as_of_ms)

    def churned(self, end_ms: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Rows whose horizon is over by the end, and whether nothing happened in it."""
        rows = [i for i, as_of in enumerate(self.as_of_ms) if as_of + self.horizon_ms <= end_ms]
        gone = []
        for i in rows:
            times, as_of = self.times[self.customers[i]], self.as_of_ms[i]
            following = bisect_left(times, as_of)
            upto = as_of + self.horizon_ms
            closed = self.closed.get(self.customers[i], upto) < upto
            gone.append(closed or following == len(times) or times[following] >= upto)
        return np.array(rows, dtype=np.intp), np.array(gone, dtype=np.bool_)


def replay_chunks(
    messages: Iterable[Transaction | WireTransaction | Label],
    engine: Engine,
    arena: HistoryArena,
    entities: Entities | None = None,
) -> Iterator[tuple[list[Transaction | WireTransaction], ChunkFeatures]]:
    """Vectors of transactions in their order, chunk by chunk, as the worker computes them.

    Args:
        messages: Transactions in the order of the log, and labels behind what they are about. A label that
            comes early counts from its own time.
        engine: The engine.
        arena: Holds the histories; customers not in it start empty.
        entities: Merchants, devices and so on, where the engine declares features of them; those not in it
            start empty.
    """
    if engine.entities and entities is None:
        raise ValueError("the engine declares features of entities, and none are given")
    labelled: set[str] = set()
    chunk: list[Transaction | WireTransaction] = []
    waiting: set[str] = set()
    newest: dict[str, int] = {}
    for message in messages:
        if not isinstance(message, Label):
            chunk.append(message)
            waiting.add(message.transaction_id)
            newest[message.customer_id] = max(
                message.event_time_ms, newest.get(message.customer_id, message.event_time_ms)
            )
            if len(chunk) == _CHUNK:
                yield chunk, _vectors(chunk, engine, arena, entities)
                chunk, waiting, newest = [], set(), {}
        elif entities is not None and message.label == "fraud" and message.transaction_id not in labelled:
            if message.transaction_id in waiting or _may_leave(message, arena, newest, len(chunk)):
                yield chunk, _vectors(chunk, engine, arena, entities)
                chunk, waiting, newest = [], set(), {}
            if _note(message, arena, entities):
                labelled.add(str(message.transaction_id))
    if chunk:
        yield chunk, _vectors(chunk, engine, arena, entities)


def _vectors(
    chunk: list[Transaction | WireTransaction], engine: Engine, arena: HistoryArena, entities: Entities | None
) -> ChunkFeatures:
    records = to_records(chunk, [t.amount_minor for t in chunk])
    values = attribute_values(engine.attributes, chunk)
    return compute_vectors([t.customer_id for t in chunk], records, engine, arena, entities, values)


def _may_leave(label: Label, arena: HistoryArena, newest: Mapping[str, int], more: int) -> bool:
    """Whether a history may lose what a label is about with the transactions that wait in front of it."""
    customer_id = label.customer_id
    if label.transaction_id is None or customer_id not in newest or customer_id not in arena:
        return False
    transaction = transaction_hash(label.transaction_id)
    return may_leave(arena, customer_id, transaction, newest[customer_id], more)


def _note(label: Label, arena: HistoryArena, entities: Entities) -> bool:
    """Tell entities of a fraud; false where the customer's history has no such transaction."""
    if label.customer_id not in arena:
        return False
    fraud = find_fraud(arena.kept(arena.slot(label.customer_id)), label_record(label))
    if fraud is not None:
        entities.add(entities.frauds([fraud]))
    return fraud is not None


def replay_for_training(
    messages: Iterable[Transaction | WireTransaction | Label],
    engine: Engine,
    *,
    horizon_days: int = 30,
    snapshot_days: int = 7,
) -> TrainingData:
    """Replay a history once and keep what fraud and churn training need.

    Args:
        messages: Transactions and labels in time order.
        engine: The engine.
        horizon_days: No transaction for as long as this means that a customer has left.
        snapshot_days: Distance of the days on which customers are looked at for churn.
    """
    arena = HistoryArena(max_records=1 << 62)
    frauds: dict[str, int] = {}
    snapshots = _Snapshots(horizon_days * DAY_MS)
    blocks: list[npt.NDArray[np.float32]] = []
    times: list[npt.NDArray[np.int64]] = []
    ids: list[str] = []
    next_day: int | None = None

    entities = Entities(engine.entities) if engine.entities else None
    today = 0

    def day_of(message: Transaction | WireTransaction | Label) -> int:
        nonlocal today
        if not isinstance(message, Label):
            today = message.event_time_ms // DAY_MS
        elif message.label == "fraud" and message.transaction_id is not None:
            frauds.setdefault(message.transaction_id, message.label_time_ms)
        elif message.label == "account_closed":
            snapshots.closed.setdefault(message.customer_id, message.label_time_ms)
        return today

    for day, of_day in groupby(messages, day_of):
        next_day = next_day or day + horizon_days
        # Before the day's first event: a snapshot must not know what came after it, not even by what
        # the arena has let go of since.
        while day >= next_day:
            snapshots.take(arena, engine, next_day * DAY_MS)
            next_day += snapshot_days
        for chunk, features in replay_chunks(of_day, engine, arena, entities):
            kept = np.flatnonzero(features.status == kernels.ACCEPTED)
            blocks.append(features.X[kept].astype(np.float32))
            chunk_times = np.array([t.event_time_ms for t in chunk], dtype=np.int64)
            times.append(chunk_times[kept])
            ids.extend(chunk[i].transaction_id for i in kept.tolist())
            for row in kept.tolist():
                transaction = chunk[row]
                snapshots.times[transaction.customer_id].append(int(chunk_times[row]))
                slot = arena.slot(transaction.customer_id)
                totals = arena.totals(slot)
                arena.set_totals(
                    slot,
                    totals.plus_one(int(chunk_times[row]), transaction.amount_minor, transaction.is_credit),
                )

    width, churn_width = len(engine.names), len(customer_names(engine))
    all_times = np.concatenate(times) if times else np.empty(0, dtype=np.int64)
    end_ms = int(all_times.max(initial=0))
    rows, churned = snapshots.churned(end_ms)
    churn_X = np.stack(snapshots.rows) if snapshots.rows else np.empty((0, churn_width), dtype=np.float32)
    return TrainingData(
        np.concatenate(blocks) if blocks else np.empty((0, width), dtype=np.float32),
        all_times,
        ids,
        frauds,
        churn_X[rows],
        np.array(snapshots.as_of_ms, dtype=np.int64)[rows],
        churned,
        [snapshots.customers[i] for i in rows.tolist()],
        end_ms,
    )
