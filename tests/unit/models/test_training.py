from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training import _fraud_thresholds, _thin_negatives, train_fraud
from models.tree import TreeModel
from schemas.errors import ModelError
from tests.scoring import CREATED_AT, DAY_MS, replayed

DELAY_DAYS = 7


def known(data):
    """Which rows were known to be fraud by the end."""
    found = [data.fraud_known_ms.get(i) for i in data.transaction_ids]
    return np.array([ms is not None and ms <= data.end_ms for ms in found])


@pytest.fixture(scope="module")
def thin(training_data):
    """All frauds and every eighth of the others: trains in a second."""
    rows = np.flatnonzero(known(training_data) | (np.arange(len(training_data.X)) % 8 == 0))
    return replace(
        training_data,
        X=training_data.X[rows],
        time_ms=training_data.time_ms[rows],
        transaction_ids=[training_data.transaction_ids[i] for i in rows.tolist()],
    )


def train(data, engine, **options):
    return train_fraud(data, engine, created_at=CREATED_AT, label_delay_days=DELAY_DAYS, **options)


@pytest.fixture(scope="module")
def fraud(thin, engine):
    return train(thin, engine)


def test_card_says_what_was_learned_from_what(fraud, thin, engine):
    card, _ = fraud
    assert (card.name, card.version, card.created_at) == ("fraud", "", CREATED_AT)
    assert (card.features_hash, card.feature_names) == (engine.hash, engine.names)
    mature = thin.time_ms < thin.end_ms - DELAY_DAYS * DAY_MS
    assert card.data["rows"] == mature.sum()
    assert card.data["positives"] == known(thin)[mature].sum()
    assert card.data["label_delay_days"] == DELAY_DAYS
    assert card.data["to_ms"] < thin.end_ms - DELAY_DAYS * DAY_MS
    assert 0 < card.thresholds["review"] <= card.thresholds["block"] <= 1
    assert card.metrics["rows"] + 1 < card.data["rows"]
    assert card.metrics["roc_auc"] > 0.8
    assert card.metrics["average_precision"] > 3 * card.metrics["positives"] / card.metrics["rows"]


def test_what_was_not_known_at_the_end_changes_nothing(fraud, thin, engine):
    """Labels that come later, and all labels of the last delay: neither trees nor card look at them."""
    young = set(np.array(thin.transaction_ids)[thin.time_ms >= thin.end_ms - DELAY_DAYS * DAY_MS].tolist())
    later = {i: thin.end_ms + 1 + n for n, i in enumerate(thin.transaction_ids[::3])}
    changed = later | {i: ms for i, ms in thin.fraud_known_ms.items() if i not in young}
    changed |= dict.fromkeys(sorted(young)[::2], thin.end_ms - 1)
    assert len(young) > 100
    assert train(replace(thin, fraud_known_ms=changed), engine) == fraud


def test_what_was_known_at_the_end_changes_the_trees(fraud, thin, engine):
    """The other test would pass as well where labels were not read at all."""
    frauds = [i for i, known_ms in thin.fraud_known_ms.items() if known_ms <= thin.end_ms]
    fewer = {i: thin.fraud_known_ms[i] for i in frauds[::2]}
    _, trees = train(replace(thin, fraud_known_ms=fewer), engine)
    assert trees != fraud[1]


def test_another_seed_draws_other_rows(fraud, thin, engine):
    assert train(thin, engine, seed=8)[1] != fraud[1]


def test_scores_are_calibrated_on_the_held_back_days(fraud, thin, engine):
    card, trees = fraud
    mature = thin.time_ms < thin.end_ms - DELAY_DAYS * DAY_MS
    held = thin.time_ms[mature] >= np.quantile(thin.time_ms[mature], 0.75)
    X, y = thin.X[mature][held].astype(np.float64), known(thin)[mature][held]
    proba = TreeModel(card, trees, engine.names).predict_proba(X)
    assert proba.mean() == pytest.approx(y.mean(), rel=0.01)
    assert card.metrics["rows"] == len(y)
    assert card.metrics["recall_at_review"] == (proba >= card.thresholds["review"])[y].mean()


def test_progress_is_reported_for_every_tree(thin, engine):
    rounds = []
    train(thin, engine, on_round=lambda done, total: rounds.append((done, total)))
    assert rounds == [(n, 250) for n in range(1, 251)]


def test_no_history_is_too_little(engine):
    with pytest.raises(
        ModelError, match="has 0 positive and 0 negative rows to learn from; it needs 20 of each"
    ):
        train_fraud(replayed([], engine), engine, created_at=CREATED_AT)


def test_too_few_frauds_to_learn_from_are_counted(thin, engine):
    early = [i for i in thin.transaction_ids if i in thin.fraud_known_ms][:19]
    few = replace(thin, fraud_known_ms={i: thin.fraud_known_ms[i] for i in early})
    with pytest.raises(
        ModelError, match=r"the fraud model has 19 positive and [1-9]\d* negative rows to learn"
    ):
        train(few, engine)


def test_too_few_frauds_to_measure_on_are_counted(thin, engine):
    early = [i for i in thin.transaction_ids if i in thin.fraud_known_ms][:100]
    few = replace(thin, fraud_known_ms={i: thin.fraud_known_ms[i] for i in early})
    with pytest.raises(
        ModelError, match=r"the fraud model has 0 positive .* rows to measure on; .* more history"
    ):
        train(few, engine)


def test_a_model_that_holds_nothing_on_later_days_is_refused(thin, engine):
    """Large amounts are fraud while it learns, small ones when it is measured."""
    mature = thin.time_ms[thin.time_ms < thin.end_ms - DELAY_DAYS * DAY_MS]
    amount = thin.X[:, engine.names.index("amount")]
    large = amount > np.quantile(amount, 0.9)
    fraud = np.where(thin.time_ms < np.quantile(mature, 0.75), large, ~large)
    labels = {i: 0 for i, is_fraud in zip(thin.transaction_ids, fraud.tolist(), strict=True) if is_fraud}
    with pytest.raises(ModelError, match="the fraud model does no better than chance on held-back days"):
        train(replace(thin, fraud_known_ms=labels), engine)


@given(
    y=st.lists(st.booleans(), max_size=400).map(np.array),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_thinning_keeps_all_positives_and_sixty_negatives_for_each(y, share, seed):
    y = y.astype(np.bool_)
    rows = np.random.default_rng(seed).random(len(y)) < share
    kept = _thin_negatives(y, rows, seed)
    assert (kept & y == rows & y).all()
    assert not (kept & ~rows).any()
    assert (kept & ~y).sum() == min((rows & ~y).sum(), 60 * (rows & y).sum())
    assert (kept == _thin_negatives(y, rows, seed)).all()


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.01, 0.1, 0.5, 0.9, 1.0])), min_size=2))
def test_review_begins_no_later_than_block(pairs):
    y = np.array([True, False, *(fraud for fraud, _ in pairs)])
    proba = np.array([0.9, 0.1, *(p for _, p in pairs)])
    review, block = _fraud_thresholds(y, proba)
    assert 0 < review <= block <= 1
    chosen = proba >= review
    assert y[chosen].any()
    if block < 0.99 and block > review:
        assert y[proba >= block].mean() >= 0.9


def test_block_where_nothing_is_sure_is_nearly_certain():
    y = np.array([True, False] * 50)
    assert _fraud_thresholds(y, np.full(100, 0.5)) == (0.5, 0.99)
