"""How well scores put frauds first: figures with confidence intervals, by the protocol of the literature.

Dal Pozzolo et al. (2018), IEEE Trans. Neural Netw. Learn. Syst. 29(8), 3784-3797: learn, wait for the label
delay, measure on later days; whose fraud is known by then has left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.metrics import brier_score_loss

from features.definitions import DAY_MS
from models.calibration import reliability

Labels = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

REVIEW_SHARE: Final = 0.01
"""Share of transactions that analysts can look at, and of genuine ones that may be bothered."""


class Ranking:
    """Scores sorted once, so that resampling only weighs them anew.

    Args:
        y: `(n,)` whether fraud.
        score: `(n,)`.
    """

    def __init__(self, y: Labels, score: Vector) -> None:
        self.order = np.argsort(-score, kind="stable")
        self._y = y[self.order]
        sorted_scores = score[self.order]
        # Of rows with one score none comes before another: they count together.
        self._last = np.r_[sorted_scores[1:] != sorted_scores[:-1], np.ones(min(len(y), 1), bool)]

    def figures(self, weights: Vector | None = None) -> dict[str, float]:
        """Figures with rows counted as often as weighed; NaN where only one class is there.

        Returns:
            `average_precision`, `roc_auc`, `recall_at_1pct_fpr` and `recall_at_1pct_review`.
        """
        return self.figures_in_order(np.ones(len(self._y)) if weights is None else weights[self.order])

    def figures_in_order(self, weights: Vector) -> dict[str, float]:
        """`figures` with weights that stand in the order of `order`."""
        return dict(zip(FIGURES, _figures(self._y, self._last, weights), strict=True))

    def curves(self) -> "Curves | None":
        """What each threshold reaches, highest threshold first; `None` where only one class is there."""
        frauds, rows = np.cumsum(self._y)[self._last], np.flatnonzero(self._last) + 1
        if len(frauds) == 0 or frauds[-1] == 0 or frauds[-1] == rows[-1]:
            return None
        return Curves(
            frauds / frauds[-1],
            frauds / rows,
            (rows - frauds) / (rows[-1] - frauds[-1]),
            rows / rows[-1],
        )


@dataclass(frozen=True, slots=True)
class Curves:
    """What each threshold reaches, highest threshold first: arrays of one length.

    Attributes:
        recall: Share of frauds.
        precision: Share of frauds among the rows.
        fpr: Share of genuine rows.
        reviewed: Share of rows.
    """

    recall: Vector
    precision: Vector
    fpr: Vector
    reviewed: Vector


FIGURES: Final = ("average_precision", "roc_auc", "recall_at_1pct_fpr", "recall_at_1pct_review")


@numba.njit(cache=True)
def _figures(y, last, weights):  # type: ignore[no-untyped-def]
    """`FIGURES` of rows in order, highest score first, a threshold behind each that is `last` of its score.

    In one pass: a bootstrap asks for them some hundred times of a million rows.
    """
    total, all_frauds = 0.0, 0.0
    for i in range(y.shape[0]):
        total += weights[i]
        all_frauds += weights[i] if y[i] else 0.0
    genuine = total - all_frauds
    if all_frauds <= 0.0 or genuine <= 0.0:
        return np.nan, np.nan, np.nan, np.nan
    rows, frauds, recall_before, fpr_before = 0.0, 0.0, 0.0, 0.0
    precision, area, at_fpr, at_review = 0.0, 0.0, 0.0, 0.0
    for i in range(y.shape[0]):
        rows += weights[i]
        frauds += weights[i] if y[i] else 0.0
        if not last[i]:
            continue
        recall, fpr = frauds / all_frauds, (rows - frauds) / genuine
        precision += (recall - recall_before) * frauds / max(rows, 1e-300)
        area += (fpr - fpr_before) * (recall + recall_before) / 2.0
        if fpr <= REVIEW_SHARE:
            at_fpr = recall
        if rows / total <= REVIEW_SHARE:
            at_review = recall
        recall_before, fpr_before = recall, fpr
    return precision, area, at_fpr, at_review


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % confidence interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    def document(self) -> dict[str, float | None]:
        """For JSON; what is not defined is null."""
        return {
            name: None if np.isnan(value) else round(value, 6)
            for name, value in (("value", self.value), ("low", self.low), ("high", self.high))
        }


def with_intervals(
    y: Labels, score: Vector, customer: Codes, *, resamples: int = 200, seed: int = 7
) -> dict[str, Figure]:
    """Figures of a ranking with confidence intervals.

    Frauds come in episodes of one customer, so customers are drawn again, not rows: each counts a
    Poisson number of times (Chamandy et al. 2012), which needs no copy of the data. `scipy.stats.bootstrap`
    would draw rows, and intervals would be too narrow. Of one customer there is none: all draws are alike.

    Args:
        y: `(n,)`.
        score: `(n,)`.
        customer: `(n,)` codes from 0.
        resamples: How often to draw; 0 for no intervals.
        seed: Of the draws.
    """
    ranking = Ranking(y, score)
    values = ranking.figures()
    random, customers = np.random.default_rng(seed), int(customer.max(initial=-1)) + 1
    customer = customer[ranking.order]
    drawn = [
        ranking.figures_in_order(random.poisson(1.0, customers).astype(np.float64)[customer])
        for _ in range(resamples if customers > 1 else 0)
    ]
    figures = {}
    for name, value in values.items():
        found = np.array([one[name] for one in drawn])
        found = found[~np.isnan(found)]
        low, high = np.quantile(found, (0.025, 0.975)) if len(found) else (np.nan, np.nan)
        figures[name] = Figure(value, float(low), float(high))
    return figures


def share_interval(hits: int, of: int) -> Figure:
    """A share with Wilson's interval.

    >>> share_interval(1, 2).document()
    {'value': 0.5, 'low': 0.094531, 'high': 0.905469}
    """
    if of == 0:
        return Figure(float("nan"), float("nan"), float("nan"))
    found = stats.binomtest(hits, of).proportion_ci(method="wilson")
    return Figure(hits / of, float(found.low), float(found.high))


def summary(y: Labels, proba: Vector) -> dict[str, Any]:
    """Figures of held-back days for a card."""
    figures = Ranking(y, proba).figures()
    return {
        "rows": len(y),
        "positives": int(y.sum()),
        **figures,
        "brier": float(brier_score_loss(y, proba)),
        "calibration_error": reliability(y, proba).error,
    }


def not_yet_known(time_ms: npt.NDArray[np.int64], victim_ms: npt.NDArray[np.int64]) -> Labels:
    """Rows of customers of whom no fraud was known when the row's day (UTC) began.

    Args:
        time_ms: `(n,)`.
        victim_ms: `(n,)` since when a fraud of the row's customer was known; the largest number for never.
    """
    left: Labels = victim_ms > time_ms // DAY_MS * DAY_MS
    return left


@dataclass(frozen=True, slots=True)
class DailyCards:
    """Card precision: each day the customers with the highest scores, and how many were defrauded that day.

    Attributes:
        day: `(d,)` days since 1970 that had a transaction.
        looked_at: `(d,)` customers looked at, at most `k`.
        found: `(d,)` of them defrauded that day.
    """

    day: npt.NDArray[np.int64]
    looked_at: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]

    @property
    def precision(self) -> Vector:
        """`(d,)` share of each day."""
        return self.found / np.maximum(self.looked_at, 1)


def card_precision(
    time_ms: npt.NDArray[np.int64], customer: Codes, y: Labels, score: Vector, k: int = 100
) -> DailyCards:
    """Card precision at `k`; a customer found leaves the days that follow."""
    days, sizes = np.unique(time_ms // DAY_MS, return_counts=True)
    order = np.argsort(time_ms // DAY_MS, kind="stable")
    gone = np.zeros(int(customer.max(initial=-1)) + 1, dtype=np.bool_)
    looked, found = [], []
    for rows in np.split(order, np.cumsum(sizes)[:-1]) if len(days) else []:
        rows = rows[~gone[customer[rows]]]
        who, inverse = np.unique(customer[rows], return_inverse=True)
        highest = np.full(len(who), -np.inf)
        np.maximum.at(highest, inverse, score[rows])
        defrauded = np.zeros(len(who), dtype=np.bool_)
        np.logical_or.at(defrauded, inverse, y[rows])
        top = np.argsort(-highest, kind="stable")[:k]
        hit = top[defrauded[top]]
        gone[who[hit]] = True
        looked.append(len(top))
        found.append(len(hit))
    return DailyCards(days, np.array(looked, dtype=np.int64), np.array(found, dtype=np.int64))


def mean_interval(values: Vector, *, seed: int = 7) -> Figure:
    """Mean of days with a bootstrap interval."""
    if len(values) == 0:
        return Figure(float("nan"), float("nan"), float("nan"))
    if len(values) == 1 or values.min() == values.max():
        return Figure(float(values.mean()), float(values.min()), float(values.max()))
    mean: Callable[..., Any] = np.mean
    found = stats.bootstrap(
        (values,), mean, n_resamples=999, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return Figure(float(values.mean()), float(found.low), float(found.high))
