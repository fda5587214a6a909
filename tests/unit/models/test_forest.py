import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forest import read_forest


def booster_of(seed: int, rows: int = 400, columns: int = 6, **parameters: object) -> xgboost.Booster:
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, columns)).astype(np.float32).round(1)
    X[random.random(X.shape) < 0.2] = np.nan
    y = (np.nan_to_num(X[:, 0]) + random.normal(size=rows) > 0.8).astype(int)
    given = {"objective": "binary:logistic", "max_depth": 5, "nthread": 1, "seed": seed} | parameters
    return xgboost.train(given, xgboost.DMatrix(X, label=y, nthread=1), num_boost_round=25)


def margins_of(booster: xgboost.Booster):
    return lambda inputs: np.asarray(booster.inplace_predict(inputs, predict_type="margin"))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([None, 0.01, 0.3, 0.9]))
def test_margins_are_xgboosts_own_bits(seed: int, share: float | None) -> None:
    booster = booster_of(seed, **({} if share is None else {"base_score": share}))
    forest = read_forest(bytes(booster.save_raw("json")), margins_of(booster))
    assert forest is not None
    random = np.random.default_rng(seed + 1)
    # Coarse values meet thresholds exactly.
    X = random.normal(size=(300, 6)).round(1).astype(np.float32)
    X[random.random(X.shape) < 0.3] = np.nan
    np.testing.assert_array_equal(forest.margins(X), margins_of(booster)(X))


def test_models_in_use_give_xgboosts_own_bits(models, training_data) -> None:
    for model, X in ((models.fraud, training_data.X), (models.churn, training_data.churn_X)):
        assert model._forest is not None
        inputs = model._inputs(X[::20].astype(np.float64))
        np.testing.assert_array_equal(model._forest.margins(inputs), model._booster_margins(inputs))


@pytest.mark.parametrize(
    "parameters", [{"booster": "dart"}, {"objective": "reg:squarederror"}], ids=["dart", "regression"]
)
def test_other_models_are_left_to_xgboost(parameters: dict[str, object]) -> None:
    booster = booster_of(1, **parameters)
    assert read_forest(bytes(booster.save_raw("json")), margins_of(booster)) is None


def test_trees_that_do_not_give_xgboosts_bits_are_left_to_it() -> None:
    booster = booster_of(2)
    margins = margins_of(booster)
    assert read_forest(bytes(booster.save_raw("json")), lambda rows: margins(rows) + np.float32(0.5)) is None
