import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from infra.drift_metrics import DriftMetrics
from models.drift import MOVED, STABLE


@pytest.fixture
def shown(models):
    registry = CollectorRegistry()
    metrics = DriftMetrics(registry)
    metrics.use(models)
    return metrics, registry


def test_models_know_what_they_learned_from_so_moved_features_show(shown, models, training_data):
    metrics, registry = shown
    X = training_data.X.astype(np.float64)
    moved = models.engine.names.index("amount")
    X[:, moved] *= 100
    for part in np.array_split(X, 20):
        metrics.vectors(part)
    psi = {
        name: registry.get_sample_value("tidegate_feature_psi", {"feature": name})
        for name in models.engine.names
    }
    assert psi["amount"] > MOVED
    assert psi["hour_of_day"] < STABLE
    assert None not in psi.values()


def test_scores_of_training_are_stable_and_their_sum_is_promised(shown, models, training_data):
    metrics, registry = shown
    proba = models.fraud.predict_proba(training_data.X.astype(np.float64))
    metrics.scored(proba)
    assert registry.get_sample_value("tidegate_score_psi", {"name": "fraud"}) < STABLE
    promised = [
        registry.get_sample_value("tidegate_fraud_expected_total", {"score": name})
        for name in ("to 0.01", "to 0.1", "to 0.5", "to 1")
    ]
    assert sum(promised) == pytest.approx(proba.sum())
