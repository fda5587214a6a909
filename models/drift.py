"""Whether what is scored looks like what a model learned from, and its scores mean what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.definitions import DAY_MS, MAX_WINDOW_MS
from features.engine import Matrix
from features.lifetime import GROWING_NAMES, SEASON_NAMES
from models.tree import ModelCard, TreeModel, Vector

Counts = npt.NDArray[np.float64]
BINS: Final = 10
STABLE, MOVED = 0.1, 0.25
"""Below the first nothing happened, above the second something did (Siddiqi 2006, Credit Risk Scorecards)."""
_SAMPLE: Final = 50_000
_LEAST_SHARE: Final = 1e-4
_FEWEST_FULL: Final = 500
_LEAST_FULL_MS: Final = 28 * DAY_MS
"""Of fewer days an index would show which days of the week and of the month they are."""

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bins:
    """How a quantity was distributed: quantile bins `(-inf, e0], (e0, e1], ...`, and one for unknown.

    Attributes:
        edges: `(k,)` ascending; fewer than `BINS - 1` where values repeat.
        shares: `(k + 2,)` of the bins, the last is unknown.
    """

    edges: Vector
    shares: Vector

    @classmethod
    def of(cls, values: Vector) -> "Bins":
        """Bins in which values are as evenly spread as they can be."""
        known = values[~np.isnan(values)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else known
        # The largest value as an edge would leave nothing above it.
        edges = edges[edges < known.max()] if len(known) else edges
        empty = cls(edges, np.zeros(len(edges) + 2))
        counts = empty.count(values)
        return cls(edges, counts / max(counts.sum(), 1))

    def count(self, values: Vector) -> Counts:
        """`(k + 2,)` how many values are in each bin."""
        unknown = np.isnan(values)
        places = np.searchsorted(self.edges, values[~unknown], side="left")
        # Unknown ones are what is left over: `np.r_` and a second sum cost more than counting.
        found: Counts = np.zeros(len(self.edges) + 2)
        found[:-1] = np.bincount(places, minlength=len(self.edges) + 1)
        found[-1] = len(values) - len(places)
        return found

    def document(self) -> dict[str, list[float]]:
        """For a card."""
        return {"edges": self.edges.tolist(), "shares": self.shares.tolist()}


def psi(expected: Vector, counts: Counts) -> float:
    """Population stability index of counts against expected shares; 0 for none counted.

    An empty bin counts as a share of 0.0001, or the index would be infinite.

    Source:
        Siddiqi, N. (2006), Credit Risk Scorecards, chapter 8: sum of (a - e) * ln(a / e).

    >>> psi(np.array([0.5, 0.5]), np.array([50.0, 50.0]))
    0.0
    >>> round(psi(np.array([0.5, 0.5]), np.array([80.0, 20.0])), 3)
    0.416
    """
    total = counts.sum()
    if not total:
        return 0.0
    e, a = np.maximum(expected, _LEAST_SHARE), np.maximum(counts / total, _LEAST_SHARE)
    return float(np.sum((a - e) * np.log(a / e)))


def full_from(times_ms: Times, since_ms: int) -> int | None:
    """When the longest windows of customers are full, of a log that begins with nothing known.

    Args:
        times_ms: `(n,)` of the rows that there are.
        since_ms: When the log began.

    Returns:
        `None` where too few of the rows are later to say how values are distributed.
    """
    begin = since_ms + MAX_WINDOW_MS
    if times_ms.max(initial=0) < begin + _LEAST_FULL_MS or np.sum(times_ms >= begin) < _FEWEST_FULL:
        return None
    return begin


def with_reference(
    card: ModelCard,
    trees: bytes,
    X: npt.NDArray[np.floating[Any]],
    names: Sequence[str],
    times_ms: Times,
    since_ms: int,
) -> ModelCard:
    """A card that knows how the columns it reads, and its own scores, were distributed.

    Where windows are not full yet, counts and sums are smaller than they will ever be again: if there is
    enough behind, only that is looked at.

    Args:
        card: The model's.
        trees: Its artefact.
        X: `(n, n_features)` what it was trained on; at most 50,000 rows of it, evenly spread, are looked at.
        names: Columns of `X`.
        times_ms: `(n,)` of the rows.
        since_ms: When the log began that they are of.
    """
    begin = full_from(times_ms, since_ms)
    if begin is not None:
        X = X[times_ms >= begin]
    rows = X[:: max(1, -(-len(X) // _SAMPLE))].astype(np.float64)
    if not len(rows):
        return card
    model = TreeModel(card, trees, names)
    features = {
        name: Bins.of(rows[:, column]).document()
        for name, column in zip(card.feature_names, model.columns.tolist(), strict=True)
        # Any day is far from a whole year, and any later one from what only grows or shrinks.
        if name not in SEASON_NAMES and name not in GROWING_NAMES
    }
    score = Bins.of(model.predict_proba(rows)).document()
    return replace(
        card, reference={"rows": len(rows), "full": begin is not None, "features": features, "score": score}
    )


class Reference:
    """What a card says of the data its model was trained on.

    Attributes:
        full: Whether it is of rows whose windows were full; not known of models of earlier versions.

    Args:
        card: Of a model; one without a reference has no features here.
    """

    def __init__(self, card: ModelCard) -> None:
        said: Mapping[str, Any] = card.reference
        self.features = {name: _bins(bins) for name, bins in said.get("features", {}).items()}
        self.score = _bins(said["score"]) if "score" in said else None
        self.full = said.get("full") is True


def _bins(said: Mapping[str, Any]) -> Bins:
    return Bins(np.array(said["edges"], dtype=np.float64), np.array(said["shares"], dtype=np.float64))


class DriftWindow:
    """The newest rows: at least `rows` of them, at most twice as many, once there were.

    They are kept as they are and sorted into bins when somebody asks: rarely, next to how often rows come.

    Args:
        bins: By name, in the order of the rows' columns.
        rows: Half of the most rows that count.
    """

    def __init__(self, bins: Mapping[str, Bins], rows: int) -> None:
        self._bins = dict(bins)
        self._rows = rows
        self._now: list[Matrix] = []
        self._before: list[Matrix] = []
        self._counted = self._counted_before = 0

    def add(self, values: Matrix) -> None:
        """Add `(n, n_bins)` values; they are not to change any more."""
        self._now.append(values)
        self._counted += len(values)
        if self._counted >= self._rows:
            self._before, self._now = self._now, []
            self._counted_before, self._counted = self._counted, 0

    @property
    def rows(self) -> int:
        """As many count."""
        return self._counted_before + self._counted

    def newest(self) -> list[Matrix]:
        """What is in it now, for `psi`."""
        return [*self._before, *self._now]

    def psi(self, newest: Sequence[Matrix]) -> dict[str, float]:
        """Index of each, of what was in it."""
        if not newest:
            return dict.fromkeys(self._bins, 0.0)
        columns = np.concatenate(newest).T
        return {
            name: psi(bins.shares, bins.count(values))
            for (name, bins), values in zip(self._bins.items(), columns, strict=True)
        }


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose scores are in `(low, high]`.

    Attributes:
        expected: Sum of their probabilities.
        observed: How many were positive.
    """

    low: float
    high: float
    rows: int
    expected: float
    observed: int


CALIBRATION_EDGES: Final = (0.01, 0.1, 0.5)
CALIBRATION_NAMES: Final = ("to 0.01", "to 0.1", "to 0.5", "to 1")


def calibration_bin(proba: Vector) -> npt.NDArray[np.intp]:
    """Index into `CALIBRATION_NAMES` of probabilities."""
    return np.searchsorted(CALIBRATION_EDGES, proba, side="left")


def calibration(proba: Vector, y: npt.NDArray[np.bool_]) -> list[CalibrationBin]:
    """How many positives scores promised and how many came, by score.

    >>> bins = calibration(np.array([0.005, 0.8]), np.array([False, True]))
    >>> [(b.rows, b.expected, b.observed) for b in bins]
    [(1, 0.005, 0), (0, 0.0, 0), (0, 0.0, 0), (1, 0.8, 1)]
    """
    bins, edges = calibration_bin(proba), (0.0, *CALIBRATION_EDGES, 1.0)
    found = []
    for number, (low, high) in enumerate(pairwise(edges)):
        mine = bins == number
        found.append(CalibrationBin(low, high, int(mine.sum()), float(proba[mine].sum()), int(y[mine].sum())))
    return found
