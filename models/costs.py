"""Decisions by expected cost: which scores are worth an analyst's time, and which a refusal.

Elkan, C. (2001), IJCAI 17, 973-978: with costs that differ by row, the best decision is the one that is
expected to cost least.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

Labels = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
_NEARLY_CERTAIN: Final = 0.99


@dataclass(frozen=True, slots=True)
class Costs:
    """What decisions cost, in the currency of the transactions.

    Attributes:
        review: An analyst's look at one transaction.
        found_share: Share of a reviewed fraud's amount that is saved.
        refusal: Of refusing a good customer's payment: the call, the apology.
        leaving_proba: How likely a customer leaves who was refused without reason.
        margin_ratio: A customer's yearly worth over what they spend in a year.
        alerts_a_day: The most reviews and refusals a day; `None` for what `alerts_share` allows.
        alerts_share: The most of them as a share of all transactions; 1 for as many as pay.

    Raises:
        ConfigError: A value that cannot be.
    """

    review: float = 5.0
    found_share: float = 0.9
    refusal: float = 10.0
    leaving_proba: float = 0.02
    margin_ratio: float = 0.02
    alerts_a_day: float | None = None
    alerts_share: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            # Every comparison with NaN is false, so what is below would let it pass.
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"{name.replace('_', ' ')} of {value} is no number")
        for name, most in (
            ("found_share", 1.0),
            ("leaving_proba", 1.0),
            ("margin_ratio", np.inf),
            ("alerts_share", 1.0),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name.replace('_', ' ')} of {getattr(self, name)} is not a share")
        if min(self.review, self.refusal) < 0 or (self.alerts_a_day is not None and self.alerts_a_day <= 0):
            raise ConfigError("costs cannot be negative, and alerts a day must be more than none")

    def of_refusal(self, yearly_spend: Vector) -> Vector:
        """What refusing each of these good customers costs, `(n,)`."""
        return self.refusal + self.leaving_proba * self.margin_ratio * yearly_spend


@dataclass(frozen=True, slots=True)
class Effect:
    """Thresholds, and what they would have done on days with known outcome.

    Attributes:
        review, block: Thresholds.
        alerts_a_day: Reviews and refusals.
        refusals_a_day: Of them refusals.
        good_refusals_a_day: Of these those of good customers.
        cost_without: Frauds' amount a day where everything is allowed.
        cost: What frauds, reviews and refusals cost a day.
        unbounded_alerts_a_day, unbounded_cost: The same where alerts were not bounded.
    """

    review: float
    block: float
    alerts_a_day: float
    refusals_a_day: float
    good_refusals_a_day: float
    cost_without: float
    cost: float
    unbounded_alerts_a_day: float
    unbounded_cost: float

    def document(self) -> dict[str, Any]:
        """For a card."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def choose_thresholds(
    y: Labels, proba: Vector, amount: Vector, yearly_spend: Vector, days: float, costs: Costs
) -> Effect:
    """The thresholds of least cost.

    A score is reviewed from where reviewing everything above cost least on these days; of those the highest
    are refused from where refusing instead cost least. Calibration carries it to other days.

    Args:
        y: `(n,)` whether fraud; `n` is at least 1.
        proba: `(n,)` calibrated.
        amount: `(n,)` at risk.
        yearly_spend: `(n,)` of the customer.
        days: That these rows are of.
        costs: What decisions cost.
    """
    order = np.argsort(-proba, kind="stable")
    y, proba, amount = y[order], proba[order], amount[order]
    fraud = np.where(y, amount, 0.0)
    refusal = np.where(y, 0.0, costs.of_refusal(yearly_spend[order]))
    # Only whole scores can be told apart by a threshold.
    last = np.flatnonzero(np.r_[proba[1:] != proba[:-1], True])
    saved = np.r_[0.0, np.cumsum(costs.found_share * fraud - costs.review)[last]]
    more = np.r_[0.0, np.cumsum((1.0 - costs.found_share) * fraud + costs.review - refusal)[last]]
    allowed = costs.alerts_share * len(y) if costs.alerts_a_day is None else costs.alerts_a_day * days
    free = int(np.argmax(saved))
    reviewed = int(np.argmax(np.where(np.r_[0, last + 1] <= allowed, saved, -np.inf)))
    refused, free_refused = (int(np.argmax(more[: n + 1])) for n in (reviewed, free))
    thresholds = [float(proba[last[n - 1]]) if n else _NEARLY_CERTAIN for n in (reviewed, refused)]
    review, block = thresholds[0], max(thresholds)
    alerts, refusals, free_alerts = (int(last[n - 1]) + 1 if n else 0 for n in (reviewed, refused, free))
    without = float(fraud.sum())
    return Effect(
        review,
        block,
        alerts / days,
        refusals / days,
        float((~y[:refusals]).sum()) / days,
        without / days,
        (without - float(saved[reviewed]) - float(more[refused])) / days,
        free_alerts / days,
        (without - float(saved[free]) - float(more[free_refused])) / days,
    )
