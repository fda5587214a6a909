"""How unusual a transaction is, without any label: from the first day on.

Li, Z. et al. (2022), ECOD: unsupervised outlier detection using empirical cumulative distribution functions,
IEEE Trans. Knowl. Data Eng. 35(12): a row is as odd as its values are far out in the tails of what was seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numba
import numpy as np
import numpy.typing as npt

from features.engine import Engine, Matrix
from models import arrays
from models.reasons import Declared, strongest
from models.tree import ModelCard, columns_of
from schemas.errors import ModelError
from schemas.score import Role

Vector = npt.NDArray[np.float64]

ANOMALY: Final = "anomaly"
ALERT: Final = "alert"
"""Threshold of a card: from this score on a transaction raises an alert."""
_CATEGORIES: Final = frozenset({"velocity", "novelty", "anomaly", "transaction_pattern", "transaction_basic"})
_SAID: Final = "attribute"
_FRACTIONS: Final = 0.01
"""Of an attribute's values so many have a fraction where it is a measure."""
_KEPT: Final = 8_192
_FEWEST: Final = 50
_FEWEST_TO_TRAIN: Final = 500
_FEWEST_ALERTS: Final = 5
"""Of the rows learned from: with fewer the threshold would be a matter of chance."""
_NEVER: Final = 2.0
"""A threshold that no score reaches."""
_RANKED: Final = 65_536
"""Rows whose totals the trained model knows: of them one in a thousand is still sixty-five."""
_DIGITS: Final = 5
# Fine in the tails, where it matters.
_TAIL: Final = np.geomspace(1 / _KEPT, 0.5, 32)
_PROBAS: Final = np.r_[_TAIL, 1.0 - _TAIL[-2::-1]]

# By how many quantiles are at most a value, and by how many are less.
_LEFT: Final = -np.log(np.r_[_PROBAS, 1.0])
_RIGHT: Final = -np.log(1.0 - np.r_[0.0, _PROBAS])


@dataclass(frozen=True, slots=True)
class Tails:
    """Quantiles of `k` columns, and how far out whole rows are.

    Attributes:
        quantiles: `(63, k)` at fixed probabilities, fine in the tails; NaN where a column was never known.
        totals: `(m,)` of rows that were seen, ascending.
    """

    quantiles: Matrix
    totals: Vector

    @classmethod
    def of(cls, sample: Matrix) -> Self:
        """Tails of rows `(n, k)`; NaN is unknown."""
        ordered = np.sort(sample, axis=0)  # unknown ones last
        known = np.maximum((~np.isnan(sample)).sum(axis=0), 1)
        places = (_PROBAS[:, None] * (known - 1)).round().astype(np.intp)
        quantiles = np.asfortranarray(np.take_along_axis(ordered, places, axis=0))
        return cls(quantiles, np.sort(np.maximum(*_totals(quantiles, sample))))

    def rank(self, rows: Matrix) -> Vector:
        """Of rows `(n, k)` the share of those seen that were less far out."""
        found = np.searchsorted(self.totals, np.maximum(*_totals(self.quantiles, rows)), side="left")
        ranks: Vector = found / len(self.totals)
        return ranks

    def shares(self, rows: Matrix) -> Matrix:
        """`(n, k)` how far out each value is, on the side on which its row is further: minus a logarithm."""
        sides = np.zeros((2, *rows.shape))
        for column in range(rows.shape[1]):
            alone, mine = self.quantiles[:, column : column + 1], rows[:, column : column + 1]
            sides[0, :, column], sides[1, :, column] = _totals(alone, mine)
        low, high = sides.sum(axis=2)
        further: Matrix = np.where((low > high)[:, None], sides[0], sides[1])
        return further


class AnomalyScore:
    """Unusualness from 0 to 1: the share of transactions seen before that were less unusual.

    Looks at features that compare with what is usual (velocity, novelty, distance, amount) and at what
    messages say in fractions, each alone, and adds up how far out they are, on whichever side is further.
    Learns from a sample of all it has seen.

    Args:
        engine: Whose vectors it looks at.
        seed: Of the sample.
    """

    def __init__(self, engine: Engine, seed: int = 7) -> None:
        self._engine = engine
        self._candidates = self._columns = candidates(engine)
        self._random = np.random.default_rng(seed)
        self._sample = np.empty((_KEPT, len(self._candidates)))
        self._seen = 0
        self._tails: Tails | None = None

    @property
    def seen(self) -> int:
        """Rows learned from."""
        return self._seen

    def learn(self, X: Matrix) -> None:
        """Take rows `(n, n_features)` into the sample (Vitter 1985, algorithm R)."""
        rows = X[:, self._candidates]
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
        if len(sample) >= _FEWEST:
            chosen = _tell(self._engine, self._candidates, sample)
            self._columns = self._candidates[chosen]
            self._tails = Tails.of(sample[:, chosen])

    def score(self, X: Matrix) -> Vector:
        """Unusualness, `(n,)`; NaN until 50 rows are known."""
        if self._tails is None:
            return np.full(len(X), np.nan)
        return self._tails.rank(X[:, self._columns])


class AnomalyModel:
    """An anomaly score that has learned and stays as it is, so that a score can be made again.

    Args:
        card: The model's.
        artefact: What `train_anomaly` gave with it.
        names: The engine's feature names: the columns of every `X`.

    Raises:
        ModelError: It needs a feature that is not declared, or the artefact is not of this form.
    """

    role: Role = "champion"

    def __init__(self, card: ModelCard, artefact: bytes, names: Sequence[str]) -> None:
        self.card = card
        self.reference = {"name": card.name, "version": card.version, "role": self.role}
        self._columns = columns_of(card, names)
        try:
            quantiles, totals = arrays.read(artefact, "quantiles", "totals")
            if quantiles.shape != (len(_PROBAS), len(self._columns)) or totals.ndim != 1 or not len(totals):
                raise ValueError(f"shapes {quantiles.shape} and {totals.shape}")
            if {quantiles.dtype, totals.dtype} != {np.dtype(np.float64)}:
                raise ValueError(f"types {quantiles.dtype} and {totals.dtype}")
        except ValueError as bad:
            raise ModelError(f"model {card.name} {card.version} cannot be used: {bad}") from bad
        self._tails = Tails(np.asfortranarray(quantiles), totals)
        self._alert = card.thresholds[ALERT]

    def score(self, X: Matrix) -> Vector:
        """Unusualness `(n,)` of rows `(n, n_features)`, to five digits: more it does not know."""
        scores: Vector = np.round(self._tails.rank(self._inputs(X)), _DIGITS)
        return scores

    def alerts(self, scores: Vector) -> npt.NDArray[np.bool_]:
        """Which scores raise an alert; NaN does not."""
        return scores >= self._alert

    def explain(
        self, X: Matrix, features: Mapping[str, Declared], *, most: int = 4
    ) -> list[tuple[dict[str, Any], ...]]:
        """What is furthest out in each row, as `schemas.score.Reason` fields.

        A contribution is minus the logarithm of the share of transactions that are as far out; all of a
        row's together are its total.
        """
        shares = self._tails.shares(self._inputs(X))
        return strongest(self.card.feature_names, X[:, self._columns], shares, features, most=most)

    def _inputs(self, X: Matrix) -> Matrix:
        # By way of what it learned from: a value that many have must be equal to its quantile.
        return X[:, self._columns].astype(np.float32).astype(np.float64)


def candidates(engine: Engine) -> npt.NDArray[np.intp]:
    """Columns of an engine's vectors that compare with what is usual, or that a message says."""
    return np.array([i for i, f in enumerate(engine.features) if f.category in _CATEGORIES | {_SAID}])


def _tell(engine: Engine, columns: npt.NDArray[np.intp], rows: Matrix) -> npt.NDArray[np.bool_]:
    """Which candidates tell something by how far out they are, `(k,)`, by rows `(n, k)` of them.

    Of what a message says only fractions are measures for certain: a whole number may be the code of a word.
    """
    said = np.array([engine.features[i].category == _SAID for i in columns.tolist()], dtype=bool)
    known = ~np.isnan(rows)
    fractions = (known & (rows != np.round(rows))).sum(axis=0)
    tell: npt.NDArray[np.bool_] = ~said | (known.any(axis=0) & (fractions >= _FRACTIONS * known.sum(axis=0)))
    return tell


def train_anomaly(
    X: npt.NDArray[np.float32],
    engine: Engine,
    *,
    created_at: str,
    source: str = "",
    alert_share: float = 0.001,
    data: Mapping[str, Any] | None = None,
) -> tuple[ModelCard, bytes]:
    """An anomaly model; no label is looked at.

    Args:
        X: `(n, n_features)` vectors of transactions; of many a sample evenly spread is taken.
        engine: What they were made by.
        created_at: RFC 3339.
        source: What they are of.
        alert_share: Of transactions like these that raise an alert.
        data: More of what they are.

    Raises:
        ModelError: They are too few.
    """
    fewest = max(_FEWEST_TO_TRAIN, math.ceil(_FEWEST_ALERTS / alert_share) if alert_share else 0)
    if len(X) < fewest:
        raise ModelError(
            f"an anomaly model that alerts of {alert_share:.4g} of all transactions needs {fewest:,} to "
            f"learn from, there are {len(X):,}: give it more of them, or let it alert more (--anomaly-alerts)"
        )
    columns = candidates(engine)
    rows = X[:: -(-len(X) // _RANKED)][:, columns].astype(np.float64)
    chosen = _tell(engine, columns, rows)
    columns, rows = columns[chosen], rows[:, chosen]
    tails = Tails.of(rows)
    # As serving finds it: a share of the scores that it gives, which are no more than ranks.
    scores = np.round(tails.rank(rows), _DIGITS)
    threshold = float(np.quantile(scores, 1.0 - alert_share, method="higher")) if alert_share else _NEVER
    alerted = float((scores >= threshold).mean())
    if alerted > 3 * alert_share:
        raise ModelError(
            f"transactions are too much alike to tell the {alert_share:.4g} most unusual: {alerted:.1%} are "
            "equally unusual; look at what the mapping reads"
        )
    card = ModelCard(
        name=ANOMALY,
        version="",
        created_at=created_at,
        features_hash=engine.hash,
        feature_names=tuple(engine.names[i] for i in columns.tolist()),
        slope=1.0,
        intercept=0.0,
        thresholds={ALERT: threshold},
        data={"source": source, "rows": len(X), "sample": len(rows), **(data or {})},
        metrics={"alert_share": alerted},
    )
    return card, arrays.to_bytes(quantiles=tails.quantiles, totals=tails.totals)


def _totals(quantiles: Matrix, rows: Matrix) -> tuple[Vector, Vector]:
    low, high = np.zeros(len(rows)), np.zeros(len(rows))
    _add_tails(np.asfortranarray(rows), quantiles, _LEFT, _RIGHT, low, high)
    return low, high


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
