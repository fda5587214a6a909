"""How unusual a transaction is, without any label: from the first day on.

Li, Z. et al. (2022), ECOD: unsupervised outlier detection using empirical cumulative distribution functions,
IEEE Trans. Knowl. Data Eng. 35(12): a row is as odd as its values are far out in the tails of what was seen.
"""

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from features.engine import Engine, Matrix

Vector = npt.NDArray[np.float64]

_CATEGORIES: Final = frozenset({"velocity", "novelty", "anomaly", "transaction_pattern", "transaction_basic"})
_KEPT: Final = 8_192
_FEWEST: Final = 50
# Fine in the tails, where it matters.
_TAIL: Final = np.geomspace(1 / _KEPT, 0.5, 32)
_PROBAS: Final = np.r_[_TAIL, 1.0 - _TAIL[-2::-1]]

# By how many quantiles are at most a value, and by how many are less.
_LEFT: Final = -np.log(np.r_[_PROBAS, 1.0])
_RIGHT: Final = -np.log(1.0 - np.r_[0.0, _PROBAS])


class AnomalyScore:
    """Unusualness from 0 to 1: the share of transactions seen before that were less unusual.

    Looks at features that compare with what is usual (velocity, novelty, distance, amount), each alone, and
    adds up how far out they are, on whichever side is further. Learns from a sample of all it has seen.

    Args:
        engine: Whose vectors it looks at.
        seed: Of the sample.
    """

    def __init__(self, engine: Engine, seed: int = 7) -> None:
        self._columns = np.array([i for i, f in enumerate(engine.features) if f.category in _CATEGORIES])
        self._random = np.random.default_rng(seed)
        self._sample = np.empty((_KEPT, len(self._columns)))
        self._seen = 0
        self._quantiles: Matrix | None = None
        self._totals: Vector = np.empty(0)

    @property
    def seen(self) -> int:
        """Rows learned from."""
        return self._seen

    def learn(self, X: Matrix) -> None:
        """Take rows `(n, n_features)` into the sample (Vitter 1985, algorithm R)."""
        rows = X[:, self._columns]
        free = max(min(_KEPT - self._seen, len(rows)), 0)
        self._sample[self._seen : self._seen + free] = rows[:free]
        numbers = np.arange(self._seen + free, self._seen + len(rows))
        places = self._random.integers(0, numbers + 1) if len(numbers) else numbers
        for i in np.flatnonzero(places < _KEPT).tolist():
            self._sample[places[i]] = rows[free + i]
        self._seen += len(rows)

    def refresh(self) -> None:
        """Look at the sample as it is now; scores change here and nowhere else."""
        sample = self._sample[: min(self._seen, _KEPT)]
        if len(sample) < _FEWEST:
            return
        ordered = np.sort(sample, axis=0)  # unknown ones last
        known = np.maximum((~np.isnan(sample)).sum(axis=0), 1)
        places = (_PROBAS[:, None] * (known - 1)).round().astype(np.intp)
        self._quantiles = np.take_along_axis(ordered, places, axis=0)
        self._totals = np.sort(self._total(sample))

    def score(self, X: Matrix) -> Vector:
        """Unusualness, `(n,)`; NaN until 50 rows are known."""
        if self._quantiles is None:
            return np.full(len(X), np.nan)
        totals = self._total(X[:, self._columns])
        ranks: Vector = np.searchsorted(self._totals, totals, side="left") / len(self._totals)
        return ranks

    def _total(self, rows: Matrix) -> Vector:
        if self._quantiles is None:
            return np.zeros(len(rows))
        low, high = np.zeros(len(rows)), np.zeros(len(rows))
        _add_tails(np.asfortranarray(rows), np.asfortranarray(self._quantiles), _LEFT, _RIGHT, low, high)
        return np.maximum(low, high)


@numba.njit(cache=True, nogil=True)
def _add_tails(rows, quantiles, left, right, low, high):  # type: ignore[no-untyped-def]
    """Add up how far out each row's values are on either side, column by column."""
    for column in range(rows.shape[1]):
        # A column that is unknown in every row of the sample says nothing.
        if np.isnan(quantiles[0, column]):
            continue
        for i in range(rows.shape[0]):
            value = rows[i, column]
            if np.isnan(value):
                continue
            # The share that is at most this, and at least this; a value that all have is in no tail.
            low[i] += left[_count_below(quantiles, column, value, True)]
            high[i] += right[_count_below(quantiles, column, value, False)]


@numba.njit(cache=True, nogil=True)
def _count_below(quantiles, column, value, equal):  # type: ignore[no-untyped-def]
    """How many quantiles are less than a value, or at most it."""
    found, left = 0, quantiles.shape[0]
    while left > 0:
        half = (left + 1) >> 1
        middle = quantiles[found + half - 1, column]
        # Not a branch: which half it is in cannot be predicted.
        found += half if middle < value or (equal and middle == value) else 0
        left -= half
    return found
