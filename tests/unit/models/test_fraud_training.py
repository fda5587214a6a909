from dataclasses import replace

import numpy as np
import pytest

from cli.training_report import doubts
from models.costs import Costs
from models.fraud_data import NEVER, FraudData
from models.fraud_training import _cuts, train_fraud
from schemas.errors import ModelError
from tests.scoring import CREATED_AT, DAY_MS

DELAY_DAYS = 7
DELAY_MS = DELAY_DAYS * DAY_MS


@pytest.fixture(scope="module")
def thin(training_data):
    """All frauds and every eighth of the others: trains in a second."""
    data = training_data.fraud
    rows = data.known_by(data.end_ms) | (np.arange(len(data.X)) % 8 == 0)
    return FraudData(data.X[rows], data.time_ms[rows], data.known_ms[rows], data.end_ms)


def train(data, engine, **options):
    options = {"label_delay_days": DELAY_DAYS, "rounds": 20} | options
    return train_fraud(data, engine, created_at=CREATED_AT, **options)


@pytest.fixture(scope="module")
def fraud(thin, engine):
    return train(thin, engine)


def settled(data):
    return data.settled(data.end_ms, DELAY_MS)


def test_card_says_what_was_learned_from_what(fraud, thin, engine):
    card, _ = fraud
    assert (card.name, card.version, card.created_at) == ("fraud", "", CREATED_AT)
    assert (card.features_hash, card.feature_names) == (engine.hash, engine.names)
    assert card.data["rows"] == settled(thin).sum()
    assert card.data["positives"] == thin.known_by(thin.end_ms)[settled(thin)].sum()
    assert (card.data["label_delay_days"], card.data["entities"]) == (DELAY_DAYS, "")
    assert card.data["to_ms"] < thin.end_ms - DELAY_MS
    assert 0 < card.thresholds["review"] <= card.thresholds["block"] <= 1
    assert card.metrics["roc_auc"] > 0.8
    assert card.metrics["average_precision"] > 3 * card.metrics["positives"] / card.metrics["rows"]
    assert set(card.metrics["calibration"]) == {"none", "platt", "isotonic"}
    assert card.metrics["costs"]["review"] == Costs().review
    assert card.metrics["decisions"]["cost"] < card.metrics["decisions"]["cost_without"]


def test_card_of_several_currencies_says_that_costs_mix_them(fraud, thin, engine):
    card, trees = train(replace(thin, currencies={"EUR": 900, "JPY": 98, "USD": 2}), engine)
    assert trees == fraud[1]
    assert card.data["currencies"] == {"EUR": 900, "JPY": 98, "USD": 2}
    assert "3 currencies (EUR 90 %, JPY 10 %, USD under 1 %)" in card.metrics["currencies"]
    (said,) = doubts(card)
    assert "costs a day add them up as if they were one; convert the amounts in the file" in said


def test_card_of_one_currency_says_nothing_of_it(fraud, thin, engine):
    card, _ = train(replace(thin, currencies={"EUR": 900}), engine)
    assert "currencies" not in card.metrics
    assert "currencies" not in card.data
    assert list(doubts(card)) == []


def test_dearer_reviews_are_fewer(fraud, thin, engine):
    card, trees = train(thin, engine, costs=Costs(review=500.0))
    assert trees == fraud[1]
    assert card.thresholds["review"] > fraud[0].thresholds["review"]


def test_what_was_not_known_at_the_end_changes_nothing(fraud, thin, engine):
    """Labels that come later, and all labels of the last delay: neither trees nor card look at them."""
    young = ~settled(thin)
    assert young.sum() > 100
    known = np.where(thin.known_ms > thin.end_ms, thin.end_ms + 1 + np.arange(len(thin.X)), thin.known_ms)
    known = np.where(young, np.where(np.arange(len(known)) % 2 == 0, thin.end_ms - 1, NEVER), known)
    assert train(replace(thin, known_ms=known), engine) == fraud


def test_what_was_known_at_the_end_changes_the_trees(fraud, thin, engine):
    """The other test would pass as well where labels were not read at all."""
    frauds = np.flatnonzero(thin.known_by(thin.end_ms))
    known = thin.known_ms.copy()
    known[frauds[1::2]] = NEVER
    assert train(replace(thin, known_ms=known), engine)[1] != fraud[1]


def test_measured_trees_know_no_label_that_came_after_the_days_they_learned_from(fraud, thin, engine):
    """Frauds of the days learned from that became known only later are genuine to the measured trees."""
    first, second, _ = _cuts(thin.time_ms[settled(thin)], (0.7, 0.85, 1.0))
    early = (thin.time_ms < first - DELAY_MS) & (thin.known_ms < second)
    some = np.flatnonzero(early)[::2]
    late, later = thin.known_ms.copy(), thin.known_ms.copy()
    late[some], later[some] = second + 1, thin.end_ms
    found = [train(replace(thin, known_ms=known), engine)[0].metrics for known in (late, later)]
    assert found[0] == found[1] != fraud[0].metrics


def test_another_seed_draws_other_rows(fraud, thin, engine):
    assert train(thin, engine, seed=8)[1] != fraud[1]


def test_every_tree_of_all_fits_is_told_and_how_many_there_are(thin, engine):
    told = []
    train(thin, engine, on_round=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {60}
    assert sorted(done for done, _ in told)[-1] == 60
    assert len(told) == 60


def test_whoever_gives_up_waits_for_no_other_tree(thin, engine):
    told = []

    def give_up(done, total):
        told.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(thin, engine, rounds=100_000, on_round=give_up)
    assert len(told) <= 3


def test_no_history_is_too_little(engine):
    nothing = np.empty(0, dtype=np.int64)
    empty = FraudData(np.empty((0, len(engine.names)), np.float32), nothing, nothing, 0)
    with pytest.raises(ModelError, match="no transaction lies within the times asked for"):
        train(empty, engine)


def test_too_few_frauds_are_counted_with_what_waits_for_its_label(thin, engine):
    known = np.full_like(thin.known_ms, NEVER)
    frauds = np.flatnonzero(thin.known_by(thin.end_ms) & settled(thin))
    known[frauds[:9]] = thin.known_ms[frauds[:9]]
    with pytest.raises(
        ModelError, match=r"9 known frauds .* it needs 10 of each: .* last 7 days are left out"
    ):
        train(replace(thin, known_ms=known), engine)


def test_only_frauds_are_too_few_genuine_ones(thin, engine):
    with pytest.raises(ModelError, match=r"known frauds and 0 genuine"):
        train(replace(thin, known_ms=np.zeros_like(thin.known_ms)), engine)


def test_all_in_one_day_is_said_to_wait_for_labels(thin, engine):
    data = replace(thin, time_ms=np.full_like(thin.time_ms, thin.end_ms))
    with pytest.raises(ModelError, match=r"0 known frauds .* because their labels would not be known yet"):
        train(data, engine)


def test_few_frauds_make_a_model_that_says_it_was_not_measured(thin, engine):
    known = np.full_like(thin.known_ms, NEVER)
    frauds = np.flatnonzero(thin.known_by(thin.end_ms) & settled(thin))
    known[frauds[:12]] = thin.known_ms[frauds[:12]]
    card, _ = train(replace(thin, known_ms=known), engine)
    assert set(card.metrics) == {"note", "costs", "decisions"}
    assert card.metrics["note"].startswith("too few frauds to calibrate or measure on days of their own")
    assert card.slope == 1.0


@pytest.mark.parametrize(("months", "cuts"), [(2, None), (3, [1, 2, 3]), (4, [2, 3, 4]), (6, [4, 5, 6])])
def test_days_of_many_rows_are_parted_between_them(months, cuts):
    assert _cuts(np.repeat(np.arange(months), 100), (0.7, 0.85, 1.0)) == cuts


def test_times_that_differ_are_parted_by_their_share():
    assert _cuts(np.arange(1000) * 7, (0.5, 0.7, 0.85, 1.0)) == [3500, 4900, 5950, 6994]


def test_file_of_few_months_is_calibrated_and_measured(thin, engine):
    months = np.quantile(thin.time_ms, np.linspace(0, 1, 7))[:-1].astype(np.int64)
    data = replace(thin, time_ms=months[np.searchsorted(months, thin.time_ms, side="right") - 1])
    card, _ = train(data, engine, label_delay_days=0)
    assert card.metrics["note"].startswith("later days than calibration")
    assert card.metrics["average_precision"] > 0
    one = replace(thin, time_ms=np.where(thin.time_ms < months[3], months[0], months[3]))
    card, _ = train(one, engine, label_delay_days=0)
    assert card.metrics["note"].startswith("too few different times")


def test_a_model_that_holds_nothing_on_later_days_is_refused(thin, engine):
    """Large amounts are fraud while it learns, small ones when it is measured."""
    times = thin.time_ms[settled(thin)]
    amount = thin.X[:, engine.names.index("amount")]
    large = amount > np.quantile(amount, 0.9)
    fraud = np.where(thin.time_ms < np.quantile(times, 0.7), large, ~large)
    # Nothing else to see: features that grow with time would tell the days apart.
    X = np.full_like(thin.X, np.nan)
    X[:, engine.names.index("amount")] = amount
    with pytest.raises(ModelError, match="the fraud model does no better than chance on later days"):
        train(replace(thin, X=X, known_ms=np.where(fraud, 0, NEVER)), engine)
