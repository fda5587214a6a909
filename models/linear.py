"""A logistic regression on logarithms, blended with trees: its contributions are exact as theirs are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

_FARTHEST: Final = 4.0
"""Standard deviations beyond which a value says no more: data nobody here has seen must not run away."""

_STRENGTH: Final = 0.05


@dataclass(frozen=True, slots=True)
class LinearPart:
    """`trees * margin of the trees + (1 - trees) * (intercept + sum of coef * z)`.

    `z` is `sign(x) * log(1 + |x|)`, less `center`, over `scale`, within 4 of 0, and 0 where `x` is unknown.

    Attributes:
        trees: Weight of the trees, 0 to 1.
        intercept: Of the regression.
        center, scale, coef: One for each of the model's features.

    Raises:
        ValueError: They are not of one length, or no finite numbers.
    """

    trees: float
    intercept: float
    center: tuple[float, ...]
    scale: tuple[float, ...]
    coef: tuple[float, ...]

    def __post_init__(self) -> None:
        parts = (self.center, self.scale, self.coef)
        numbers = np.array([self.trees, self.intercept, *sum(parts, ())])
        if len({len(part) for part in parts}) != 1 or not np.isfinite(numbers).all() or 0.0 in self.scale:
            raise ValueError("the linear part must have one finite center, scale and coef for each feature")

    @classmethod
    def fit(cls, X: npt.NDArray[np.float32], y: npt.NDArray[np.bool_], trees: float) -> Self:
        """Fit on rows `X: (n, n_features)`."""
        logs = _logs(X)
        known = ~np.isnan(logs)
        counts = np.maximum(known.sum(axis=0), 1)
        center = np.where(known, logs, 0.0).sum(axis=0) / counts
        scale = np.sqrt((np.where(known, logs - center, 0.0) ** 2).sum(axis=0) / counts)
        scale[scale < 1e-9] = 1.0
        # Only here: a worker has no scikit-learn, and need not.
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=_STRENGTH, max_iter=1000).fit(_standardised(logs, center, scale), y)
        intercept, coef = float(model.intercept_[0]), model.coef_[0]
        return cls(trees, intercept, tuple(center.tolist()), tuple(scale.tolist()), tuple(coef.tolist()))

    def contributions(self, X: npt.NDArray[np.float32]) -> Values:
        """`(n, n_features + 1)`, the last column is what all share; a row sums to its log-odds."""
        z = _standardised(_logs(X), np.array(self.center), np.array(self.scale))
        shared = np.full((len(X), 1), self.intercept)
        return np.concatenate([z * np.array(self.coef), shared], axis=1)

    def blend(self, of_trees: Values, of_linear: Values) -> Values:
        """Margins or contributions of both as one."""
        return self.trees * of_trees + (1.0 - self.trees) * of_linear


def log_loss(margin: Values, y: npt.NDArray[np.bool_]) -> float:
    """Mean logarithmic loss of log-odds.

    >>> round(log_loss(np.array([0.0, 0.0]), np.array([True, False])), 4)
    0.6931
    """
    return float(np.logaddexp(0.0, np.where(y, -margin, margin)).mean())


def best_weight(
    of_trees: Values, of_linear: Values, y: npt.NDArray[np.bool_], steps: Sequence[float]
) -> float:
    """The weight of the trees with the least loss, of held-out margins."""
    return min(steps, key=lambda w: log_loss(w * of_trees + (1.0 - w) * of_linear, y))


def _logs(X: npt.NDArray[np.float32]) -> Values:
    x = X.astype(np.float64)
    return np.sign(x) * np.log1p(np.abs(x))


def _standardised(logs: Values, center: Values, scale: Values) -> Values:
    z = np.clip((logs - center) / scale, -_FARTHEST, _FARTHEST)
    return np.where(np.isnan(z), 0.0, z)
