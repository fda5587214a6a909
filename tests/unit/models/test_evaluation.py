import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from models.evaluation import (
    Ranking,
    card_precision,
    mean_interval,
    not_yet_known,
    share_interval,
    with_intervals,
)

DAY_MS = 86_400_000
NEVER = np.iinfo(np.int64).max

rows = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.integers(0, 3)), max_size=60
)


@given(rows)
def test_figures_of_weighed_rows_are_those_of_scikit_learn(drawn):
    y = np.array([True, False, *(fraud for fraud, _, _ in drawn)])
    score = np.array([0.5, 0.4, *(s for _, s, _ in drawn)])
    weights = np.array([1, 1, *(w for _, _, w in drawn)], dtype=np.float64)
    found = Ranking(y, score).figures(weights)
    assert found["average_precision"] == pytest.approx(
        average_precision_score(y, score, sample_weight=weights)
    )
    assert found["roc_auc"] == pytest.approx(roc_auc_score(y, score, sample_weight=weights))


def test_recall_at_a_budget_counts_whole_scores_only():
    y = np.array([True, True, *[False] * 198])
    score = np.array([0.9, 0.8, *np.linspace(0.7, 0.1, 198)])
    found = Ranking(y, score).figures()
    # One per cent of 200 are the two frauds, and one false positive in 198 is less than one per cent.
    assert found["recall_at_1pct_review"] == found["recall_at_1pct_fpr"] == 1.0
    tied = Ranking(y, np.full(200, 0.5)).figures()
    assert tied["recall_at_1pct_review"] == tied["recall_at_1pct_fpr"] == 0.0


@pytest.mark.parametrize("y", [[], [True, True], [False, False]])
def test_one_class_has_no_figures(y):
    y = np.array(y, dtype=bool)
    found = with_intervals(y, np.linspace(0, 1, len(y)), np.arange(len(y)), resamples=3)
    assert all(np.isnan((f.value, f.low, f.high)).all() for f in found.values())
    assert found["roc_auc"].document() == {"value": None, "low": None, "high": None}


def test_intervals_hold_the_value_and_are_wider_where_customers_repeat():
    random = np.random.default_rng(1)
    y = random.random(4_000) < 0.1
    score = y + random.normal(size=4_000)
    alone = with_intervals(y, score, np.arange(4_000), seed=3)["roc_auc"]
    assert alone.low < alone.value < alone.high
    again = with_intervals(np.tile(y, 9), np.tile(score, 9), np.tile(np.arange(4_000), 9), seed=3)["roc_auc"]
    # The same customers nine times over are no more evidence.
    assert again.high - again.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_figures_of_a_single_customer_have_no_interval():
    y = np.arange(200) % 10 == 0
    found = with_intervals(y, np.random.default_rng(2).random(200), np.zeros(200, dtype=np.intp))["roc_auc"]
    assert not np.isnan(found.value)
    assert np.isnan([found.low, found.high]).all()


def test_customers_leave_on_the_day_after_their_fraud_is_known():
    times = np.array([0, 1, 2, 3, 3]) * DAY_MS + 5
    # Known within day 1: the customer is there on that day, and gone from day 2.
    assert not_yet_known(times, np.array([DAY_MS + 10] * 4 + [NEVER])).tolist() == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_card_precision_looks_at_customers_by_their_highest_score_and_lets_found_ones_go():
    #                day 0: c0 fraud 0.9, c1 0.8, c2 0.1 | day 1: c0 fraud 0.9, c1 fraud 0.5, c2 0.6
    times = np.array([0, 0, 0, 1, 1, 1]) * DAY_MS
    customer = np.array([0, 1, 2, 0, 1, 2])
    y = np.array([True, False, False, True, True, False])
    score = np.array([0.9, 0.8, 0.1, 0.9, 0.5, 0.6])
    found = card_precision(times, customer, y, score, k=1)
    assert found.looked_at.tolist() == [1, 1]
    assert found.found.tolist() == [1, 0]
    assert card_precision(times, customer, y, score, k=2).precision.tolist() == [0.5, 0.5]
    # More than there are customers: all that are left.
    assert card_precision(times, customer, y, score, k=9).looked_at.tolist() == [3, 2]


def test_no_transaction_has_no_days():
    empty = np.empty(0, dtype=np.int64)
    assert len(card_precision(empty, empty, empty.astype(bool), empty.astype(float)).day) == 0
    assert np.isnan(mean_interval(np.empty(0)).value)


@settings(max_examples=20)
@given(st.integers(0, 50), st.integers(0, 50))
def test_the_interval_of_a_share_holds_it(hits, misses):
    found = share_interval(hits, hits + misses)
    if hits + misses == 0:
        assert np.isnan(found.value)
    else:
        assert 0 <= found.low <= found.value + 1e-12
        assert found.value - 1e-12 <= found.high <= 1


def test_the_mean_of_one_day_is_that_day():
    assert mean_interval(np.array([0.25])).document() == {"value": 0.25, "low": 0.25, "high": 0.25}
    spread = mean_interval(np.array([0.0, 0.5, 1.0, 0.5]))
    assert spread.low < 0.5 < spread.high
