"""From a model's margins to probabilities, and how far those are from what happened."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from models.platt import Platt
from models.tree import to_proba

Labels = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
_BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted and found shares, in bins of equally many rows sorted by prediction.

    Attributes:
        predicted: `(k,)` mean probability of each bin.
        found: `(k,)` share of positives in it.
        rows: `(k,)` rows in it.
    """

    predicted: Vector
    found: Vector
    rows: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, by rows."""
        return float(np.average(np.abs(self.predicted - self.found), weights=self.rows))


def reliability(y: Labels, proba: Vector, bins: int = _BINS) -> Reliability:
    """How probabilities compare with shares.

    Equal widths would put nearly all transactions, which are nearly all genuine, into the first bin, and
    equally many rows would see frauds in the last one only: bins hold equal shares of the predicted frauds.

    >>> r = reliability(np.array([False, True, False, True]), np.full(4, 0.5))
    >>> r.error
    0.0
    """
    order = np.argsort(proba, kind="stable")
    expected = np.cumsum(proba[order])
    edges = np.linspace(0, expected[-1], bins + 1)[1:-1] if len(order) else np.empty(0)
    ranked = proba[order]
    # Rows of one score stay together: their order says nothing.
    cuts = np.searchsorted(ranked, ranked[np.minimum(np.searchsorted(expected, edges), len(order) - 1)])
    parts = [part for part in np.split(order, cuts) if len(part)]
    return Reliability(
        np.array([proba[part].mean() for part in parts]),
        np.array([y[part].mean() for part in parts]),
        np.array([len(part) for part in parts], dtype=np.int64),
    )


def compare(
    fitted: tuple[Vector, Labels], later: tuple[Vector, Labels], platt: Platt
) -> dict[str, dict[str, float]]:
    """Brier score and calibration error on later days: as it is, by Platt, and by isotonic regression.

    Args:
        fitted: Margins and labels that calibration was fitted on.
        later: Margins and labels of later days.
        platt: Fitted on the former.
    """
    margin, y = fitted
    isotonic: Any = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(margin, y)
    probas = {
        "none": to_proba(later[0]),
        "platt": platt.proba(later[0]),
        "isotonic": np.asarray(isotonic.predict(later[0]), dtype=np.float64),
    }
    return {
        name: {
            "brier": float(brier_score_loss(later[1], proba)),
            "calibration_error": reliability(later[1], proba).error,
        }
        for name, proba in probas.items()
    }
