import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.boosting import boost, margins, thin_negatives


@given(
    y=st.lists(st.booleans(), max_size=400).map(np.array),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_thinning_keeps_all_positives_and_so_many_negatives_for_each(y, share, seed):
    y = y.astype(np.bool_)
    rows = np.random.default_rng(seed).random(len(y)) < share
    kept, left = thin_negatives(y, rows, seed, 3)
    assert (kept & y == rows & y).all()
    assert not (kept & ~rows).any()
    negatives = (rows & ~y).sum()
    assert (kept & ~y).sum() == min(negatives, 3 * (rows & y).sum())
    assert left == 1.0 or left == (kept & ~y).sum() / negatives
    assert (kept == thin_negatives(y, rows, seed, 3)[0]).all()


def test_with_few_positives_as_many_negatives_are_kept_as_is_said():
    y = np.arange(1000) < 3
    kept, left = thin_negatives(y, np.ones(1000, dtype=np.bool_), 1, 10, 400)
    assert ((kept & ~y).sum(), left) == (400, 400 / 997)
    kept, left = thin_negatives(y, np.ones(1000, dtype=np.bool_), 1, 10, 4000)
    assert (kept.all(), left) == (True, 1.0)


def sample(n, seed):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 4)).astype(np.float32)
    return X, random.random(n) < 1 / (1 + np.exp(-2 * X[:, 0]))


def test_progress_is_reported_for_every_tree():
    rounds = []
    boost(
        *sample(200, 1), {"max_depth": 2}, 5, seed=1, on_round=lambda done, most: rounds.append((done, most))
    )
    assert rounds == [(n, 5) for n in range(1, 6)]


def test_trees_that_do_not_help_later_rows_are_taken_off():
    params = {"max_depth": 6, "eta": 0.5}
    later = sample(500, 2)
    stopped = boost(*sample(300, 1), params, 200, seed=1, stop_on=later, patience=5)
    whole = boost(*sample(300, 1), params, 200, seed=1)
    assert stopped.num_boosted_rounds() < 40

    def loss(booster):
        sign = np.where(later[1], 1, -1)
        return np.log1p(np.exp(-sign * margins(booster, later[0]))).mean()

    assert loss(stopped) < loss(whole)
