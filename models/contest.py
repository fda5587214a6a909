"""A challenger against a champion on data that neither learned from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from models.tree import Vector

Labels = npt.NDArray[np.bool_]
MEASURE: Final = "average_precision"
_MEASURES: Final[Mapping[str, Callable[..., float]]] = {
    "average_precision": average_precision_score,
    "roc_auc": roc_auc_score,
    "brier": brier_score_loss,
}
_FEWEST: Final = 20


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Contest:
    """What two models reached on the same rows.

    Attributes:
        champion, challenger: By measure.
        difference: Challenger less champion, by measure, of the same draws.
        verdict: `wins` where the interval of the difference in average precision is above 0, `loses` where
            it is below, else `undecided`.
        why: The verdict in a sentence.
    """

    rows: int
    positives: int
    champion: Mapping[str, Interval]
    challenger: Mapping[str, Interval]
    difference: Mapping[str, Interval]
    verdict: Literal["wins", "loses", "undecided"]
    why: str


def contest(
    y: Labels,
    champion: Vector,
    challenger: Vector,
    customer: npt.NDArray[np.intp],
    *,
    resamples: int = 300,
    seed: int = 7,
) -> Contest:
    """Compare the scores of two models for the same rows by a paired bootstrap.

    Rows of one customer belong together, so customers are drawn and not rows: each counts a Poisson number
    of times, the same for both models.

    Args:
        y: `(n,)` outcomes.
        champion: `(n,)` probabilities.
        challenger: `(n,)` probabilities.
        customer: `(n,)` codes from 0.
        resamples: Number of draws.
        seed: Of the draws.

    Source:
        Chamandy et al. (2012), Estimating uncertainty for massive data streams (Poisson bootstrap).
    """
    rows, positives = len(y), int(y.sum())
    if positives < _FEWEST or rows - positives < _FEWEST:
        why = (
            f"{positives} positive and {rows - positives} negative rows are held back; with fewer than "
            f"{_FEWEST} of each nothing can be told"
        )
        return Contest(rows, positives, {}, {}, {}, "undecided", why)
    random, customers = np.random.default_rng(seed), int(customer.max()) + 1
    ones = np.ones(rows)
    said = [_figures(y, champion, ones), _figures(y, challenger, ones)]
    draws: list[list[dict[str, float]]] = []
    while len(draws) < resamples:
        weights = random.poisson(1.0, customers).astype(np.float64)[customer]
        if weights[y].any() and weights[~y].any():
            draws.append([_figures(y, champion, weights), _figures(y, challenger, weights)])
    first, second, difference = {}, {}, {}
    for name in _MEASURES:
        found = np.array([[one[name], other[name]] for one, other in draws])
        first[name] = _interval(said[0][name], found[:, 0])
        second[name] = _interval(said[1][name], found[:, 1])
        difference[name] = _interval(said[1][name] - said[0][name], found[:, 1] - found[:, 0])
    gain = difference[MEASURE]
    about = (
        f"average precision {second[MEASURE].value:.4f} against {first[MEASURE].value:.4f} on {rows:,} "
        f"held-back rows with {positives:,} positives; difference {gain.value:+.4f}, 95 % interval "
        f"{gain.low:+.4f} to {gain.high:+.4f}"
    )
    if gain.low > 0:
        return Contest(rows, positives, first, second, difference, "wins", f"the challenger wins: {about}")
    if gain.high < 0:
        return Contest(rows, positives, first, second, difference, "loses", f"the challenger loses: {about}")
    why = f"the challenger is not proven better: {about}"
    return Contest(rows, positives, first, second, difference, "undecided", why)


def _figures(y: Labels, proba: Vector, weights: Vector) -> dict[str, float]:
    return {name: float(measure(y, proba, sample_weight=weights)) for name, measure in _MEASURES.items()}


def _interval(value: float, draws: Vector) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def codes_of(customer_ids: list[str]) -> npt.NDArray[np.intp]:
    """Codes from 0 for customers.

    >>> codes_of(["b", "a", "b"]).tolist()
    [1, 0, 1]
    """
    return np.unique(np.array(customer_ids, dtype=object), return_inverse=True)[1].astype(np.intp)
