"""Streams to score, models to score with, and stores filled with what was scored."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.attributes import attribute_features
from features.codec import HEADER, History, decode, encode
from features.engine import Engine
from features.kernels import DUPLICATE
from features.lifetime import customer_names
from features.ports import Commit, HistoryChange, HistoryStore, Lease, Outcome
from features.record import to_records
from generator.bank import Bank
from generator.settings import BankSettings
from models import messages
from models.anomaly import ANOMALY, train_anomaly
from models.churn import (
    ChurnRows,
    customers_as_of,
    default_cut_offs,
    end_of,
    joined,
    train_churn,
)
from models.churn_scores import ChurnResult
from models.fraud_data import FraudData, Times, vectors_of
from models.fraud_training import memory_of, train_fraud
from models.log_rows import rows_of_messages
from models.model_set import Models
from models.pipeline import Events, score_chunk
from models.registry import NAMES, ModelRegistry
from models.tree import TreeModel
from schemas.label import Label
from schemas.parse import dump
from schemas.transaction import Transaction

HORIZON_DAYS = 21
CREATED_AT = "2026-01-01T00:00:00.000Z"
SCORED_AT = "2026-01-02T00:00:00.000Z"
START = datetime(2025, 9, 1, tzinfo=UTC)
START_DAY = int(START.timestamp()) // 86_400
DAY_MS = 86_400_000
_MODELS: dict[str, type[Transaction | Label]] = {"transactions": Transaction, "labels": Label}


def small_bank() -> list[Transaction | Label]:
    settings = BankSettings(customers=250, days=110, fraud_rate=0.4, churn_rate=0.4, seed=3, start=START)
    return [
        _MODELS[event.topic].model_validate(event.message)
        for event in Bank(settings).events()
        if event.topic in _MODELS
    ]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a log teaches about fraud and about churn."""

    fraud: FraudData
    churn: ChurnRows

    @property
    def X(self) -> npt.NDArray[np.float32]:
        return self.fraud.X

    @property
    def time_ms(self) -> Times:
        return self.fraud.time_ms

    @property
    def churn_X(self) -> npt.NDArray[np.float32]:
        return self.churn.X

    @property
    def churn_as_of_ms(self) -> Times:
        return self.churn.as_of_ms


def replayed(stream: Iterable[Transaction | Label], engine: Engine) -> TrainingData:
    rows = rows_of_messages(stream, engine)
    horizon_ms, end_ms = HORIZON_DAYS * DAY_MS, end_of(rows)
    parts = customers_as_of(
        rows,
        engine,
        default_cut_offs(int(rows.time_ms[0]), end_ms, horizon_ms),
        horizon_ms=horizon_ms,
        end_ms=end_ms,
    )
    churn = joined(list(parts), len(customer_names(engine)))
    return TrainingData(vectors_of(rows.frauds_only(), engine), churn)


def trained(data: TrainingData, engine: Engine, root: Path) -> ModelRegistry:
    registry = ModelRegistry(root)
    fraud = train_fraud(data.fraud, engine, created_at=CREATED_AT, source="small bank", rounds=100)
    registry.save(*fraud, memory_of(data.fraud))
    registry.save(*train_churn(data.churn, engine, created_at=CREATED_AT, horizon_days=HORIZON_DAYS))
    registry.save(*train_anomaly(data.X, engine, created_at=CREATED_AT, alert_share=0.005))
    for name in (*NAMES, ANOMALY):
        registry.promote(name, "v1")
    return registry


def attributed(stream: Sequence[Transaction | Label]) -> Models:
    """Models that read a risk, which is high where a transaction is fraud, and the balance after."""
    random = np.random.default_rng(1)
    frauds = {m.transaction_id for m in stream if isinstance(m, Label) and m.label == "fraud"}
    told: list[Transaction | Label] = []
    for message in stream:
        if isinstance(message, Transaction):
            risk = random.normal(3.0 if message.transaction_id in frauds else 0.0)
            message = message.model_copy(update={"attributes": {"risk": risk}})
        told.append(message)
    engine = Engine(attributes=attribute_features("risk,balance_after"))
    data = replayed(told, engine)
    fraud = train_fraud(data.fraud, engine, created_at=CREATED_AT, rounds=60)
    churn = train_churn(data.churn, engine, created_at=CREATED_AT, horizon_days=HORIZON_DAYS)
    return Models(engine, TreeModel(*fraud, engine.names), TreeModel(*churn, customer_names(engine)))


def eager(models: Models, data: TrainingData) -> Models:
    """The same trees with thresholds so low that every decision and band occurs."""
    parts = []
    for model, X, names, shares in (
        (models.fraud, data.X, ("review", "block"), (0.96, 0.99)),
        (models.churn, data.churn_X, ("medium", "high"), (0.6, 0.85)),
    ):
        found = np.quantile(model.predict_proba(X.astype(np.float64)), shares)
        card = replace(model.card, thresholds=dict(zip(names, found.tolist(), strict=True)))
        parts.append(TreeModel(card, model.trees, customer_names(models.engine)))
    return Models(models.engine, *parts, anomaly=models.anomaly)


def arena_of(*customers: str) -> HistoryArena:
    """An arena in which these customers have empty histories."""
    arena = HistoryArena()
    for customer in customers:
        arena.put(customer, History.empty())
    return arena


def transactions_of(stream: Iterable[Transaction | Label], customers: int) -> list[Transaction]:
    """Transactions of the first so many customers, in order."""
    found = [m for m in stream if isinstance(m, Transaction)]
    chosen = set(sorted({t.customer_id for t in found})[:customers])
    return [t for t in found if t.customer_id in chosen]


def events(transactions: Sequence[Transaction]) -> Events:
    return Events(transactions, to_records(transactions, [t.amount_minor for t in transactions]))


def at(day: float, **fields: Any) -> Transaction:
    """A transaction so many days after `START`, with what a message must have."""
    time_ms = int(START.timestamp() * 1000 + day * DAY_MS)
    needed = {
        "transaction_id": f"t-{fields.get('customer_id', 'c-1')}-{time_ms}",
        "customer_id": "c-1",
        "event_time": time_ms,
        "amount": "12.50",
        "currency": "EUR",
    }
    return Transaction.model_validate(needed | fields)


def corrected(transaction: Transaction, revision: int, **changes: Any) -> Transaction:
    """The same transaction in a later version."""
    return transaction.model_copy(update={"revision": revision, **changes})


@dataclass
class Scored:
    """What came of a stream, whatever the chunks it was cut into."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    vectors: list[list[float]] = field(default_factory=list)
    reasons: list[Any] = field(default_factory=list)
    churn: dict[str, list[ChurnResult]] = field(default_factory=dict)
    histories: dict[str, bytes] = field(default_factory=dict)


def score_in_chunks(transactions: Sequence[Transaction], sizes: Iterable[int], models: Models) -> Scored:
    """Score a stream that starts with empty histories, cut into chunks of these sizes; the rest is one."""
    arena, scored, start = HistoryArena(), Scored(), 0
    for size in [*sizes, len(transactions)]:
        chunk = transactions[start : start + size]
        start += size
        for customer_id in arena.missing(t.customer_id for t in chunk):
            arena.put(customer_id, History.empty())
        result = score_chunk(arena, events(chunk), models)
        scored.rows += zip(
            [t.transaction_id for t in chunk],
            [None if proba != proba else proba for proba in result.fraud.tolist()],
            result.decisions.tolist(),
            result.features.status.tolist(),
            result.features.flags.tolist(),
            strict=True,
        )
        scored.vectors += result.features.X.tolist()
        scored.reasons += [result.reasons.get(row) for row in range(len(chunk))]
        for churn in result.churn:
            scored.churn.setdefault(churn.customer_id, []).append(churn)
    for customer_id in dict.fromkeys(t.customer_id for t in transactions):
        slot = arena.slot(customer_id)
        arena.prune(slot)
        scored.histories[customer_id] = encode(History(arena.totals(slot), arena.records(slot)))
    return scored


async def fill(
    store: HistoryStore, lease: Lease, transactions: Sequence[Transaction], models: Models
) -> list[dict[str, Any]]:
    """Score transactions as one chunk and make it part of the store, as the worker does.

    Returns:
        The fraud scores that the worker would publish, in order.
    """
    customers = list(dict.fromkeys(t.customer_id for t in transactions))
    arena = HistoryArena()
    stored = await store.load(lease.partition, customers)
    for customer_id, history in zip(customers, stored, strict=True):
        arena.put(customer_id, decode(history))
    chunk = events(transactions)
    result = score_chunk(arena, chunk, models)
    offset = lease.next_offsets.get("transactions", 0)
    published: list[dict[str, Any]] = []
    newest: dict[str, list[bytes]] = {}
    for row, transaction in enumerate(transactions):
        if result.features.status[row] == DUPLICATE:
            continue
        source = {"topic": "transactions", "partition": lease.partition, "offset": offset + row}
        score = messages.fraud_score(chunk, result, row, models, scored_at=SCORED_AT, source=source)
        published.append(score)
        newest.setdefault(transaction.customer_id, []).append(dump(score))
    changes = []
    for customer_id, history in zip(customers, stored, strict=True):
        slot = arena.slot(customer_id)
        live = encode(History(arena.totals(slot), arena.records(slot)))
        size = HEADER.itemsize
        last = int(arena.records(slot)["time_ms"][-1])
        changes.append(
            HistoryChange(customer_id, len(history or b""), live[:size], live[size:], last, replaced=True)
        )
    churn = {
        c.customer_id: dump(messages.churn_score(c, models, scored_at=SCORED_AT, trigger="event"))
        for c in result.churn
    }
    expected = lease.next_offsets.get("transactions")
    watermark = int(np.max(chunk.records["time_ms"]))
    commit = Commit(
        "transactions", expected, offset + len(transactions), changes, newest, churn, watermark_ms=watermark
    )
    outcome = await store.apply(lease, commit)
    assert outcome is Outcome.APPLIED
    lease.next_offsets["transactions"] = commit.next_offset
    return published


def rewrite(file: Path, **changes: Any) -> None:
    """Change a JSON file of a registry by hand."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
