"""Training of the churn model: trees on replayed vectors, calibrated and measured on later days."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from features.definitions import DAY_MS
from features.engine import Engine
from models.boosting import Labels, OnRound, Rows, boost, margins, thin_negatives
from models.pipeline import is_customer_feature
from models.replay import TrainingData
from models.tree import ModelCard, to_proba
from schemas.errors import ModelError

_CHURN = {"max_depth": 4, "eta": 0.08, "min_child_weight": 10, "subsample": 0.8, "colsample_bytree": 0.6}
_FEWEST_POSITIVES = 20
_NEGATIVES_PER_POSITIVE = 60


def train_churn(
    data: TrainingData,
    engine: Engine,
    *,
    created_at: str,
    horizon_days: int = 30,
    seed: int = 7,
    source: str = "",
    on_round: OnRound | None = None,
) -> tuple[ModelCard, bytes]:
    """A churn model from snapshots of replayed history.

    Raises:
        ModelError: Too few customers left to learn from or to measure on.
    """
    columns = np.array([i for i, f in enumerate(engine.features) if is_customer_feature(f)])
    X, y, times = data.churn_X[:, columns], data.churned, data.churn_as_of_ms
    split = np.quantile(times, 0.7) if len(times) else 0
    # What a fitted row's horizon shows must not be what a held row is asked.
    fit, held = times <= split - horizon_days * DAY_MS, times >= split
    booster, slope, intercept, proba = _fit(X, y, fit, held, _CHURN, 200, seed, "churn", on_round)
    card = ModelCard(
        name="churn",
        version="",
        created_at=created_at,
        features_hash=engine.hash,
        feature_names=tuple(engine.names[c] for c in columns),
        slope=slope,
        intercept=intercept,
        thresholds={"medium": 0.3, "high": 0.6},
        data=_described(times, y, source),
        metrics=_metrics(y[held], proba),
        horizon_days=horizon_days,
    )
    return card, bytes(booster.save_raw("ubj"))


def _fit(
    X: Rows,
    y: Labels,
    fit: Labels,
    held: Labels,
    params: Mapping[str, float],
    rounds: int,
    seed: int,
    name: str,
    on_round: OnRound | None,
) -> tuple[xgboost.Booster, float, float, npt.NDArray[np.float64]]:
    for rows, use in ((fit, "learn from"), (held, "measure on")):
        if y[rows].sum() < _FEWEST_POSITIVES or (~y[rows]).sum() < _FEWEST_POSITIVES:
            raise ModelError(
                f"the {name} model has {int(y[rows].sum())} positive and {int((~y[rows]).sum())} negative "
                f"rows to {use}; it needs {_FEWEST_POSITIVES} of each: give it more history or customers"
            )
    fit, _ = thin_negatives(y, fit, seed, _NEGATIVES_PER_POSITIVE)
    booster = boost(X[fit], y[fit], params, rounds, seed=seed, on_round=on_round)
    margin = margins(booster, X[held])
    # Platt, J. (1999): one slope keeps the order of scores and the exactness of contributions.
    platt = LogisticRegression(C=1e6).fit(margin[:, None], y[held])
    slope, intercept = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if slope <= 0:
        raise ModelError(f"the {name} model does no better than chance on held-back days: look at its data")
    return booster, slope, intercept, to_proba(slope * margin + intercept)


def _metrics(y: Labels, proba: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {
        "rows": len(y),
        "positives": int(y.sum()),
        "average_precision": float(average_precision_score(y, proba)),
        "roc_auc": float(roc_auc_score(y, proba)),
        "brier": float(brier_score_loss(y, proba)),
        "note": "held-back days; calibration was fitted on the same days",
    }


def _described(times: npt.NDArray[np.int64], y: Labels, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "rows": len(times),
        "positives": int(y.sum()),
        "from_ms": int(times.min()),
        "to_ms": int(times.max()),
    }
