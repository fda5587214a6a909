import numpy as np
import pytest

from models.linear import LinearPart, best_weight

RANDOM = np.random.default_rng(3)
X = np.exp(RANDOM.normal(3, 1, (2000, 3))).astype(np.float32)
Y = RANDOM.random(2000) < 1 / (1 + np.exp(3 - np.log(X[:, 0])))


def test_contributions_sum_to_log_odds_that_follow_the_data():
    part = LinearPart.fit(X, Y, 0.0)
    shares = part.contributions(X)
    margin = shares.sum(axis=1)
    assert (1 / (1 + np.exp(-margin))).mean() == pytest.approx(Y.mean(), abs=0.01)
    assert np.abs(shares[:, 0]).mean() > 5 * np.abs(shares[:, 1:3]).mean()


def test_unknown_adds_nothing_and_what_is_far_out_no_more_than_the_far_edge():
    part = LinearPart.fit(X, Y, 0.0)
    row = X[:1].copy()
    row[0, 0] = np.nan
    assert part.contributions(row)[0, 0] == 0.0
    row[0, 0] = 1e30
    far = part.contributions(row)[0, 0]
    row[0, 0] = 1e37
    assert part.contributions(row)[0, 0] == far == pytest.approx(4 * part.coef[0])


def test_weight_is_of_the_part_that_foresees():
    good, noise = np.where(Y, 2.0, -2.0), RANDOM.normal(size=2000)
    assert best_weight(good, noise, Y, (0.0, 0.5, 1.0)) == 1.0
    assert best_weight(noise, good, Y, (0.0, 0.5, 1.0)) == 0.0


@pytest.mark.parametrize("coef", [(1.0,), (1.0, float("nan"))])
def test_a_part_that_does_not_fit_together_is_refused(coef):
    with pytest.raises(ValueError, match="one finite center, scale and coef"):
        LinearPart(0.5, 0.0, (0.0, 0.0), (1.0, 1.0), coef)
