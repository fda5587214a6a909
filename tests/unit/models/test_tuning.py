import numpy as np

from models.tuning import DEFAULTS, Budget, Fold, search


def folds():
    random = np.random.default_rng(1)
    X = random.normal(size=(900, 5)).astype(np.float32)
    y = random.random(900) < 1 / (1 + np.exp(3 - 2 * X[:, 0]))
    parts = [np.arange(begin, begin + 300) for begin in (0, 300, 600)]
    return X, [Fold(parts[0], y[:300], parts[1], y[300:600]), Fold(parts[1], y[300:600], parts[2], y[600:])]


def test_the_best_is_never_worse_than_the_defaults_and_the_same_again():
    X, parts = folds()
    told = []
    params, found = search(
        X, parts, 10, Budget(trials=4), seed=3, on_trial=lambda number, best: told.append((number, best))
    )
    assert set(params) == set(DEFAULTS)
    assert found["trials"] == 4
    assert found["folds"] == 2
    assert found["average_precision_of_best"] >= found["average_precision_of_defaults"]
    assert [number for number, _ in told] == [1, 2, 3, 4]
    assert told[0][1] == found["average_precision_of_defaults"]
    assert search(X, parts, 10, Budget(trials=4), seed=3) == (params, found)


def test_a_budget_of_no_time_still_tries_the_defaults():
    X, parts = folds()
    params, found = search(X, parts, 5, Budget(seconds=0.0), seed=3)
    assert (found["trials"], params) == (1, dict(DEFAULTS))
