"""A challenger against a champion on data that neither learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from features.engine import Engine
from models.backtest import backtest_fraud
from models.churn_backtest import backtest_churn
from models.evaluation import Figure, Labels, Ranking, Vector
from models.tree import TreeModel
from models.vectors import Rows

MEASURE: Final = "average_precision"
_FEWEST: Final = 20


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
    champion: Mapping[str, Figure]
    challenger: Mapping[str, Figure]
    difference: Mapping[str, Figure]
    verdict: Literal["wins", "loses", "undecided"]
    why: str

    def document(self) -> dict[str, Any]:
        """For JSON and cards."""
        sides = {"champion": self.champion, "challenger": self.challenger, "difference": self.difference}
        return {
            "rows": self.rows,
            "positives": self.positives,
            **{side: {name: f.document() for name, f in found.items()} for side, found in sides.items()},
            "verdict": self.verdict,
            "why": self.why,
        }


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
    both = [(Ranking(y, proba), (proba - y) ** 2) for proba in (champion, challenger)]
    said = [_figures(*one) for one in both]
    draws: list[list[dict[str, float]]] = []
    while len(draws) < resamples:
        weights = random.poisson(1.0, customers).astype(np.float64)[customer]
        if weights[y].any() and weights[~y].any():
            draws.append([_figures(*one, weights) for one in both])
    first, second, difference = {}, {}, {}
    for name in said[0]:
        found = np.array([[one[name], other[name]] for one, other in draws])
        first[name] = _with_interval(said[0][name], found[:, 0])
        second[name] = _with_interval(said[1][name], found[:, 1])
        difference[name] = _with_interval(said[1][name] - said[0][name], found[:, 1] - found[:, 0])
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


def _figures(ranking: Ranking, errors: Vector, weights: Vector | None = None) -> dict[str, float]:
    return ranking.figures(weights) | {"brier": float(np.average(errors, weights=weights))}


def _with_interval(value: float, draws: Vector) -> Figure:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Figure(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Scores:
    """Probabilities of rows whose outcome is known.

    Attributes:
        y: `(n,)` outcomes.
        proba: `(n,)`.
        customer: `(n,)` codes from 0.
    """

    y: Labels
    proba: Vector
    customer: npt.NDArray[np.intp]


def fraud_scores(rows: Rows, model: TreeModel, engine: Engine, from_ms: int, until_ms: int) -> Scores:
    """What a fraud model gives the transactions of `[from_ms, until_ms)`, each from the log before it."""
    blocks = backtest_fraud(rows, model, engine, from_ms=from_ms, to_ms=until_ms, anomaly=False)
    return _known([(b.customer_ids, b.label, b.score) for b in blocks])


def churn_scores(rows: Rows, model: TreeModel, engine: Engine, cut_offs: Sequence[int]) -> Scores:
    """What a churn model gives customers at these cut-offs, in ascending order."""
    blocks = (block.present() for block in backtest_churn(rows, model, engine, cut_offs))
    return _known([(b.customer_ids, b.label, b.proba) for b in blocks])


def _known(parts: Sequence[tuple[Sequence[str], npt.NDArray[np.int8], Vector]]) -> Scores:
    label = np.concatenate([np.empty(0, np.int8), *(label for _, label, _ in parts)])
    proba = np.concatenate([np.empty(0), *(proba for _, _, proba in parts)])
    codes: dict[str, int] = {}
    customer = np.array([codes.setdefault(c, len(codes)) for ids, _, _ in parts for c in ids], dtype=np.intp)
    # Both backtests say -1 of what the file does not tell.
    told = label >= 0
    return Scores(label[told] == 1, proba[told], customer[told])
