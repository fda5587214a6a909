"""Drift of features and scores against what the models in use were trained on, and live calibration."""

from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge

from infra.deferred import OnScrape
from models.drift import CALIBRATION_NAMES, DriftWindow, Reference, calibration_bin
from models.model_set import Models

LOOKED_AT_EVERY: Final = 16
"""Of so many vectors that are scored one is looked at."""
_VECTORS: Final = 2_500
_FEWEST: Final = 256
"""Vectors before an index of features is shown: of less it is noise."""
_SCORES: Final = 20_000


class DriftMetrics:
    """Shows indices of the newest tens of thousands of events.

    Values are counted and indices worked out when they are asked for.

    Args:
        registry: Where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        OnScrape(self._show, registry)
        # Scrapes come on a thread of their own.
        self._lock = Lock()
        self._feature_psi = Gauge(
            "tidegate_feature_psi",
            "Population stability index of a feature of the fraud model, newest events against training.",
            ["feature"],
            registry=registry,
        )
        self._score_psi = Gauge(
            "tidegate_score_psi",
            "Population stability index of the champion's scores, newest scores against training.",
            ["name"],
            registry=registry,
        )
        self._expected = Counter(
            "tidegate_fraud_expected_total",
            "Sum of the fraud probabilities given out, by their size: as many frauds are to be expected.",
            ["score"],
            registry=registry,
        )
        self._observed = Counter(
            "tidegate_fraud_observed_total",
            "Fraud labels that came, by the probability that the model in use gives the transaction.",
            ["score"],
            registry=registry,
        )
        for name in CALIBRATION_NAMES:
            self._expected.labels(name)
            self._observed.labels(name)
        self._columns: list[int] = []
        self._features = DriftWindow({}, _VECTORS)
        self._scores: dict[str, DriftWindow] = {}

    def use(self, models: Models) -> None:
        """Compare with what these models were trained on, from nothing."""
        reference = Reference(models.fraud.card)
        position = {name: number for number, name in enumerate(models.engine.names)}
        with self._lock:
            self._feature_psi.clear()
            self._score_psi.clear()
            self._columns = [position[name] for name in reference.features]
            self._features = DriftWindow(reference.features, _VECTORS)
            self._scores = {
                card.name: DriftWindow({"score": bins}, _SCORES)
                for card in (models.fraud.card, models.churn.card)
                if (bins := Reference(card).score) is not None
            }

    def vectors(self, sample: npt.NDArray[np.float64]) -> None:
        """Transactions were scored: one in `LOOKED_AT_EVERY` of their vectors."""
        with self._lock:
            self._features.add(sample[:, self._columns])

    def scored(self, proba: npt.NDArray[np.float64]) -> None:
        """Transactions were scored: their probabilities."""
        if not len(proba):
            return
        for name, value in zip(CALIBRATION_NAMES, _sums(proba), strict=True):
            self._expected.labels(name).inc(value)
        self._add_scores("fraud", proba)

    def churn(self, proba: npt.NDArray[np.float64]) -> None:
        """Customers were rescored."""
        self._add_scores("churn", proba)

    def fraud_label(self, proba: float) -> None:
        """A transaction turned out to be fraud; what the model in use gives it."""
        self._observed.labels(CALIBRATION_NAMES[int(calibration_bin(np.array([proba]))[0])]).inc()

    def _add_scores(self, name: str, proba: npt.NDArray[np.float64]) -> None:
        with self._lock:
            if (window := self._scores.get(name)) is not None:
                window.add(proba[:, np.newaxis])

    def _show(self) -> None:
        with self._lock:
            features = self._features
            vectors = features.newest() if features.rows >= _FEWEST else []
            scores = {name: (window, window.newest()) for name, window in self._scores.items() if window.rows}
        # Not under the lock: whoever scores would wait for it.
        feature_psi = features.psi(vectors) if vectors else {}
        score_psi = {name: window.psi(newest)["score"] for name, (window, newest) in scores.items()}
        with self._lock:
            if self._features is not features:
                # Other models were put into use meanwhile: it is not about them.
                return
            for feature, value in feature_psi.items():
                self._feature_psi.labels(feature).set(value)
            for name, value in score_psi.items():
                self._score_psi.labels(name).set(value)


def _sums(proba: npt.NDArray[np.float64]) -> list[float]:
    sums: list[float] = np.bincount(
        calibration_bin(proba), weights=proba, minlength=len(CALIBRATION_NAMES)
    ).tolist()
    return sums
