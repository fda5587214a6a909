"""A churn model over a past log: who it would have called, and who left."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from features.definitions import DAY_MS
from features.engine import Engine
from features.lifetime import declared
from models.churn import UNTOLD, ChurnRows, calibration_error, customers_as_of, end_of, of_late
from models.churn_scores import BANDS, band, yearly_spend
from models.currencies import Currencies, mixed
from models.reasons import by_name, explain
from models.tree import TreeModel
from models.vectors import Rows

_TENTH: Final = 0.1
_SHOWN: Final = 15
FIGURES: Final = (
    ("roc_auc", "ROC AUC"),
    ("average_precision", "average precision"),
    ("calibration_error", "calibration error (10 bins of equal width)"),
    ("brier", "Brier score"),
    ("lift", "lift of the tenth with the highest probability"),
    ("caught", "share of all who left that is in that tenth"),
)


@dataclass(frozen=True, slots=True)
class ScoredCustomers:
    """Scored customers of one cut-off.

    Attributes:
        customer_ids: `n` ids.
        as_of_ms: The cut-off.
        proba: `(n,)` calibrated probabilities.
        band: `(n,)` indices into `models.churn_scores.BANDS`.
        value_at_risk: `(n,)` probability times what the customer spends a year.
        label: `(n,)` 1 left, 0 stayed, `UNTOLD`.
        drivers: Of rows above the lowest band, by row.
        gone: `(n,)` whether a customer was silent for longer than `models.churn.longest_silence`;
            `None`: nobody.
    """

    customer_ids: Sequence[str]
    as_of_ms: int
    proba: npt.NDArray[np.float64]
    band: npt.NDArray[np.int8]
    value_at_risk: npt.NDArray[np.float64]
    label: npt.NDArray[np.int8]
    drivers: dict[int, tuple[dict[str, Any], ...]]
    gone: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.customer_ids)

    def present(self) -> "ScoredCustomers":
        """Those who were not silent for long: whom one can lose, and who can tell a model from another."""
        if self.gone is None or not self.gone.any():
            return self
        kept = np.flatnonzero(~self.gone)
        place = {row: number for number, row in enumerate(kept.tolist())}
        return ScoredCustomers(
            [self.customer_ids[row] for row in kept.tolist()],
            self.as_of_ms,
            self.proba[kept],
            self.band[kept],
            self.value_at_risk[kept],
            self.label[kept],
            {place[row]: said for row, said in self.drivers.items() if row in place},
        )


def every(from_ms: int, to_ms: int, step_ms: int) -> list[int]:
    """Cut-offs from a moment to another, both counted where a step meets them.

    >>> every(0, 10, 5), every(7, 7, 5)
    ([0, 5, 10], [7])
    """
    return list(range(from_ms, max(to_ms, from_ms) + 1, step_ms))


def backtest_churn(
    rows: Rows, model: TreeModel, engine: Engine, cut_offs: Sequence[int]
) -> Iterator[ScoredCustomers]:
    """Score everybody who was ever there before each cut-off, by the code of the worker's sweep.

    Args:
        rows: A log in time order.
        model: The churn model, over the columns of `features.lifetime.customer_names`.
        engine: What it was trained on.
        cut_offs: In ascending order.
    """
    horizon_ms, words = model.card.horizon_days * DAY_MS, by_name(declared(engine))
    end_ms = end_of(rows)
    for here in customers_as_of(rows, engine, cut_offs, horizon_ms=horizon_ms, end_ms=end_ms):
        yield _scored(here, model, engine, words)


def _scored(here: ChurnRows, model: TreeModel, engine: Engine, words: Any) -> ScoredCustomers:
    X = here.X.astype(np.float64)
    proba = model.predict_proba(X)
    bands = band(model, proba)
    rows = np.flatnonzero(bands > 0)
    drivers = dict(zip(rows.tolist(), explain(model, X[rows], words), strict=True))
    return ScoredCustomers(
        here.customer_ids,
        int(here.as_of_ms[0]) if len(proba) else 0,
        proba,
        bands,
        proba * yearly_spend(X, engine),
        here.churned,
        drivers,
        ~of_late(X, engine, model.card.horizon_days * DAY_MS),
    )


@dataclass(frozen=True, slots=True)
class ChurnReport:
    """How good the probabilities were.

    Attributes:
        figures: By name: value and its 95 % interval, over resampled customers; empty where no
            horizon is over.
        present: The same without customers who were silent for long.
        customers, left: Rows whose outcome is known, and those of them that left.
        untold: Rows whose horizon is not over.
        gone: Rows of customers who were silent for long.
        top_customers, top_left: The tenth with the highest probability, and those of them that left.
        bins: Predicted and found share, and rows, of each bin of calibration.
        value_at_risk: Of the newest cut-off, without those who were silent for long.
        bands: Of the same by band: customers, value at risk, and how many of those with a known
            outcome left.
        top_drivers: Features that most often drive a probability above the lowest band, with how often.
        proba, y: `(customers,)` of each row whose outcome is known, and whether it left.
        notes: Sentences on what the figures are not.
    """

    figures: dict[str, tuple[float, float, float]]
    present: dict[str, tuple[float, float, float]]
    customers: int
    left: int
    untold: int
    gone: int
    top_customers: int
    top_left: int
    bins: list[tuple[float, float, int]]
    value_at_risk: float
    bands: list[dict[str, Any]]
    top_drivers: list[tuple[str, int]]
    proba: npt.NDArray[np.float64]
    y: npt.NDArray[np.bool_]
    notes: list[str]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "customers": self.customers,
            "left": self.left,
            "horizon_not_over": self.untold,
            "long_silent": self.gone,
            "figures": _document(self.figures),
            "figures_without_gone": _document(self.present),
            "top_decile": {"customers": self.top_customers, "left": self.top_left},
            "calibration": [
                {"predicted": round(p, 4), "found": round(f, 4), "customers": n} for p, f, n in self.bins
            ],
            "value_at_risk": round(self.value_at_risk, 2),
            "bands": self.bands,
            "top_drivers": [{"feature": name, "customers": times} for name, times in self.top_drivers],
            "notes": self.notes,
        }


def _document(figures: Mapping[str, tuple[float, float, float]]) -> dict[str, dict[str, float]]:
    return {
        name: dict(zip(("value", "low", "high"), (round(v, 6) for v in values), strict=True))
        for name, values in figures.items()
    }


def churn_report(
    blocks: Sequence[ScoredCustomers],
    *,
    resamples: int = 200,
    seed: int = 7,
    currencies: Currencies | None = None,
) -> ChurnReport:
    """Figures of all rows whose outcome is known, and of those who were not silent for long.

    Of a long log most are gone, and nothing is easier than that: the second say who of those that one can
    still lose will go. Value at risk and bands are of them alone.

    Args:
        blocks: Of each cut-off.
        resamples: Bootstrap samples of customers; a customer may stand at several cut-offs.
        seed: Of the draws.
        currencies: Of the transactions.
    """
    note = mixed(currencies or {}, "value at risk and its sums by band")
    present = [block.present() for block in blocks]
    gone = sum(map(len, blocks)) - sum(map(len, present))
    p, y, untold, figures = _known_figures(blocks, resamples, seed)
    of_present = _known_figures(present, resamples, seed).figures if gone else figures
    top = _top(p)
    which = np.minimum((p * 10).astype(np.int64), 9)
    bins = [
        (float(p[which == b].mean()), float(y[which == b].mean()), int((which == b).sum()))
        for b in range(10)
        if (which == b).any()
    ]
    return ChurnReport(
        figures,
        of_present,
        len(y),
        int(y.sum()),
        untold,
        gone,
        len(top),
        int(y[top].sum()),
        bins,
        float(present[-1].value_at_risk.sum()) if present else 0.0,
        _bands(present[-1]) if present else [],
        Counter(d["feature"] for b in blocks for drivers in b.drivers.values() for d in drivers).most_common(
            _SHOWN
        ),
        p,
        y,
        [] if note is None else [note],
    )


class _Known(NamedTuple):
    proba: npt.NDArray[np.float64]
    y: npt.NDArray[np.bool_]
    untold: int
    figures: dict[str, tuple[float, float, float]]


def _known_figures(blocks: Sequence[ScoredCustomers], resamples: int, seed: int) -> _Known:
    proba = np.concatenate([np.empty(0), *(b.proba for b in blocks)])
    label = np.concatenate([np.empty(0, np.int8), *(b.label for b in blocks)])
    known = label != UNTOLD
    names = np.array([c for b in blocks for c in b.customer_ids], dtype=object)
    p, y = proba[known], label[known] == 1
    figures: dict[str, tuple[float, float, float]] = {}
    if y.any() and not y.all():
        _, customer = np.unique(names[known], return_inverse=True)
        drawn = _resampled(y, p, customer, resamples, seed)
        for name, value in _figures(y, p).items():
            low, high = np.quantile([d[name] for d in drawn], (0.025, 0.975)) if drawn else (value, value)
            figures[name] = (value, float(low), float(high))
    return _Known(p, y, int((~known).sum()), figures)


def _bands(newest: ScoredCustomers) -> list[dict[str, Any]]:
    rows = []
    for code, name in enumerate(BANDS):
        mine = newest.band == code
        known = mine & (newest.label != UNTOLD)
        rows.append(
            {
                "band": name,
                "customers": int(mine.sum()),
                "value_at_risk": round(float(newest.value_at_risk[mine].sum()), 2),
                "outcome_known": int(known.sum()),
                "left": int((newest.label[known] == 1).sum()),
            }
        )
    return rows


def _resampled(
    y: npt.NDArray[np.bool_], p: npt.NDArray[np.float64], customer: npt.NDArray[np.intp], n: int, seed: int
) -> list[dict[str, float]]:
    random, drawn = np.random.default_rng(seed), []
    for _ in range(n):
        times = random.poisson(1.0, int(customer.max()) + 1)[customer]
        rows = np.repeat(np.arange(len(y)), times)
        if 0 < y[rows].sum() < len(rows):
            drawn.append(_figures(y[rows], p[rows]))
    return drawn


def _figures(y: npt.NDArray[np.bool_], p: npt.NDArray[np.float64]) -> dict[str, float]:
    left, top = int(y.sum()), _top(p)
    # Ranks and not scikit-learn, whose checks of the input cost more than the figure in each resample.
    ranks = stats.rankdata(p)
    order = np.argsort(-p, kind="stable")
    # Of rows with one probability none comes before another.
    last = np.r_[np.flatnonzero(np.diff(p[order])), len(p) - 1]
    hits = np.cumsum(y[order])[last]
    precision, recall = hits / (last + 1), hits / left
    return {
        "roc_auc": float((ranks[y].sum() - left * (left + 1) / 2) / (left * (len(y) - left))),
        "average_precision": float(np.sum(np.diff(recall, prepend=0.0) * precision)),
        "calibration_error": calibration_error(y, p),
        "brier": float(((p - y) ** 2).mean()),
        "lift": float(y[top].mean() / y.mean()),
        "caught": float(y[top].sum() / left),
    }


def _top(p: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    return np.argsort(-p, kind="stable")[: int(np.ceil(len(p) * _TENTH))]
