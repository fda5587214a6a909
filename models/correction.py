"""What labels have taught since the trees were made: a correction of their log-odds, exact by feature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numba
import numpy as np
import numpy.typing as npt

Inputs = npt.NDArray[np.float32]
Places = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float64]

# Fine in the tails: what is rare enough to be fraud is there.
_QUANTILES: Final = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
WIDTH: Final = len(_QUANTILES) + 2
"""Bins of a feature: between and beyond its edges, and one for unknown."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Where the values of each feature are parted.

    Attributes:
        values: All edges, feature by feature, ascending within each.
        starts: `(n_features + 1,)` where those of a feature begin.
    """

    values: Inputs
    starts: Places

    @classmethod
    def of(cls, X: Inputs) -> Self:
        """Quantiles of rows `(n, n_features)`; no label is looked at."""
        found = []
        for column in X.T:
            known = column[~np.isnan(column)]
            found.append(np.unique(np.quantile(known, _QUANTILES)) if len(known) else known)
        starts = np.cumsum([0, *map(len, found)])
        return cls(np.concatenate(found).astype(np.float32), starts.astype(np.int32))

    def places(self, X: Inputs) -> Places:
        """`(n, n_features)` which weight is a value's, of all features' weights in one row."""
        out = np.empty(X.shape, dtype=np.int32)
        _find(np.ascontiguousarray(X, dtype=np.float32), self.values, self.starts, WIDTH, out)
        return out


@dataclass(frozen=True, slots=True)
class Correction:
    """Added to calibrated log-odds: an intercept, and the weights of the bins that a row's values are in.

    Attributes:
        edges: The bins.
        weights: `(n_features * WIDTH,)`.
        share: How much of them counts, 0 to 1.
        intercept: Makes as many frauds expected as there were.
    """

    edges: Edges
    weights: Weights
    share: float
    intercept: float = 0.0

    def contributions(self, X: Inputs) -> Weights:
        """`(n, n_features)`: what each feature adds, of rows in the model's own order of columns."""
        found: Weights = self.share * self.weights[self.edges.places(X)]
        return found

    def document(self) -> dict[str, Any]:
        """As a card keeps it; `of` gives the same bits back."""
        return {
            "edges": self.edges.values.astype(np.float64).tolist(),
            "starts": self.edges.starts.tolist(),
            "weights": self.weights.tolist(),
            "share": self.share,
            "intercept": self.intercept,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any], n_features: int) -> Self:
        """What `document` gave.

        Raises:
            ValueError: It is none of a model with so many features.
        """
        missing = {"edges", "starts", "weights", "share", "intercept"} - document.keys()
        if missing:
            raise ValueError(f"the correction has no {' and no '.join(sorted(missing))}")
        edges = np.array(document["edges"], dtype=np.float32)
        starts = np.array(document["starts"], dtype=np.int32)
        weights = np.array(document["weights"], dtype=np.float64)
        share, intercept = float(document["share"]), float(document["intercept"])
        shapes = (starts.shape, weights.shape) == ((n_features + 1,), (n_features * WIDTH,))
        if not shapes or edges.shape != (starts[-1],) or starts[0] != 0:
            raise ValueError(f"the correction is not of {n_features} features")
        widths = np.diff(starts)
        if (widths < 0).any() or (widths >= WIDTH - 1).any():
            raise ValueError("the correction's edges are not in order")
        if any((np.diff(part) <= 0).any() for part in np.split(edges, starts[1:-1])):
            raise ValueError("the correction's edges are not in order")
        finite = np.isfinite(weights).all() and np.isfinite(edges).all() and np.isfinite(intercept)
        if not finite or not 0.0 <= share <= 1.0:
            raise ValueError("the correction must have finite weights and a share from 0 to 1")
        return cls(Edges(edges, starts), weights, share, intercept)


@numba.njit(cache=True)
def _find(X, values, starts, width, out):  # type: ignore[no-untyped-def]
    for row in range(X.shape[0]):
        for column in range(X.shape[1]):
            value = X[row, column]
            low, high = starts[column], starts[column + 1]
            first = low
            if np.isnan(value):
                out[row, column] = column * width + width - 1
                continue
            while low < high:
                middle = (low + high) // 2
                if values[middle] < value:
                    low = middle + 1
                else:
                    high = middle
            out[row, column] = column * width + low - first
