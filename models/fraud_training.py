"""Training of the fraud model: trees on replayed vectors, calibrated and measured on later days."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.definitions import DAY_MS
from features.engine import Engine
from models import calibration, evaluation
from models.boosting import Labels, OnRound, boost, margins, thin_negatives
from models.costs import Costs, Effect, choose_thresholds
from models.currencies import Currencies, mixed
from models.drift import with_reference
from models.fraud_data import FraudData, Times
from models.platt import Platt
from models.relearning import Memory
from models.tree import ModelCard
from models.tuning import DEFAULTS, Budget, Fold, search
from schemas.errors import ModelError

ROUNDS: Final = 300
_NEGATIVES_PER_POSITIVE: Final = 60
_LEAST_NEGATIVES: Final = 300_000
"""With few frauds, of which each is hard to tell from some of the many, a sample leaves those out."""
_AT_ONCE: Final = 2
_WIDE_BYTES: Final = 500_000_000
"""Of more, the copies that trees learn from would take too much memory two at a time."""
_FEWEST_TO_LEARN: Final = 10
_FEWEST_TO_JUDGE: Final = 5
_COSTS: Final = Costs()


@dataclass(frozen=True, slots=True)
class _Stage:
    """Days learned from, and later days that are judged.

    Attributes:
        fit: `(n,)` rows to learn from.
        fit_y: `(n,)` what was known of them when the judged days began.
        judged: `(n,)`.
    """

    fit: Labels
    fit_y: Labels
    judged: Labels


def train_fraud(
    data: FraudData,
    engine: Engine,
    *,
    created_at: str,
    label_delay_days: float = 7,
    seed: int = 7,
    source: str = "",
    rounds: int = ROUNDS,
    costs: Costs = _COSTS,
    budget: Budget | None = None,
    on_trial: Callable[[int, float], None] = lambda number, best: None,
    on_round: OnRound | None = None,
) -> tuple[ModelCard, bytes]:
    """A fraud model.

    Settled days are cut into three: trees that learned from the first 70 % are calibrated on the next 15 %
    and measured on the last 15 %, each time with the label delay between and with the labels of that
    moment. The model handed out then learns from all of them; its calibration is that of the two later
    parts, each by trees that had not seen it.

    Raises:
        ModelError: Too few known frauds to learn from.
    """
    delay_ms = round(label_delay_days * DAY_MS)
    settled = data.settled(data.end_ms, delay_ms)
    y = data.known_by(data.end_ms)
    _refuse_too_few(data, y, settled, label_delay_days)
    times = data.time_ms
    params: dict[str, Any] = dict(DEFAULTS)
    searched: dict[str, Any] = {}
    if budget is not None:
        # Ends where the measured days begin.
        folds = [_fold(stage, y, seed) for stage in _stages(data, settled, y, delay_ms, (0.5, 0.7, 0.85))[0]]
        if folds:
            params, searched = search(data.X, folds, rounds, budget, seed=seed, on_trial=on_trial)
    stages, note = _stages(data, settled, y, delay_ms, (0.7, 0.85, 1.0))
    judged, metrics = [], {}
    rows = np.flatnonzero(settled)
    fits = [*((stage.fit_y, stage.fit) for stage in stages), (y, settled)]
    *measured, (booster, shift) = _fit_all(data.X, fits, params, rounds, seed, on_round)
    for number, (stage, (earlier, moved)) in enumerate(zip(stages, measured, strict=True)):
        judged.append((margins(earlier, data.X[stage.judged]) + moved, y[stage.judged]))
        if number == 1:
            platt = Platt.fit(*judged[0])
            metrics = evaluation.summary(judged[1][1], platt.proba(judged[1][0])) | {
                "calibration": calibration.compare(judged[0], judged[1], platt)
            }
    platt = Platt()
    if judged:
        rows = np.concatenate([np.flatnonzero(stage.judged) for stage in stages])
        margin, found = (np.concatenate(parts) for parts in zip(*judged, strict=True))
        platt = Platt.fit(margin, found)
        if platt.slope <= 0:
            raise ModelError("the fraud model does no better than chance on later days: look at its data")
        proba, truth = platt.proba(margin), found
    else:
        proba, truth = platt.proba(margins(booster, data.X[settled]) + shift), y[settled]
    effect = _effect(data, engine, rows, truth, proba, costs)
    card = ModelCard(
        name="fraud",
        version="",
        created_at=created_at,
        features_hash=engine.hash,
        feature_names=engine.names,
        slope=platt.slope,
        intercept=platt.intercept + platt.slope * shift,
        thresholds={"review": effect.review, "block": effect.block},
        data=_described(times[settled], y[settled], source)
        | {"label_delay_days": label_delay_days}
        | ({"currencies": dict(data.currencies)} if len(data.currencies) > 1 else {})
        | engine.chosen,
        metrics=metrics
        | ({"search": searched | {"parameters": params}} if searched else {})
        | {"note": note, "costs": asdict(costs), "decisions": effect.document()}
        | _doubted(data.currencies),
    )
    trees = bytes(booster.save_raw("ubj"))
    return with_reference(card, trees, data.X, engine.names, data.time_ms, data.since_ms), trees


def memory_of(data: FraudData, label_delay_days: float = 7) -> Memory:
    """What a model that was trained on the same remembers of it."""
    settled = data.settled(data.end_ms, round(label_delay_days * DAY_MS))
    return Memory.of(data.X, data.known_by(data.end_ms) & settled, settled)


def _refuse_too_few(data: FraudData, y: Labels, settled: Labels, label_delay_days: float) -> None:
    if not len(y):
        raise ModelError("no transaction lies within the times asked for (--from, --to)")
    positives, negatives = int(y[settled].sum()), int((~y[settled]).sum())
    if positives >= _FEWEST_TO_LEARN and negatives >= _FEWEST_TO_LEARN:
        return
    what = f"the fraud model has {positives} known frauds and {negatives} genuine transactions to learn from"
    hint = "give it more history, or look at the label of the mapping"
    waiting = int((~settled).sum())
    if waiting:
        hint += (
            f"; {waiting} transactions of the last {label_delay_days:g} days are left out because their "
            "labels would not be known yet (--label-delay)"
        )
    raise ModelError(f"{what}; it needs {_FEWEST_TO_LEARN} of each: {hint}")


def _stages(
    data: FraudData, settled: Labels, y: Labels, delay_ms: int, shares: Sequence[float]
) -> tuple[list[_Stage], str]:
    """Stages that judge the days between these shares of all, and what is to be known of them.

    None where there are too few frauds for it.
    """
    cuts = _cuts(data.time_ms[settled], shares)
    if cuts is None:
        return [], "too few different times to calibrate or measure on later ones: scores are as learned"
    for gap_ms, note in (
        (delay_ms, "later days than calibration, which is later than learning; the label delay between"),
        (0, "later days than calibration, which is later than learning; too few days for the label delay"),
    ):
        stages = []
        for begin, end in itertools.pairwise(cuts):
            # Without a gap this is what the end knows, and no stage's moment: no other is long enough ago.
            known = data.known_by(begin) if gap_ms else y
            stages.append(
                _Stage(
                    settled & (data.time_ms < begin - gap_ms),
                    known,
                    settled & (data.time_ms >= begin) & (data.time_ms < end),
                )
            )
        if all(_enough(s.fit_y, s.fit, _FEWEST_TO_LEARN) for s in stages) and all(
            _enough(y, s.judged, _FEWEST_TO_JUDGE) for s in stages
        ):
            return stages, note
    return [], "too few frauds to calibrate or measure on days of their own: scores are as learned"


def _cuts(times: Times, shares: Sequence[float]) -> list[int] | None:
    """Times before which these shares lie, as nearly as times allow; `None` where there are too few.

    A file that knows days or months alone has many rows at each.
    """
    distinct, counts = np.unique(times, return_counts=True)
    distinct, before = np.r_[distinct, distinct[-1] + 1], np.r_[0, np.cumsum(counts)]
    found: list[int] = []
    for number, share in enumerate(shares):
        # The first has something before it, and each is later than the one before.
        least, most = found[-1] + 1 if found else 1, len(distinct) - (len(shares) - number)
        if least > most:
            return None
        found.append(least + int(np.argmin(np.abs(before[least : most + 1] - share * len(times)))))
    return [int(distinct[place]) for place in found]


def _enough(y: Labels, rows: Labels, fewest: int) -> bool:
    return bool(y[rows].sum() >= fewest and (~y[rows]).sum() >= fewest)


def _fit_all(
    X: npt.NDArray[np.float32],
    fits: Sequence[tuple[Labels, Labels]],
    params: Mapping[str, float],
    rounds: int,
    seed: int,
    on_round: OnRound | None,
) -> list[tuple[Any, float]]:
    """Trees that do not depend on one another, each by one thread, two at a time: equal bytes, in less time.

    Args:
        X: `(n, n_features)`.
        fits: What is known of each row, and rows to learn from, both `(n,)`.
        params: XGBoost's.
        rounds: Trees of each.
        seed: See `boost`.
        on_round: Told of every finished tree of all.
    """
    finished, given_up = [0] * len(fits), threading.Event()

    def fit(number: int) -> tuple[Any, float]:
        def report(done: int, total: int) -> None:
            if given_up.is_set():
                raise ModelError("training was interrupted")
            finished[number] = done
            if on_round is not None:
                on_round(sum(finished), total * len(fits))

        return _fit(X, *fits[number], params, rounds, seed, report)

    with ThreadPoolExecutor(_AT_ONCE if X.nbytes <= _WIDE_BYTES else 1) as pool:
        jobs = [pool.submit(fit, number) for number in range(len(fits))]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            # Somebody pressed Ctrl-C, or one failed: nobody waits for the others.
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fit(
    X: npt.NDArray[np.float32],
    y: Labels,
    rows: Labels,
    params: Mapping[str, float],
    rounds: int,
    seed: int,
    on_round: OnRound,
) -> tuple[Any, float]:
    kept, share = thin_negatives(y, rows, seed, _NEGATIVES_PER_POSITIVE, _LEAST_NEGATIVES)
    # Mostly everything up to a moment: as a view, since of a wide file this is what there is of memory.
    these: slice | Labels = slice(int(kept.sum()))
    these = these if kept[these].all() else kept
    booster = boost(X[these], y[these], params, rounds, seed=seed, on_round=on_round)
    return booster, float(np.log(share))


def _fold(stage: _Stage, y: Labels, seed: int) -> Fold:
    kept, _ = thin_negatives(stage.fit_y, stage.fit, seed, _NEGATIVES_PER_POSITIVE, _LEAST_NEGATIVES)
    fit, judged = np.flatnonzero(kept), np.flatnonzero(stage.judged)
    return Fold(fit, stage.fit_y[fit], judged, y[judged])


def _effect(
    data: FraudData,
    engine: Engine,
    rows: npt.NDArray[np.intp],
    y: Labels,
    proba: npt.NDArray[np.float64],
    costs: Costs,
) -> Effect:
    spend_90d = np.nan_to_num(data.X[rows, engine.names.index("amount_sum_90d")].astype(np.float64))
    amount = data.X[rows, engine.names.index("amount")].astype(np.float64)
    days = len(np.unique(data.time_ms[rows] // DAY_MS))
    return choose_thresholds(y, proba, amount, spend_90d * 365 / 90, days, costs)


def _doubted(currencies: Currencies) -> dict[str, str]:
    said = mixed(currencies, "thresholds, which weigh them against the costs of decisions, and costs a day")
    return {} if said is None else {"currencies": said}


def _described(times: Times, y: Labels, source: str) -> dict[str, Any]:
    return {
        "source": source,
        "rows": len(times),
        "positives": int(y.sum()),
        "from_ms": int(times.min()),
        "to_ms": int(times.max()),
    }
