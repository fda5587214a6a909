import itertools
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contributions import Contributions
from models.forest import Forest, read_forest
from tests.unit.models.test_forest import booster_of, margins_of


def forest_of(booster: xgboost.Booster) -> Forest:
    forest = read_forest(bytes(booster.save_raw("json")), margins_of(booster))
    assert forest is not None
    return forest


def rows_of(seed: int, columns: int = 6, rows: int = 60) -> np.ndarray:
    random = np.random.default_rng(seed)
    # Coarse values meet thresholds exactly.
    X = random.normal(size=(rows, columns)).round(1).astype(np.float32)
    X[random.random(X.shape) < 0.3] = np.nan
    return X


def by_subsets(forest: Forest, row: np.ndarray) -> list[float]:
    """Shapley values from their definition: every subset of columns, a mean wherever one is not known."""

    def mean(node: int, known: frozenset[int]) -> float:
        at = int(forest.column[node])
        if at < 0:
            return float(forest.value[node])
        left, right, seen = int(forest.left[node]), int(forest.right[node]), row[at]
        if at in known:
            if math.isnan(seen):
                return mean(int(forest.unknown[node]), known)
            return mean(left if seen < forest.value[node] else right, known)
        cover = [float(forest.cover[n]) for n in (left, right)]
        return sum(c * mean(n, known) for c, n in zip(cover, (left, right), strict=True)) / sum(cover)

    def value(known: tuple[int, ...]) -> float:
        return float(forest.base) + sum(mean(int(root), frozenset(known)) for root in forest.roots)

    columns = range(len(row))
    shares = []
    for column in columns:
        others = [c for c in columns if c != column]
        share = 0.0
        for size in range(len(row)):
            weight = math.factorial(size) * math.factorial(len(row) - 1 - size) / math.factorial(len(row))
            share += weight * sum(
                value((*s, column)) - value(s) for s in itertools.combinations(others, size)
            )
        shares.append(share)
    return [*shares, value(())]


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 9))
def test_shares_are_shapley_values_by_their_definition(seed: int, depth: int) -> None:
    forest = forest_of(booster_of(seed, columns=5, max_depth=depth))
    contributions = Contributions.of(forest)
    assert contributions is not None
    rows = rows_of(seed + 1, columns=5, rows=3)
    for row, shares in zip(rows, contributions(rows), strict=True):
        # A node's cover is a rounded sum: not that of its children to the last bit.
        np.testing.assert_allclose(shares, by_subsets(forest, row), atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 9), share=st.sampled_from([0.01, 0.5, 0.9]))
def test_shares_are_xgboosts_own(seed: int, depth: int, share: float) -> None:
    booster = booster_of(seed, columns=12, max_depth=depth, base_score=share)
    contributions = Contributions.of(forest_of(booster))
    assert contributions is not None
    rows = rows_of(seed + 1, columns=12)
    wanted = booster.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True)
    np.testing.assert_allclose(contributions(rows), wanted, atol=2e-5)


def test_a_row_sums_to_its_margin_and_does_not_depend_on_other_rows() -> None:
    forest = forest_of(booster_of(7))
    contributions = Contributions.of(forest)
    assert contributions is not None
    rows = rows_of(8)
    shares = contributions(rows)
    np.testing.assert_allclose(shares.sum(axis=1), forest.margins(rows), atol=1e-5)
    np.testing.assert_array_equal(np.concatenate([contributions(row[np.newaxis]) for row in rows]), shares)


def test_a_forest_with_a_node_that_no_training_came_to_has_none() -> None:
    forest = forest_of(booster_of(3))
    assert Contributions.of(replace(forest, cover=np.where(forest.column < 0, 0, forest.cover))) is None


def test_a_forest_whose_shares_would_not_sum_to_margins_has_none() -> None:
    class Other(Forest):
        def margins(self, inputs):
            return super().margins(inputs) + np.float32(0.5)

    forest = forest_of(booster_of(3))
    assert Contributions.of(Other(*(getattr(forest, field.name) for field in fields(forest)))) is None


@pytest.mark.parametrize("rounds", [1, 2])
def test_trees_of_one_leaf_have_only_a_mean(rounds: int) -> None:
    X = np.zeros((50, 3), dtype=np.float32)
    y = np.arange(50) % 2
    data = xgboost.DMatrix(X, label=y, nthread=1)
    booster = xgboost.train({"objective": "binary:logistic", "base_score": 0.3, "nthread": 1}, data, rounds)
    forest = forest_of(booster)
    contributions = Contributions.of(forest)
    assert contributions is not None
    shares = contributions(X[:2])
    np.testing.assert_allclose(shares[:, -1], forest.margins(X[:2]), atol=1e-6)
    assert not shares[:, :-1].any()
