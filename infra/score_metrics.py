"""Prometheus metrics of events and their scores. No label ever names a customer."""

import time
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.samples import Exemplar

from features.engine import ChunkFeatures
from features.kernels import ACCEPTED, DUPLICATE, FLAG_LATE
from infra.bulk_histogram import BulkCounter, BulkHistogram
from infra.deferred import Deferred
from infra.drift_metrics import LOOKED_AT_EVERY, DriftMetrics
from models.churn_scores import BANDS, ChurnResults
from models.model_set import Models
from models.pipeline import DECISIONS, Events, ScoredChunk

_LATENCY_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)
_PROBA = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Shown as zeros from the first scrape on: a rate does not see what a series begins with.
_KNOWN_OUTCOMES = ("scored", "late", "duplicate", "forwarded", "labelled", "swept", "profiled")

_COUNTED_AT_ONCE = 16_000
"""Scored events."""


class _Scored(NamedTuple):
    """What is counted of `n` scored events."""

    status: npt.NDArray[np.int8]
    flags: npt.NDArray[np.int8]
    fraud: npt.NDArray[np.float64]
    decisions: npt.NDArray[np.int8]


class _Waiting(NamedTuple):
    """Scored events that wait to be counted.

    Attributes:
        sample: `(m, n_features)` vectors of some of those accepted.
        published_ms: `(n,)` when the broker had each; 0 where nobody said.
        traced: Row of one and the trace it is part of.
        alerted: Of each with reasons the decision, currency, amount and first feature.
    """

    scored: _Scored
    sample: npt.NDArray[np.float64]
    published_ms: npt.NDArray[np.float64]
    scored_ms: float
    traced: tuple[int, str] | None
    alerted: list[tuple[int, str, float, str]]


class ScoreMetrics:
    """What became of events: outcomes, fraud and churn scores, decisions, alerts and drift.

    Args:
        registry: Where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        r = registry
        # Before all that they count in.
        self._scored = Deferred(self._count_scored, _COUNTED_AT_ONCE, r)
        self._rescored = Deferred(self._count_churn, _COUNTED_AT_ONCE, r)
        self._drift = DriftMetrics(r)
        self._latency = BulkHistogram(
            "tidegate_event_latency_seconds",
            "From the broker's timestamp of a transaction to its score being published and its state kept.",
            _LATENCY_S,
            r,
        )
        self._outcomes = Counter(
            "tidegate_events_total",
            "Events by what became of them: transactions scored, late, duplicate, forwarded; "
            "labels labelled; customers swept, profiled. A late one is a scored one too.",
            ["outcome"],
            registry=r,
        )
        self._labels = Counter(
            "tidegate_labels_total",
            "Labels put into histories, with what the model in use decides of the labelled transaction: "
            "allow, review, block; none where a label names no transaction.",
            ["label", "decision"],
            registry=r,
        )
        self._decisions = Counter(
            "tidegate_fraud_decisions_total", "Fraud scores by decision.", ["decision"], registry=r
        )
        self._amount = Counter(
            "tidegate_fraud_alerted_amount_total",
            "Sum of the amounts of transactions to review or block, in units of the currency.",
            ["decision", "currency"],
            registry=r,
        )
        self._reasons = Counter(
            "tidegate_fraud_reasons_total",
            "Fraud alerts by the feature of their first reason.",
            ["feature"],
            registry=r,
        )
        self._alerts = Counter("tidegate_alerts_total", "Alerts.", ["kind", "severity"], registry=r)
        self._fraud = BulkHistogram("tidegate_fraud_score", "Fraud scores.", _PROBA, r)
        self._churn = BulkHistogram("tidegate_churn_probability", "Churn probabilities.", _PROBA, r)
        self._bands = Counter(
            "tidegate_churn_scores_total",
            "Churn scores by band and by what made them: event, sweep.",
            ["band", "trigger"],
            registry=r,
        )
        self._moves = Counter(
            "tidegate_churn_moves_total", "Customers who changed band.", ["before", "after"], registry=r
        )
        self._at_risk = Counter(
            "tidegate_churn_value_at_risk_total",
            "Sum of value at risk over churn scores, by band: a customer counts once a day.",
            ["band"],
            registry=r,
        )
        self._vectors = Counter(
            "tidegate_feature_vectors_total",
            "Feature vectors looked at for what is unknown and for drift: every sixteenth that is scored.",
            registry=r,
        )
        self._unknown = BulkCounter(
            "tidegate_feature_unknown",
            "Vectors, of those looked at, in which a feature is unknown.",
            "feature",
            r,
        )
        self._vectors_seen = 0
        for outcome in _KNOWN_OUTCOMES:
            self._outcomes.labels(outcome)
        for decision in DECISIONS:
            self._decisions.labels(decision)
        for band in BANDS:
            self._at_risk.labels(band)
        for label, decision in product(("fraud", "genuine"), DECISIONS):
            self._labels.labels(label, decision)
        for decision in DECISIONS[1:]:
            self._alerts.labels("fraud", decision)
        for before, after in permutations(BANDS, 2):
            self._moves.labels(before, after)
        for band, trigger in product(BANDS, ("event", "sweep")):
            self._bands.labels(band, trigger)
        for band in BANDS[1:]:
            self._alerts.labels("churn", band)
        self._alerts.labels("anomaly", "review")

    def use(self, models: Models) -> None:
        """Compare with what these models were trained on, and count which of their features are unknown."""
        self._drift.use(models)
        self._unknown.use(models.engine.names)

    def models_taken(self, models: Models) -> None:
        """Another set of models is in use; what waits was scored by the one before."""
        self._scored.flush()
        self._rescored.flush()
        self._drift.use(models)

    def outcome(self, name: str, count: int = 1) -> None:
        """Events ended in some way."""
        if count:
            self._outcomes.labels(name).inc(count)

    def label(self, name: str, decision: str, proba: float | None = None) -> None:
        """A label was put into a history; what the model in use says of its transaction."""
        self._labels.labels(name, decision).inc()
        if name == "fraud" and proba is not None:
            self._drift.fraud_label(proba)

    def scored(
        self,
        events: Events,
        chunk: ScoredChunk,
        published_ms: Sequence[int],
        traced: tuple[int, str] | None = None,
    ) -> None:
        """Transactions were scored and are part of the state; of one, its row and the trace it is part of."""
        features, decisions, transactions = chunk.features, chunk.decisions, events.transactions
        waiting = _Waiting(
            _Scored(features.status, features.flags, chunk.fraud, decisions),
            self._sample(features),
            # Of integers to floats by way of integers: a third of the time.
            np.fromiter(published_ms, np.int64, len(published_ms)).astype(np.float64),
            time.time() * 1000,
            traced,
            [
                (
                    int(decisions[row]),
                    transactions[row].currency,
                    float(transactions[row].amount),
                    reasons[0]["feature"] if reasons else "",
                )
                for row, reasons in chunk.reasons.items()
            ],
        )
        self._scored.add(waiting, len(published_ms))
        if unusual := sum(not decisions[row] for row in chunk.unusual):
            self._alerts.labels("anomaly", "review").inc(unusual)

    def _sample(self, features: ChunkFeatures) -> npt.NDArray[np.float64]:
        """One vector of `LOOKED_AT_EVERY`; a copy, since a view would keep all in memory."""
        rows = slice(-self._vectors_seen % LOOKED_AT_EVERY, None, LOOKED_AT_EVERY)
        self._vectors_seen += len(features.X)
        sample: npt.NDArray[np.float64] = features.X[rows][features.status[rows] == ACCEPTED]
        return sample

    def _count_scored(self, chunks: list[_Waiting]) -> None:
        all_of = _Scored(*map(np.concatenate, zip(*(chunk.scored for chunk in chunks), strict=True)))
        self.outcome("late", int(np.count_nonzero(all_of.flags & FLAG_LATE)))
        self.outcome("duplicate", int(np.count_nonzero(all_of.status == DUPLICATE)))
        accepted = all_of.status == ACCEPTED
        self._count_latency(chunks, accepted)
        if not accepted.all():
            all_of = _Scored(*(column[accepted] for column in all_of))
        count = len(all_of.fraud)
        self.outcome("scored", count)
        self._fraud.observe(all_of.fraud)
        self._drift.scored(all_of.fraud)
        sample = np.concatenate([chunk.sample for chunk in chunks])
        self._drift.vectors(sample)
        self._vectors.inc(len(sample))
        # A product of matrices: summing booleans along an axis takes ten times as long.
        unknown = np.ones(len(sample), dtype=np.float32) @ np.isnan(sample)
        self._unknown.inc(unknown.astype(np.int64))
        for decision, times in enumerate(np.bincount(all_of.decisions, minlength=len(DECISIONS))):
            if times:
                self._decisions.labels(DECISIONS[decision]).inc(int(times))
            if times and decision:
                self._alerts.labels("fraud", DECISIONS[decision]).inc(int(times))

        self._count_alerted([alerted for chunk in chunks for alerted in chunk.alerted])

    def _count_alerted(self, alerted: list[tuple[int, str, float, str]]) -> None:
        amounts: defaultdict[tuple[int, str], float] = defaultdict(float)
        for decision, currency, amount, _ in alerted:
            amounts[decision, currency] += amount
        for (decision, currency), total in amounts.items():
            self._amount.labels(DECISIONS[decision], currency).inc(total)
        for feature, times in Count(feature for *_, feature in alerted if feature).items():
            self._reasons.labels(feature).inc(times)

    def _count_latency(self, chunks: list[_Waiting], accepted: npt.NDArray[np.bool_]) -> None:
        sizes = [len(chunk.published_ms) for chunk in chunks]
        published_ms = np.concatenate([chunk.published_ms for chunk in chunks])
        latency_s = (np.repeat([chunk.scored_ms for chunk in chunks], sizes) - published_ms) / 1000
        # Where the broker's clock is ahead the difference is below zero, and a sum must not fall.
        self._latency.observe(np.maximum(latency_s[accepted & (published_ms > 0)], 0.0))
        for chunk in chunks:
            if chunk.traced is None:
                continue
            row, trace_id = chunk.traced
            if chunk.published_ms[row] and chunk.scored.status[row] == ACCEPTED:
                seconds = max((chunk.scored_ms - chunk.published_ms[row]) / 1000, 0.0)
                self._latency.show(Exemplar({"trace_id": trace_id}, seconds, chunk.scored_ms / 1000))

    def churn(self, results: ChurnResults, trigger: str) -> None:
        """Customers were rescored for churn."""
        if results:
            self._rescored.add((results.numbers, trigger), len(results))

    def _count_churn(self, batches: list[tuple[npt.NDArray[np.float64], str]]) -> None:
        for trigger in {trigger for _, trigger in batches}:
            values = np.concatenate([rows for rows, why in batches if why == trigger])
            self._count_rescored(values, trigger)

    def _count_rescored(self, values: npt.NDArray[np.float64], trigger: str) -> None:
        probas, at_risk = values[:, 0], values[:, 1]
        bands, before_all = values[:, 2:].T.astype(np.int64)
        self._churn.observe(probas)
        self._drift.churn(probas)
        risks = np.bincount(bands, weights=np.maximum(at_risk, 0.0), minlength=len(BANDS))
        for band, value in enumerate(risks.tolist()):
            self._at_risk.labels(BANDS[band]).inc(value)
        moves = np.bincount(bands * len(BANDS) + np.maximum(before_all, 0))
        for move in np.flatnonzero(moves).tolist():
            (after, before), count = divmod(move, len(BANDS)), int(moves[move])
            band_name = BANDS[after]
            self._bands.labels(band_name, trigger).inc(count)
            if after != before:
                self._moves.labels(BANDS[before], band_name).inc(count)
            if after > before:
                self._alerts.labels("churn", band_name).inc(count)
