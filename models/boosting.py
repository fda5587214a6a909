"""Gradient-boosted trees: fitting them, and thinning what teaches little."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

Labels = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.float32]
OnRound = Callable[[int, int], None]
"""Called with the rounds that are done and those there will be at most."""


def boost(
    X: Rows,
    y: Labels,
    params: Mapping[str, float],
    rounds: int,
    *,
    seed: int,
    on_round: OnRound | None = None,
    stop_on: tuple[Rows, Labels] | None = None,
    patience: int = 40,
    weight: npt.NDArray[np.float64] | None = None,
) -> xgboost.Booster:
    """Trees for a yes or no.

    Args:
        X: `(n, n_columns)`.
        y: `(n,)`.
        params: XGBoost's.
        rounds: Trees; with `stop_on` the most of them.
        seed: Of the rows and columns that each tree sees.
        on_round: Told of every finished tree.
        stop_on: Later rows; once `patience` trees have not made their log loss smaller, no more are made
            and those are taken off again.
        patience: See `stop_on`.
        weight: `(n,)` of rows; all count the same if left out.
    """
    # One thread: of two, each waits spinning for the other at every node, and where another process
    # wants a core that takes ten times as long.
    callbacks: list[xgboost.callback.TrainingCallback] = [_Progress(rounds, on_round)] if on_round else []
    rows = xgboost.QuantileDMatrix(X, label=y, weight=weight, nthread=1)
    evals = []
    if stop_on is not None:
        evals = [(xgboost.DMatrix(stop_on[0], label=stop_on[1], nthread=1), "later")]
        callbacks.append(xgboost.callback.EarlyStopping(rounds=patience, save_best=True))
    return xgboost.train(
        {"objective": "binary:logistic", "tree_method": "hist", "seed": seed, "nthread": 1, **params},
        rows,
        num_boost_round=rounds,
        evals=evals,
        verbose_eval=False,
        callbacks=callbacks,
    )


def margins(booster: xgboost.Booster, X: Rows) -> npt.NDArray[np.float64]:
    """Log-odds before calibration, shape `(n,)`."""
    margin = booster.inplace_predict(X, predict_type="margin")
    return np.asarray(margin, dtype=np.float64)


def thin_negatives(
    y: Labels, rows: Labels, seed: int, per_positive: int, least: int = 0
) -> tuple[Labels, float]:
    """All positives and a sample of negatives: more of those teach little and cost most of the time.

    Args:
        y: `(n,)` positives.
        rows: `(n,)` rows to choose from.
        seed: Of the sample.
        per_positive: Negatives kept for each positive.
        least: Negatives kept where there are as many, however few positives.

    Returns:
        The rows kept, and the share of negatives that were: their log-odds are too high by `-log(share)`.
    """
    negatives = np.flatnonzero(rows & ~y)
    wanted = max(least, int((rows & y).sum()) * per_positive)
    if len(negatives) <= wanted:
        return rows, 1.0
    kept = rows & y
    kept[np.random.default_rng(seed).choice(negatives, wanted, replace=False)] = True
    return kept, wanted / len(negatives)


class _Progress(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Reports finished rounds."""

    def __init__(self, rounds: int, report: OnRound) -> None:
        self._rounds, self._report = rounds, report

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self._report(epoch + 1, self._rounds)
        return False
