"""Results as the messages that go out. Plain dictionaries: they are made once for every event.

The contract is `schemas.score`; tests validate what is made here against it.
"""

from collections.abc import Sequence
from typing import Any

from features.engine import Matrix
from models.churn_scores import ACTIONS, BANDS, ChurnResult
from models.model_set import Models
from models.pipeline import DECISIONS, Events, ScoredChunk, flag_names
from schemas.fields import SCHEMA_VERSION, epoch_ms_to_rfc3339
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

_Message = dict[str, Any]


def fraud_score(
    events: Events,
    chunk: ScoredChunk,
    row: int,
    models: Models,
    *,
    scored_at: str,
    source: _Message | None,
    with_features: bool = False,
) -> _Message:
    """The `scores.fraud` message of one row."""
    transaction = events.transactions[row]
    message: _Message = {
        "schema_version": SCHEMA_VERSION,
        "transaction_id": transaction.transaction_id,
        "customer_id": transaction.customer_id,
        "event_time": epoch_ms_to_rfc3339(transaction.event_time_ms),
        "scored_at": scored_at,
        "score": float(chunk.fraud[row]),
        "decision": DECISIONS[chunk.decisions[row]],
        "reasons": chunk.reasons.get(row, ()),
        "model": models.fraud_for(transaction.customer_id).reference,
        "flags": flag_names(int(chunk.features.flags[row])),
    }
    if chunk.anomaly is not None and models.anomaly is not None:
        message["anomaly"] = {"score": float(chunk.anomaly[row]), "model": models.anomaly.reference}
    if source is not None:
        message["source"] = source
    if with_features:
        message["features"] = named_features(chunk.features.X[row], models)
    return message


def fraud_alert(events: Events, chunk: ScoredChunk, row: int, models: Models) -> _Message:
    """The alert of a row that is not allowed."""
    transaction = events.transactions[row]
    return _alert(
        transaction,
        kind="fraud",
        severity=DECISIONS[chunk.decisions[row]],
        score=float(chunk.fraud[row]),
        reasons=chunk.reasons.get(row, ()),
        model=models.fraud_for(transaction.customer_id).reference,
    )


def anomaly_alert(events: Events, chunk: ScoredChunk, row: int, models: Models) -> _Message | None:
    """The alert of a row that is allowed but unusual; else `None`."""
    if row not in chunk.unusual or chunk.decisions[row] or chunk.anomaly is None or models.anomaly is None:
        return None
    return _alert(
        events.transactions[row],
        kind="anomaly",
        severity="review",
        score=float(chunk.anomaly[row]),
        reasons=chunk.unusual[row],
        model=models.anomaly.reference,
    )


def _alert(
    transaction: Transaction | WireTransaction,
    *,
    kind: str,
    severity: str,
    score: float,
    reasons: Sequence[_Message],
    model: _Message,
) -> _Message:
    revision = transaction.revision
    return {
        "schema_version": SCHEMA_VERSION,
        "alert_id": f"{kind}:{transaction.transaction_id}" + (f":{revision}" if revision else ""),
        "kind": kind,
        "customer_id": transaction.customer_id,
        "event_time": epoch_ms_to_rfc3339(transaction.event_time_ms),
        "severity": severity,
        "score": score,
        "transaction_id": transaction.transaction_id,
        "amount": float(transaction.amount),
        "currency": transaction.currency,
        "reasons": reasons,
        "model": model,
    }


def churn_score(result: ChurnResult, models: Models, *, scored_at: str, trigger: str) -> _Message:
    """The `scores.churn` message of a result."""
    model = models.churn_for(result.customer_id)
    return {
        "schema_version": SCHEMA_VERSION,
        "customer_id": result.customer_id,
        "as_of": epoch_ms_to_rfc3339(result.as_of_ms),
        "scored_at": scored_at,
        "churn_probability": result.proba,
        "band": BANDS[result.band],
        "horizon_days": model.card.horizon_days,
        "drivers": result.drivers,
        "model": model.reference,
        "value_at_risk": round(result.value_at_risk, 2),
        "recommended_action": ACTIONS[result.band],
        "trigger": trigger,
    }


def churn_alert(result: ChurnResult, models: Models) -> _Message | None:
    """An alert where a customer moved up to the medium or high band; else `None`."""
    if result.band == 0 or result.band <= result.band_before:
        return None
    as_of = epoch_ms_to_rfc3339(result.as_of_ms)
    return {
        "schema_version": SCHEMA_VERSION,
        "alert_id": f"churn:{result.customer_id}:{as_of}",
        "kind": "churn",
        "customer_id": result.customer_id,
        "event_time": as_of,
        "severity": BANDS[result.band],
        "score": result.proba,
        "reasons": result.drivers,
        "model": models.churn_for(result.customer_id).reference,
    }


def fraud_shadows(
    events: Events, chunk: ScoredChunk, row: int, *, scored_at: str, source: _Message | None
) -> list[_Message]:
    """The `scores.shadow` messages of one row."""
    transaction = events.transactions[row]
    return [
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "fraud",
            "customer_id": transaction.customer_id,
            "transaction_id": transaction.transaction_id,
            "as_of": epoch_ms_to_rfc3339(transaction.event_time_ms),
            "scored_at": scored_at,
            "score": shadow.proba,
            "decision": DECISIONS[shadow.decision],
            "model": shadow.model.reference,
            "source": source,
        }
        for shadow in chunk.shadows.get(row, ())
    ]


def churn_shadows(result: ChurnResult, *, scored_at: str) -> list[_Message]:
    """The `scores.shadow` messages of a churn result."""
    return [
        {
            "schema_version": SCHEMA_VERSION,
            "kind": "churn",
            "customer_id": result.customer_id,
            "as_of": epoch_ms_to_rfc3339(result.as_of_ms),
            "scored_at": scored_at,
            "score": shadow.proba,
            "decision": BANDS[shadow.decision],
            "model": shadow.model.reference,
        }
        for shadow in result.shadows
    ]


def named_features(row: Matrix, models: Models) -> dict[str, float | None]:
    """A vector with names; unknown is null."""
    return {n: None if v != v else v for n, v in zip(models.engine.names, row.tolist(), strict=True)}
