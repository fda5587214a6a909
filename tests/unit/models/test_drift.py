from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.lifetime import customer_names
from models.drift import BINS, Bins, DriftWindow, Reference, psi, with_reference

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
    X = training_data.churn_X
    card = with_reference(replace(model.card, reference={}), model.trees, X, customer_names(engine))
    reference = Reference(card)
    assert list(reference.features) == list(card.feature_names)
    assert reference.score is not None
    rows = X.astype(np.float64)
    scores = model.predict_proba(rows)
    assert psi(reference.score.shares, reference.score.count(scores)) < 0.01
    assert psi(reference.score.shares, reference.score.count(1 - scores)) > 0.25
    name, column = card.feature_names[0], int(model.columns[0])
    assert psi(reference.features[name].shares, reference.features[name].count(rows[:, column])) < 0.01
    assert with_reference(model.card, model.trees, X[:0], customer_names(engine)) == model.card
    plain = replace(model.card, reference={})
    assert Reference(plain).score is None
    assert Reference(plain).features == {}
