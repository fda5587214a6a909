"""Hyper-parameters searched on prequential folds: learn from earlier days, judge on later ones, move on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.boosting import Labels, boost, margins
from models.evaluation import Ranking

DEFAULTS: Final[Mapping[str, float]] = {
    "max_depth": 6,
    "eta": 0.05,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.3,
    "reg_lambda": 1.0,
}


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to search: so many trials, or no new one after so many seconds more than the first takes."""

    trials: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """Row numbers learned from with their labels, and later ones with theirs."""

    fit: npt.NDArray[np.intp]
    fit_y: Labels
    judged: npt.NDArray[np.intp]
    judged_y: Labels


def search(
    X: npt.NDArray[np.float32],
    folds: Sequence[Fold],
    rounds: int,
    budget: Budget,
    *,
    seed: int,
    on_trial: Callable[[int, float], None] = lambda number, best: None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """The parameters with the highest mean average precision over the folds.

    The defaults are the first trial: the result is never worse than they are, on these folds.

    Args:
        X: `(n, n_columns)`.
        folds: At least one.
        rounds: Trees of each trial.
        budget: When to stop; the first trial is always made.
        seed: Of the sampler and of the trees.
        on_trial: Told the number of finished trials and the best so far.

    Returns:
        XGBoost's parameters, and what to write on a card.

    Source:
        Akiba et al. (2019), KDD 25, 2623-2631 (Optuna; tree-structured Parzen estimator).
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(dict(DEFAULTS))

    def objective(trial: Any) -> float:
        params = {
            "max_depth": trial.suggest_int("max_depth", 3, 9),
            "eta": trial.suggest_float("eta", 0.03, 0.3, log=True),
            "min_child_weight": trial.suggest_float("min_child_weight", 1, 50, log=True),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.1, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 30.0, log=True),
        }
        found = []
        for fold in folds:
            booster = boost(X[fold.fit], fold.fit_y, params, rounds, seed=seed)
            ranking = Ranking(fold.judged_y, margins(booster, X[fold.judged]))
            found.append(ranking.figures()["average_precision"])
        return float(np.mean(found))

    tell = [lambda study, trial: on_trial(len(study.trials), float(study.best_value))]
    study.optimize(objective, n_trials=1, callbacks=tell)
    more = None if budget.trials is None else budget.trials - 1
    if more != 0 and budget.seconds != 0:
        study.optimize(objective, n_trials=more, timeout=budget.seconds, callbacks=tell)
    tried = study.trials
    return dict(study.best_params), {
        "trials": len(tried),
        "folds": len(folds),
        "average_precision_of_defaults": tried[0].value,
        "average_precision_of_best": study.best_value,
    }
