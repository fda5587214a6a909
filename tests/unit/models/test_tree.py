from dataclasses import replace

import numpy as np
import pytest

from features.lifetime import customer_names
from models.tree import TreeModel, to_proba
from schemas.errors import ModelError


@pytest.fixture(scope="module")
def rows(training_data):
    """Every 60th transaction, customers, and rows that no history makes."""
    customers = training_data.churn_X[::60].astype(np.float64)
    X = np.full((len(training_data.X[::60]), customers.shape[1]), np.nan)
    X[:, : training_data.X.shape[1]] = training_data.X[::60]
    X = np.vstack([X, customers])
    odd = np.full((4, X.shape[1]), np.nan)
    odd[1], odd[2], odd[3] = 0.0, 1e12, -1e12
    return np.vstack([X, odd])


@pytest.fixture(params=["fraud", "churn"])
def model(request, models):
    return getattr(models, request.param)


def test_contributions_of_a_row_sum_to_its_calibrated_log_odds(model, rows):
    shares = model.contributions(rows)
    assert shares.shape == (len(rows), len(model.card.feature_names) + 1)
    np.testing.assert_allclose(shares.sum(axis=1), model.log_odds(rows), atol=1e-4, rtol=0)


def test_probability_is_the_logistic_function_of_the_log_odds(model, rows):
    proba = model.predict_proba(rows)
    np.testing.assert_array_equal(proba, to_proba(model.log_odds(rows)))
    np.testing.assert_allclose(np.log(proba / (1 - proba)), model.log_odds(rows), atol=1e-9)
    assert ((proba > 0) & (proba < 1)).all()


def test_a_matrix_scores_as_its_rows_do_one_by_one(model, rows):
    one_by_one = [model.predict_proba(row[np.newaxis])[0] for row in rows]
    np.testing.assert_array_equal(model.predict_proba(rows), one_by_one)
    shares = [model.contributions(row[np.newaxis])[0] for row in rows[:50]]
    np.testing.assert_array_equal(model.contributions(rows[:50]), shares)


def test_no_rows_are_no_scores(model, rows):
    assert model.log_odds(rows[:0]).shape == (0,)
    assert model.predict_proba(rows[:0]).shape == (0,)
    assert model.contributions(rows[:0]).shape == (0, len(model.card.feature_names) + 1)


def test_columns_are_found_by_name_wherever_they_stand(model, models, rows):
    order = np.random.default_rng(1).permutation(len(customer_names(models.engine)))
    shuffled = TreeModel(model.card, model.trees, [customer_names(models.engine)[i] for i in order])
    np.testing.assert_array_equal(shuffled.predict_proba(rows[:, order]), model.predict_proba(rows))


def test_a_feature_that_is_not_declared_is_named(model, models):
    needed = model.card.feature_names[3]
    names = [name for name in customer_names(models.engine) if name != needed]
    with pytest.raises(
        ModelError, match=f"{model.card.name} v1 needs features .*: {needed}; set TIDEGATE_FEATURES"
    ):
        TreeModel(model.card, model.trees, names)


def test_trees_of_another_model_are_refused(models):
    with pytest.raises(ModelError, match="do not belong together"):
        TreeModel(models.fraud.card, models.churn.trees, customer_names(models.engine))


def test_reference_says_name_version_and_role(models):
    card = replace(models.fraud.card, version="v7")
    shadow = TreeModel(card, models.fraud.trees, models.engine.names, role="shadow")
    assert shadow.reference == {"name": "fraud", "version": "v7", "role": "shadow"}
    assert models.fraud.reference["role"] == "champion"


def test_log_odds_too_large_for_a_float_are_certain_and_warn_nobody():
    assert to_proba(np.array([-1e9, 1e9])).tolist() == [0.0, 1.0]
