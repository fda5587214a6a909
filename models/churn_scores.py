"""Churn of customers as of a moment: probabilities, bands, drivers and the money that is at risk."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.definitions import DAY_MS
from features.engine import Engine, Matrix
from features.lifetime import customer_names, customer_vectors, declared
from models.model_set import Models
from models.reasons import by_name, explain
from models.roles import ShadowScore, shadow_scores, split
from models.tree import TreeModel

BANDS: Final = ("low", "medium", "high")
ACTIONS: Final = ("none", "watch", "contact")
_YEAR_S: Final = 365 * 86_400
_LEAST_LIFE_YEARS: Final = 0.5
"""Of a shorter life a year would be made many times over."""
_CREDIBLE_DAYS: Final = 4.0
"""So many active days of 90 behind the first, and their pace counts as much as the whole life's."""


class ChurnResult(NamedTuple):
    """A recomputed churn probability.

    Attributes:
        shadows: One for each shadow.
    """

    customer_id: str
    slot: int
    as_of_ms: int
    proba: float
    band: int
    band_before: int
    value_at_risk: float
    drivers: tuple[dict[str, Any], ...] = ()
    shadows: tuple[ShadowScore, ...] = ()


class ChurnResults(list[ChurnResult]):
    """Results, and beside them in one array what is counted of each: most chunks have hundreds.

    Attributes:
        numbers: `(n, 4)` probability, value at risk, band and the band before.

    Args:
        results: Each with its numbers.
        numbers: The same, where they are an array already.
    """

    def __init__(self, results: Iterable[ChurnResult] = (), numbers: Matrix | None = None) -> None:
        super().__init__(results)
        if numbers is None:
            rows = [(r.proba, r.value_at_risk, r.band, r.band_before) for r in self]
            numbers = np.array(rows, dtype=np.float64).reshape(-1, 4)
        self.numbers = numbers


def score_churn(arena: HistoryArena, wanted: Sequence[tuple[str, int, int]], models: Models) -> ChurnResults:
    """Churn of customers `(customer_id, slot, as_of_ms)`; their totals remember day and band."""
    if not wanted:
        return ChurnResults()
    # Each in a row of its own: numba compiles once more for memory that is read in steps.
    slots, as_of = np.ascontiguousarray(np.array([who[1:] for who in wanted], dtype=np.int64).T)
    return rescore(arena, wanted, customer_vectors(models.engine, arena, slots, as_of), models)


def rescore(
    arena: HistoryArena, wanted: Sequence[tuple[str, int, int]], X: Matrix, models: Models
) -> ChurnResults:
    """`score_churn` of customers whose rows of `customer_vector` are made already."""
    slots, as_of = np.array([who[1:] for who in wanted], dtype=np.int64).T
    bands = arena.headers["churn_band"]
    results = churn_results(X, wanted, bands[slots].tolist(), models)
    if len(set(slots.tolist())) < len(results):
        # A chunk may span days: the band before is then that of the result before.
        band_of: dict[int, int] = {}
        for number, result in enumerate(results):
            before = band_of.get(result.slot, result.band_before)
            results[number] = result._replace(band_before=before)
            results.numbers[number, 3] = before
            band_of[result.slot] = result.band
    # Of a slot that is named twice the last is kept.
    arena.set_churn(slots, as_of // DAY_MS, [result.band for result in results])
    return results


def churn_results(
    X: Matrix,
    wanted: Sequence[tuple[str, int, int]],
    bands_before: Sequence[int],
    models: Models,
    *,
    explained: bool = True,
    staying: bool = False,
) -> ChurnResults:
    """Probabilities, bands and, above the lowest band, drivers of rows of `customer_vector`.

    Args:
        X: `(n, k)`.
        wanted: `n` of customer, slot, moment.
        bands_before: `n` bands.
        models: The models in use.
        explained: Whether drivers are wanted.
        staying: Whether in the lowest band, too: there, what lowers the probability. Whoever asks about one
            customer wants to know; of a stream most are there, and explaining costs more than scoring.
    """
    proba, bands = np.empty(len(X)), np.zeros(len(X), dtype=np.int8)
    drivers: dict[int, tuple[dict[str, Any], ...]] = {}
    customer_ids = [customer_id for customer_id, _, _ in wanted]
    all_rows = np.arange(len(X))
    for model, rows in split(models.churn, models.challengers.get("churn"), customer_ids, all_rows):
        proba[rows] = model.predict_proba(X[rows])
        bands[rows] = band(model, proba[rows])
        for sign in (1, -1) if staying else (1,):
            shown = rows[(bands[rows] > 0) == (sign > 0)] if explained else rows[:0]
            if len(shown):
                found = explain(model, X[shown], by_name(declared(models.engine)), sign=sign)
                drivers.update(zip(shown.tolist(), found, strict=True))
    at_risk = proba * yearly_spend(X, models.engine)
    shadows = shadow_scores(models.shadows.get("churn", ()), X, all_rows, band)
    columns = (proba.tolist(), bands.tolist(), bands_before, at_risk.tolist())
    each = enumerate(zip(wanted, *columns, strict=True))
    return ChurnResults(
        (
            ChurnResult(*who, score, band_now, before, value, drivers.get(i, ()), tuple(shadows.get(i, ())))
            for i, (who, score, band_now, before, value) in each
        ),
        np.array((proba, at_risk, bands, bands_before), dtype=np.float64).T,
    )


def yearly_spend(X: Matrix, engine: Engine) -> npt.NDArray[np.float64]:
    """What customers spend a year as long as they stay, `(n,)`, from rows of `customer_vector`.

    That of their whole life, of half a year at least, moved towards the pace of the last 90 days as their
    active days there allow: one purchase is no pace, and who comes every week has one. So many days a
    behind the first give it the weight a / (a + 4), as credibility has it.

    Source:
        Buehlmann, H. (1967), ASTIN Bulletin 4, 199-207.
    """
    columns = X[:, _spend_columns(customer_names(engine))]
    recent, ever, tenure_s, days = np.where(np.isnan(columns), 0.0, columns).T
    of_life = ever / np.maximum(tenure_s / _YEAR_S, _LEAST_LIFE_YEARS)
    # The first day of the window begins a pace; those after it confirm one.
    again = np.maximum(days - 1.0, 0.0)
    spend: npt.NDArray[np.float64] = of_life + again / (again + _CREDIBLE_DAYS) * (
        recent * 365 / 90 - of_life
    )
    return spend


@lru_cache(maxsize=8)
def _spend_columns(names: tuple[str, ...]) -> list[int]:
    wanted = ("amount_sum_90d", "amount_sum_ever", "tenure_s", "active_days_90d")
    return [names.index(name) for name in wanted]


def band(model: TreeModel, proba: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Index into `BANDS` for each probability."""
    medium, high = model.card.thresholds["medium"], model.card.thresholds["high"]
    return (proba >= medium).astype(np.int8) + (proba >= high).astype(np.int8)
