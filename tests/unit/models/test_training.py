from dataclasses import replace

import numpy as np
import pytest

from models.training import train_churn
from schemas.errors import ModelError
from tests.scoring import CREATED_AT, DAY_MS, HORIZON_DAYS, replayed


def test_churn_is_learned_before_and_measured_after_a_gap_of_the_horizon(models, training_data):
    card, times = models.churn.card, training_data.churn_as_of_ms
    assert card.horizon_days == HORIZON_DAYS
    assert card.data["rows"] == len(times)
    assert card.metrics["rows"] == (times >= np.quantile(times, 0.7)).sum()
    assert card.metrics["roc_auc"] > 0.8
    assert set(card.thresholds) == {"medium", "high"}


def test_rows_between_learning_and_measuring_change_no_churn_tree(models, training_data, engine):
    times = training_data.churn_as_of_ms
    split = np.quantile(times, 0.7)
    gap = (times > split - HORIZON_DAYS * DAY_MS) & (times < split)
    assert gap.sum() > 100
    flipped = replace(training_data, churned=np.where(gap, ~training_data.churned, training_data.churned))
    _, trees = train_churn(flipped, engine, created_at=CREATED_AT, horizon_days=HORIZON_DAYS)
    assert trees == models.churn.trees


def test_no_history_is_too_little(engine):
    with pytest.raises(
        ModelError, match="has 0 positive and 0 negative rows to learn from; it needs 20 of each"
    ):
        train_churn(replayed([], engine), engine, created_at=CREATED_AT)


def test_too_few_who_stay_are_too_few(training_data, engine):
    all_left = replace(training_data, churned=np.ones_like(training_data.churned))
    with pytest.raises(ModelError, match=r"the churn model has .* and 0 negative rows to learn from"):
        train_churn(all_left, engine, created_at=CREATED_AT)
