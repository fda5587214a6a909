import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.costs import Costs, choose_thresholds
from schemas.errors import ConfigError

PROBAS = [0.01, 0.1, 0.3, 0.5, 0.9]
rows = st.lists(
    st.tuples(st.booleans(), st.sampled_from(PROBAS), st.integers(1, 500), st.integers(0, 50_000)),
    min_size=1,
    max_size=40,
)


def cost(y, proba, amount, spend, review, block, costs):
    """What these thresholds cost, row by row."""
    total = 0.0
    for fraud, p, a, s in zip(y, proba, amount, spend, strict=True):
        if p >= block:
            total += 0.0 if fraud else costs.refusal + costs.leaving_proba * costs.margin_ratio * s
        elif p >= review:
            total += costs.review + (a * (1 - costs.found_share) if fraud else 0.0)
        else:
            total += a if fraud else 0.0
    return total


@settings(max_examples=100)
@given(rows)
def test_no_other_review_threshold_costs_less_and_the_cost_is_that_of_every_row(drawn):
    columns = [np.array(column) for column in zip(*drawn, strict=True)]
    y, proba, amount, spend = columns[0].astype(bool), columns[1], columns[2].astype(float), columns[3]
    costs = Costs()
    found = choose_thresholds(y, proba, amount, spend, 2.0, costs)
    assert 0 < found.review <= found.block <= 1
    total = cost(y, proba, amount, spend, found.review, found.block, costs)
    assert found.cost == pytest.approx(total / 2)
    assert found.cost_without == pytest.approx(amount[y].sum() / 2)
    assert found.cost <= found.cost_without + 1e-9
    alerts, refused = proba >= found.review, proba >= found.block
    days = np.array([found.alerts_a_day, found.refusals_a_day, found.good_refusals_a_day]) * 2
    assert days.tolist() == [alerts.sum(), refused.sum(), (refused & ~y).sum()]
    for other in (*PROBAS, 0.99):
        never = 2.0
        reviewed = [cost(y, proba, amount, spend, t, never, costs) for t in (found.review, other)]
        assert reviewed[0] <= reviewed[1] + 1e-9
        if other >= found.review:
            assert total <= cost(y, proba, amount, spend, found.review, other, costs) + 1e-9


def test_what_a_bound_on_alerts_costs_is_said_beside_it():
    y, proba = np.array([True] * 4 + [False] * 6), np.linspace(0.9, 0.1, 10)
    amount, spend = np.full(10, 1024.0), np.zeros(10)
    free = choose_thresholds(y, proba, amount, spend, 2.0, Costs())
    bound = choose_thresholds(y, proba, amount, spend, 2.0, Costs(alerts_share=0.1))
    assert (bound.alerts_a_day, bound.cost) == (0.5, pytest.approx(1536.0))
    assert (bound.unbounded_alerts_a_day, bound.unbounded_cost) == (free.alerts_a_day, free.cost)
    assert (free.alerts_a_day, free.cost) == (2.0, pytest.approx(0.0, abs=1e-9))
    assert (free.unbounded_alerts_a_day, free.unbounded_cost) == (free.alerts_a_day, free.cost)


def test_dearer_reviews_are_fewer():
    y = np.array([True, False, True, False, False, False])
    proba = np.array([0.9, 0.8, 0.5, 0.4, 0.3, 0.1])
    amount, spend = np.full(6, 40.0), np.full(6, 1e6)
    cheap, dear = (
        choose_thresholds(y, proba, amount, spend, 1.0, Costs(review=price)) for price in (5.0, 30.0)
    )
    assert (cheap.review, dear.review) == (0.5, 0.9)
    assert (cheap.alerts_a_day, dear.alerts_a_day) == (3.0, 1.0)


def test_good_customers_that_are_worth_more_are_refused_less():
    y = np.array([True] * 9 + [False])
    proba = np.array([0.95] * 9 + [0.9])
    rich, poor = (
        choose_thresholds(y, proba, np.full(10, 100.0), np.full(10, spend), 1.0, Costs(review=20.0))
        for spend in (1e6, 0.0)
    )
    assert poor.block <= rich.block


def test_a_budget_of_alerts_is_kept():
    y = np.array([True] * 10)
    proba = np.linspace(0.9, 0.1, 10)
    amount = np.full(10, 1000.0)
    found = choose_thresholds(y, proba, amount, amount, 2.0, Costs(alerts_a_day=2))
    assert found.alerts_a_day == 2.0
    assert choose_thresholds(y, proba, amount, amount, 2.0, Costs(alerts_share=0.2)).alerts_a_day == 1.0
    # A score that many share is over the budget as a whole.
    tied = choose_thresholds(y, np.full(10, 0.9), amount, amount, 2.0, Costs(alerts_a_day=2))
    assert (tied.alerts_a_day, tied.review) == (0.0, 0.99)


@pytest.mark.parametrize(
    "wrong",
    [
        {"found_share": 1.5},
        {"leaving_proba": -0.1},
        {"review": -1.0},
        {"alerts_a_day": 0},
        {"alerts_share": 1.5},
    ],
)
def test_costs_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        Costs(**wrong)


@pytest.mark.parametrize(
    "name",
    ["review", "found_share", "refusal", "leaving_proba", "margin_ratio", "alerts_a_day", "alerts_share"],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_no_cost(name, value):
    with pytest.raises(ConfigError, match=rf"{name.replace('_', ' ')} of -?(nan|inf) is no number"):
        Costs(**{name: value})
