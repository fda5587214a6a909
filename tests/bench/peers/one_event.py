"""What one event comes to, as a program that takes one event at a time would write it.

Both peers share this: Tidegate's features by Tidegate's compiled engine, its models, and the same fields in
the scores. A peer with features of its own, in Python, would be slower by far; here only the way in which
events, state and scores travel differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from features.codec import decode, encode_header
from features.definitions import DAY_MS
from features.engine import Engine
from features.lifetime import customer_vector, declared
from features.record import to_records
from models.churn_scores import ACTIONS, BANDS
from models.pipeline import DECISIONS
from models.reasons import by_name, explain
from models.registry import ModelRegistry
from schemas.fields import epoch_ms_to_rfc3339, to_rfc3339
from schemas.parse import dump
from schemas.wire import read_transaction


@dataclass(frozen=True, slots=True)
class Scored:
    """Attributes: what to publish and what to keep. `churn` is `None` but for a customer's first of a day.

    header, record: The customer's history afterwards is `header`, the records before, and `record`.
    """

    customer_id: str
    fraud: bytes
    churn: bytes | None
    header: bytes
    record: bytes


class Scorer:
    """Scores one event at a time."""

    def __init__(self, models: Path) -> None:
        self._models = ModelRegistry(models).load_champions(Engine())
        self._models.engine.warm_up()
        self._features = by_name(declared(self._models.engine))

    def score(self, value: bytes, stored: bytes | None, source: Mapping[str, Any]) -> Scored:
        """Score an event from its customer's stored history; duplicates are not looked for."""
        plain = read_transaction(value)
        assert plain is not None, "the benchmark's messages are plain"
        transaction, amount_minor = plain
        record, time_ms = to_records([transaction], [amount_minor]), transaction.event_time_ms
        history = decode(stored)
        vector = self._models.engine.compute(history.records, record, time_ms)[np.newaxis]
        totals = history.totals.plus(record)
        scored_at = to_rfc3339(datetime.now(UTC))
        fraud = self._fraud(vector) | {
            "schema_version": 1,
            "transaction_id": transaction.transaction_id,
            "customer_id": transaction.customer_id,
            "event_time": epoch_ms_to_rfc3339(time_ms),
            "scored_at": scored_at,
            "source": source,
        }
        churn = None
        if time_ms // DAY_MS > totals.churn_day:
            after = np.concatenate([history.records, record])
            vector = customer_vector(self._models.engine, after, totals, time_ms + 1)
            scored, band = self._churn(vector[np.newaxis])
            totals = totals.rescored(time_ms // DAY_MS, band)
            fields = {
                "schema_version": 1,
                "customer_id": transaction.customer_id,
                "as_of": epoch_ms_to_rfc3339(time_ms + 1),
                "scored_at": scored_at,
            }
            churn = dump(scored | fields)
        return Scored(transaction.customer_id, dump(fraud), churn, encode_header(totals), record.tobytes())

    def _fraud(self, vector: np.ndarray) -> dict[str, Any]:
        model = self._models.fraud
        proba = float(model.predict_proba(vector)[0])
        thresholds = model.card.thresholds
        decision = int(proba >= thresholds["review"]) + int(proba >= thresholds["block"])
        reasons = explain(model, vector, self._features)[0] if decision else ()
        return {
            "score": proba,
            "decision": DECISIONS[decision],
            "reasons": reasons,
            "model": model.reference,
            "flags": [],
        }

    def _churn(self, vector: np.ndarray) -> tuple[dict[str, Any], int]:
        model = self._models.churn
        proba = float(model.predict_proba(vector)[0])
        band = int(proba >= model.card.thresholds["medium"]) + int(proba >= model.card.thresholds["high"])
        fields = {
            "churn_probability": proba,
            "band": BANDS[band],
            "horizon_days": model.card.horizon_days,
            "drivers": explain(model, vector, self._features)[0] if band else (),
            "model": model.reference,
            "recommended_action": ACTIONS[band],
            "trigger": "event",
        }
        return fields, band
