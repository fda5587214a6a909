from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.definitions import DAY_MS
from features.lifetime import GROWING_NAMES, customer_names
from models.drift import BINS, STABLE, Bins, DriftWindow, Reference, full_from, psi, with_reference

VALUES = hnp.arrays(
    np.float64, st.integers(1, 200), elements=st.one_of(st.floats(-1e6, 1e6), st.just(np.nan), st.just(1.0))
)


@given(VALUES)
def test_every_value_is_in_one_bin(values):
    bins = Bins.of(values)
    counts = bins.count(values)
    assert counts.sum() == len(values)
    assert counts[-1] == np.isnan(values).sum()
    assert len(bins.edges) <= BINS - 1
    assert bins.shares.sum() == pytest.approx(1)
    assert psi(bins.shares, counts) == pytest.approx(0, abs=1e-12)


@given(VALUES, VALUES)
def test_an_index_is_never_negative(values, others):
    bins = Bins.of(values)
    assert psi(bins.shares, bins.count(others)) >= -1e-12


def test_distinct_values_are_spread_evenly():
    assert Bins.of(np.arange(1000.0)).shares[:-1].tolist() == [0.1] * BINS


def test_the_index_grows_with_the_shift():
    random = np.random.default_rng(0)
    bins = Bins.of(random.normal(size=20_000))
    found = [
        psi(bins.shares, bins.count(random.normal(loc=shift, size=20_000))) for shift in (0, 0.2, 0.5, 1)
    ]
    assert found == sorted(found)
    assert found[0] < 0.01
    assert found[-1] > 0.25


def test_a_field_that_does_not_come_any_more_shows():
    bins = Bins.of(np.arange(1000.0))
    assert psi(bins.shares, bins.count(np.full(1000, np.nan))) > 1


def test_a_window_forgets_what_is_long_ago():
    bins = Bins.of(np.arange(1000.0))
    window = DriftWindow({"x": bins}, rows=1000)
    assert window.psi(window.newest()) == {"x": 0.0}
    window.add(np.full((1000, 1), np.nan))
    assert window.psi(window.newest())["x"] > 1
    for _ in range(2):
        window.add(np.arange(1000.0)[:, np.newaxis])
    assert window.psi(window.newest())["x"] == pytest.approx(0, abs=1e-12)
    assert window.rows == 1000


def test_a_card_knows_its_columns_and_scores(models, training_data, engine):
    model = models.churn
    X, times = training_data.churn_X, training_data.churn.as_of_ms
    names = customer_names(engine)
    card = with_reference(replace(model.card, reference={}), model.trees, X, names, times, 0)
    reference = Reference(card)
    assert list(reference.features) == [name for name in card.feature_names if name not in GROWING_NAMES]
    assert reference.score is not None
    rows = X.astype(np.float64)
    scores = model.predict_proba(rows)
    assert psi(reference.score.shares, reference.score.count(scores)) < 0.01
    assert psi(reference.score.shares, reference.score.count(1 - scores)) > 0.25
    name, column = card.feature_names[0], int(model.columns[0])
    assert psi(reference.features[name].shares, reference.features[name].count(rows[:, column])) < 0.01
    assert with_reference(model.card, model.trees, X[:0], names, times[:0], 0) == model.card
    plain = replace(model.card, reference={})
    assert Reference(plain).score is None
    assert Reference(plain).features == {}


def test_a_reference_is_of_rows_whose_windows_are_full(models, training_data, engine):
    """A log of 200 days: in the first 90 of them everybody seems to have been there for less."""
    model, names = models.churn, customer_names(engine)
    times = np.linspace(0, 200, 4000) * DAY_MS
    X = np.resize(training_data.churn_X, (4000, len(names)))
    span = names.index("history_span_s")
    X[:, span] = np.minimum(times, 90 * DAY_MS) / 1000 * np.random.default_rng(0).uniform(size=4000)
    bins = [
        Reference(with_reference(model.card, model.trees, X, names, times.astype(np.int64), since_ms))
        for since_ms in (0, -90 * DAY_MS)
    ]
    later = X[times > 150 * DAY_MS, span].astype(np.float64)
    found = [
        psi(one.features["history_span_s"].shares, one.features["history_span_s"].count(later))
        for one in bins
    ]
    assert found[0] < STABLE
    assert found[1] > STABLE
    assert [one.full for one in bins] == [True, True]


#   day 0         90      118
#       [----------)-------)--
#       not full    full
@pytest.mark.parametrize(
    ("last_day", "rows", "full"),
    [(117, 10_000, False), (118, 10_000, True), (1000, 600, True), (1000, 400, False)],
)
def test_windows_are_full_from_90_days_on_if_enough_is_left(last_day, rows, full):
    times = np.linspace(5, 5 + last_day, rows).astype(np.int64) * DAY_MS
    assert full_from(times, 5 * DAY_MS) == (95 * DAY_MS if full else None)


def test_of_too_few_days_all_are_looked_at_and_the_card_says_so(models, training_data, engine):
    model, rows = models.churn, training_data.churn
    names = customer_names(engine)
    since_ms = int(rows.as_of_ms.min()) - 30 * DAY_MS
    card = with_reference(model.card, model.trees, rows.X, names, rows.as_of_ms, since_ms)
    assert card.reference["rows"] == len(rows.X)
    assert not Reference(card).full
