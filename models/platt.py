"""Platt scaling: from a model's margins to calibrated log-odds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from models.tree import to_proba

Labels = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
# A little shrinkage: few frauds that are parted perfectly would make a slope without end.
_SHRINKAGE = 0.01


@dataclass(frozen=True, slots=True)
class Platt:
    """Calibrated log-odds are `slope * margin + intercept`.

    One slope keeps the order of scores and the exactness of contributions, which isotonic steps do not.

    Source:
        Platt, J. (1999), Advances in Large Margin Classifiers, 61-74.
    """

    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def fit(cls, margin: Vector, y: Labels) -> "Platt":
        """From margins of rows the model did not learn from; both kinds of rows must be there.

        Raises:
            ValueError: One kind is not.
        """
        if y.all() or not y.any():
            raise ValueError("calibration needs rows of both kinds")
        sign = np.where(y, -1.0, 1.0)

        def loss(found: Vector) -> tuple[float, Vector]:
            wrong = sign * (found[0] * margin + found[1])
            slopes = sign * to_proba(wrong)
            value = np.logaddexp(0.0, wrong).sum() + _SHRINKAGE * found[0] ** 2 / 2
            return float(value), np.array([slopes @ margin + _SHRINKAGE * found[0], slopes.sum()])

        start = np.array([1.0, 0.0])
        found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-6 * len(y)}).x
        return cls(float(found[0]), float(found[1]))

    def log_odds(self, margin: Vector) -> Vector:
        """Calibrated log-odds of margins."""
        return self.slope * margin + self.intercept

    def proba(self, margin: Vector) -> Vector:
        """Probabilities of margins."""
        return to_proba(self.log_odds(margin))
