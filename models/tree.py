"""A calibrated gradient-boosted model over columns of the engine's vector."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from features.engine import Matrix
from models.boosters import xgboost
from models.contributions import Contributions
from models.correction import Correction
from models.forest import Inputs, Margins, read_forest
from models.linear import LinearPart
from schemas.errors import ModelError
from schemas.score import Role

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model besides its trees.

    Attributes:
        name: `fraud` or `churn`.
        version: `v1`, `v2`, ...
        created_at: RFC 3339.
        features_hash: Identity of the declarations it was trained on.
        feature_names: Columns it reads, in its own order.
        slope, intercept: Platt scaling: calibrated log-odds = slope * margin + intercept, where the margin is
            the trees' own, or its blend with `linear`.
        thresholds: By decision or band.
        data: What it was trained on: source, window, counts.
        metrics: Measured on held-back data.
        horizon_days: Of a churn model.
        trees_sha256: Of the file with its trees; written when it is saved.
        linear: What is blended with the trees, if anything.
        reference: How its columns and scores were distributed in training (`models.drift`); may be empty.
        correction: What labels have taught since (`models.correction`); may be empty.
    """

    name: str
    version: str
    created_at: str
    features_hash: str
    feature_names: tuple[str, ...]
    slope: float
    intercept: float
    thresholds: Mapping[str, float]
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    horizon_days: int = 0
    trees_sha256: str = ""
    linear: LinearPart | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    correction: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trees_to_ms(self) -> int:
        """Newest transaction that its trees have learned from; 0 where that is not known."""
        grown = self.data.get("grown_anew", {})
        return max(int(self.data.get("to_ms") or 0), int(grown.get("to_ms", 0)))

    @property
    def learned_to_ms(self) -> int:
        """The same, or the newest label that was learned from since."""
        since = self.data.get("learned_from_labels", {})
        return max(self.trees_to_ms, int(since.get("known_to_ms", 0)))


def columns_of(card: ModelCard, names: Sequence[str]) -> npt.NDArray[np.intp]:
    """Where what a model reads is among the features called `names`.

    Raises:
        ModelError: Some of it is not there.
    """
    position = {name: number for number, name in enumerate(names)}
    missing = [name for name in card.feature_names if name not in position]
    if missing:
        raise ModelError(
            f"model {card.name} {card.version} needs features that are not declared: "
            f"{', '.join(missing)}; set TIDEGATE_FEATURES, TIDEGATE_ENTITIES and TIDEGATE_ATTRIBUTES as in "
            "its training, or train it again with this version"
        )
    return np.array([position[name] for name in card.feature_names])


class TreeModel:
    """Trees, calibration and a card.

    Args:
        card: The model's card.
        trees: XGBoost model in its UBJSON form.
        names: The engine's feature names: the columns of every `X` given to this model.
        role: `champion` unless said otherwise.

    Raises:
        ModelError: The model reads a feature that the engine does not compute, or the trees or the
            correction are not of this card.
    """

    def __init__(self, card: ModelCard, trees: bytes, names: Sequence[str], role: Role = "champion") -> None:
        self.card = card
        self.trees = trees
        self.columns = columns_of(card, names)
        self._names = names
        self.role = role
        self.correction: Correction | None = None
        if card.correction:
            try:
                self.correction = Correction.of(card.correction, len(card.feature_names))
            except (TypeError, ValueError, OverflowError) as bad:
                raise ModelError(f"model {card.name} {card.version} cannot be used: {bad}") from bad
        if card.linear is not None and len(card.linear.coef) != len(card.feature_names):
            raise ModelError(
                f"model {card.name} {card.version} cannot be used: its linear part reads "
                f"{len(card.linear.coef)} features, its card names {len(card.feature_names)}"
            )
        self.reference = {"name": card.name, "version": card.version, "role": role}
        self._booster = xgboost.Booster()
        self._booster.load_model(bytearray(trees))
        read = self._booster.num_features()
        if read != len(card.feature_names):
            raise ModelError(
                f"the trees of model {card.name} {card.version} read {read} features, its card names "
                f"{len(card.feature_names)}: they do not belong together"
            )
        # One thread: rows come in chunks, and the other core belongs to the broker and Redis.
        self._booster.set_param({"nthread": 1})
        self._forest = read_forest(bytes(self._booster.save_raw("json")), self._booster_margins)
        self._contributions = Contributions.of(self._forest) if self._forest else None

    def log_odds(self, X: Matrix) -> Vector:
        """Calibrated log-odds, shape `(n,)`, of rows `X: (n, n_features)` in the engine's order."""
        return self.log_odds_of(self._inputs(X))

    def log_odds_of(self, inputs: Inputs) -> Vector:
        """The same of rows `(n, n_columns)` in the order of `card.feature_names`."""
        if not len(inputs):
            return np.empty(0)
        linear = self.card.linear
        of_trees = (self._forest.margins if self._forest else self._booster_margins)(inputs)
        margin = np.asarray(of_trees, dtype=np.float64)
        if linear is not None:
            margin = linear.blend(margin, linear.contributions(inputs).sum(axis=1))
        calibrated: Vector = self.card.slope * margin + self.card.intercept
        if self.correction is not None:
            calibrated += self.correction.contributions(inputs).sum(axis=1) + self.correction.intercept
        return calibrated

    def corrected(self, correction: Correction | None) -> "TreeModel":
        """The same model with what labels have taught since; `None` for nothing."""
        other = copy(self)
        other.correction = correction
        return other

    def regrown(self, card: ModelCard, trees: bytes) -> "TreeModel":
        """Other trees over the same columns, in the same role."""
        return TreeModel(card, trees, self._names, self.role)

    def predict_proba(self, X: Matrix) -> Vector:
        """Calibrated probabilities, shape `(n,)`."""
        return to_proba(self.log_odds(X))

    def contributions(self, X: Matrix) -> Matrix:
        """Exact contributions to the calibrated log-odds.

        Returns:
            `(n, n_columns + 1)`: one column for each of `card.feature_names`, the last is what all
            share. A row sums to its `log_odds`.

        Source:
            Lundberg et al. (2020), Nature Machine Intelligence 2, 56-67 (TreeSHAP).
        """
        if not len(X):
            return np.empty((0, len(self.columns) + 1))
        inputs, linear = self._inputs(X), self.card.linear
        shares = (self._contributions or self._booster_contributions)(inputs)
        if linear is not None:
            shares = linear.blend(shares, linear.contributions(inputs))
        shares = shares * self.card.slope
        shares[:, -1] += self.card.intercept
        if self.correction is not None:
            shares[:, :-1] += self.correction.contributions(inputs)
            shares[:, -1] += self.correction.intercept
        return shares

    def _booster_margins(self, inputs: Inputs) -> Margins:
        return np.asarray(self._booster.inplace_predict(inputs, predict_type="margin"))

    def _booster_contributions(self, inputs: Inputs) -> Matrix:
        # Without the number it starts threads for each matrix: 20 ms for one row.
        shares = self._booster.predict(xgboost.DMatrix(inputs, nthread=1), pred_contribs=True)
        return np.asarray(shares, dtype=np.float64)

    def _inputs(self, X: Matrix) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(X[:, self.columns], dtype=np.float32)


def to_proba(log_odds: Vector) -> Vector:
    """Logistic function.

    >>> to_proba(np.array([0.0, 2.0, -1000.0])).round(3).tolist()
    [0.5, 0.881, 0.0]
    """
    with np.errstate(over="ignore"):  # infinity under the fraction is the right zero
        odds: Vector = np.exp(-log_odds)
    return 1.0 / (1.0 + odds)
