"""Training: trees on replayed vectors, calibrated and measured on later days."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, precision_recall_curve, roc_auc_score

from features.definitions import DAY_MS
from features.engine import Engine
from models.replay import TrainingData
from models.tree import ModelCard, to_proba
from schemas.errors import ModelError

Labels = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.float32]
_FRAUD = {"max_depth": 6, "eta": 0.1, "min_child_weight": 5, "subsample": 0.8, "colsample_bytree": 0.6}
_FEWEST_POSITIVES = 20
_NEGATIVES_PER_POSITIVE = 60


def train_fraud(
    data: TrainingData,
    engine: Engine,
    *,
    created_at: str,
    label_delay_days: int = 7,
    seed: int = 7,
    source: str = "",
    on_round: Callable[[int, int], None] | None = None,
) -> tuple[ModelCard, bytes]:
    """A fraud model from replayed history.

    The last label delay is left out: its frauds are not yet known, so its genuine rows are not
    either. Of the rest the last quarter calibrates and measures.

    Raises:
        ModelError: Too few known frauds to learn from or to measure on.
    """
    mature = data.time_ms < data.end_ms - label_delay_days * DAY_MS
    known = data.fraud_known_ms
    y = np.array([known.get(i, data.end_ms + 1) <= data.end_ms for i in data.transaction_ids], dtype=np.bool_)
    times, X, y = data.time_ms[mature], data.X[mature], y[mature]
    columns = np.arange(len(engine.names))
    split = np.quantile(times, 0.75) if len(times) else 0
    fit, held = times < split, times >= split
    booster, slope, intercept, proba = _fit(X, y, fit, held, _FRAUD, 250, seed, "fraud", on_round)
    review, block = _fraud_thresholds(y[held], proba)
    chosen = proba >= review
    metrics = _metrics(y[held], proba) | {
        "precision_at_review": _share(y[held][chosen]),
        "recall_at_review": float(chosen[y[held]].mean()),
    }
    card = ModelCard(
        name="fraud",
        version="",
        created_at=created_at,
        features_hash=engine.hash,
        feature_names=tuple(engine.names[c] for c in columns),
        slope=slope,
        intercept=intercept,
        thresholds={"review": review, "block": block},
        data=_described(times, y, source) | {"label_delay_days": label_delay_days},
        metrics=metrics,
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
    on_round: Callable[[int, int], None] | None,
) -> tuple[xgboost.Booster, float, float, npt.NDArray[np.float64]]:
    for rows, use in ((fit, "learn from"), (held, "measure on")):
        if y[rows].sum() < _FEWEST_POSITIVES or (~y[rows]).sum() < _FEWEST_POSITIVES:
            raise ModelError(
                f"the {name} model has {int(y[rows].sum())} positive and {int((~y[rows]).sum())} negative "
                f"rows to {use}; it needs {_FEWEST_POSITIVES} of each: give it more history or customers"
            )
    fit = _thin_negatives(y, fit, seed)
    booster = xgboost.train(
        # One thread: of two, each waits spinning for the other at every node, and where another process
        # wants a core that takes ten times as long.
        {"objective": "binary:logistic", "tree_method": "hist", "seed": seed, "nthread": 1, **params},
        xgboost.DMatrix(X[fit], label=y[fit], nthread=1),
        num_boost_round=rounds,
        callbacks=[_Progress(rounds, on_round)] if on_round else None,
    )
    margin = booster.predict(xgboost.DMatrix(X[held], nthread=1), output_margin=True).astype(np.float64)
    # Platt, J. (1999): one slope keeps the order of scores and the exactness of contributions.
    platt = LogisticRegression(C=1e6).fit(margin[:, None], y[held])
    slope, intercept = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if slope <= 0:
        raise ModelError(f"the {name} model does no better than chance on held-back days: look at its data")
    return booster, slope, intercept, to_proba(slope * margin + intercept)


def _thin_negatives(y: Labels, rows: Labels, seed: int) -> Labels:
    """All positives and a sample of negatives: more of those teach little and cost most of the time.

    The margin moves by a constant, which calibration on all held-back rows takes out again.
    """
    negatives = np.flatnonzero(rows & ~y)
    wanted = int((rows & y).sum()) * _NEGATIVES_PER_POSITIVE
    if len(negatives) <= wanted:
        return rows
    kept = rows & y
    kept[np.random.default_rng(seed).choice(negatives, wanted, replace=False)] = True
    return kept


class _Progress(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Reports finished rounds."""

    def __init__(self, rounds: int, report: Callable[[int, int], None]) -> None:
        self._rounds, self._report = rounds, report

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._report(epoch + 1, self._rounds)
        return False


def _fraud_thresholds(y: Labels, proba: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Review where F1 is highest; block where nine of ten are fraud."""
    precision, recall, threshold = precision_recall_curve(y, proba)
    precision, recall = precision[:-1], recall[:-1]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    review = float(threshold[np.argmax(f1)])
    sure = np.flatnonzero((precision >= 0.9) & (threshold >= review))
    block = float(threshold[sure[0]]) if len(sure) else 0.99
    return review, max(block, review)


def _metrics(y: Labels, proba: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {
        "rows": len(y),
        "positives": int(y.sum()),
        "average_precision": float(average_precision_score(y, proba)),
        "roc_auc": float(roc_auc_score(y, proba)),
        "brier": float(brier_score_loss(y, proba)),
        "note": "held-back days; calibration was fitted on the same days",
    }


def _share(values: Labels) -> float:
    return float(values.mean()) if len(values) else 0.0


def _described(times: npt.NDArray[np.int64], y: Labels, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "rows": len(times),
        "positives": int(y.sum()),
        "from_ms": int(times.min()),
        "to_ms": int(times.max()),
    }
