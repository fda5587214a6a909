"""Churn: who was there at a cut-off and did nothing for the horizon behind it, and who foresees it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from features.attributes import AttributeFeature
from features.definitions import DAY_MS, EVENT, Op
from features.engine import Engine
from features.entities import EntityFeature
from features.kernels import ACCEPTED
from features.lifetime import LIFETIME_NAMES, SEASON_NAMES, customer_names, customer_vector
from features.totals import update_totals
from models.boosters import xgboost
from models.currencies import Currencies, mixed
from models.drift import with_reference
from models.linear import LinearPart, best_weight
from models.tree import ModelCard, to_proba
from models.vectors import Rows, VectorReplay
from schemas.errors import ModelError

Matrix32 = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]
Margins = npt.NDArray[np.float64]

# Few leaves and small steps: customers come at many cut-offs, so rows are many and say little each.
_PARAMS: Final = {
    "max_depth": 3,
    "eta": 0.05,
    "min_child_weight": 30,
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "reg_lambda": 5,
}
_ROUNDS: Final = 200
_FOLDS: Final = 3
_WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_FEWEST: Final = 20
_MOST_CUT_OFFS: Final = 40
_BATCH: Final = 4_000
_ALL_HASHES: Final = 1 << 32
_SEASONS_MS: Final = 540 * DAY_MS
"""Each time of the year, and half of it twice."""
_SAID_BY_SILENCE: Final = {"time_since_last_s", "time_since_debit_s"}
"""Unknown after 90 days, and before that the silence, which is known always."""
MOST_ROWS: Final = 500_000
"""What more customers at cut-offs than these teach is within the noise."""
UNTOLD: Final = -1
"""Outcome of a cut-off whose horizon is not over."""


@dataclass(frozen=True, slots=True)
class ChurnRows:
    """Customers as of cut-offs.

    Attributes:
        customer_ids: `n` ids; a customer has one row for each cut-off.
        as_of_ms: `(n,)` cut-offs.
        X: `(n, n_features)`, columns of `features.lifetime.customer_names`.
        churned: `(n,)` 1 where nothing happened within the horizon or the account was closed in it, 0 where
            something did, `UNTOLD` where it is not over.
        currencies: Of the transactions of the log; empty where nobody counted.
    """

    customer_ids: Sequence[str]
    as_of_ms: npt.NDArray[np.int64]
    X: Matrix32
    churned: npt.NDArray[np.int8]
    currencies: Currencies = field(default_factory=dict)

    def told(self) -> "ChurnRows":
        """Those whose horizon is over."""
        rows = np.flatnonzero(self.churned != UNTOLD)
        return ChurnRows(
            [self.customer_ids[i] for i in rows.tolist()],
            self.as_of_ms[rows],
            self.X[rows],
            self.churned[rows],
            self.currencies,
        )


def least_history_days(horizon_ms: int) -> int:
    """Days before the first cut-off: earlier there is no history to tell customers apart."""
    return min(horizon_ms // DAY_MS, 60)


def default_cut_offs(first_ms: int, end_ms: int, horizon_ms: int) -> list[int]:
    """Cut-offs to learn from: midnights a week apart or more, the last with its whole horizon before the end.

    Args:
        first_ms: Time of the first transaction.
        end_ms: What happened at or after it is not known.
        horizon_ms: Length of the horizon.
    """
    last = (end_ms - horizon_ms) // DAY_MS
    first = first_ms // DAY_MS + least_history_days(horizon_ms)
    step = max(7, -(-(last - first) // _MOST_CUT_OFFS))
    return [day * DAY_MS for day in range(last, first - 1, -step)][::-1]


def longest_silence(horizon_ms: int) -> int:
    """Milliseconds of silence after which a customer counts as one of long ago: hardly anybody comes back.

    The worker's sweep goes on for 90 days.
    """
    return max(3 * horizon_ms, 90 * DAY_MS)


def of_late(X: npt.NDArray[np.floating[Any]], engine: Engine, horizon_ms: int) -> npt.NDArray[np.bool_]:
    """`(n,)` whether customers were silent for no longer than `longest_silence`, by rows of their vectors."""
    silence_s = X[:, customer_names(engine).index("silence_s")]
    return silence_s <= longest_silence(horizon_ms) / 1000


def customers_as_of(
    rows: Rows,
    engine: Engine,
    cut_offs: Sequence[int],
    *,
    horizon_ms: int,
    end_ms: int,
    silent_ms: int | None = None,
    share: float = 1.0,
) -> Iterator[ChurnRows]:
    """Customers at each cut-off, from what was known then, by the code of the worker's sweep.

    Those who closed their account are left out from then on.

    Args:
        rows: A log in time order.
        engine: The engine.
        cut_offs: Moments in ascending order; what happens at one is after it.
        horizon_ms: How long nothing must happen.
        end_ms: Outcomes at or after it are not known.
        silent_ms: Leave out who was silent for longer; `None`: nobody.
        share: Of the customers at each cut-off, drawn by their ids.
    """
    times = rows.records["time_ms"]
    ids, codes = np.unique(np.array(rows.customer_ids, dtype=object), return_inverse=True)
    replay, done = VectorReplay(engine), 0
    newest: dict[str, int] = {}
    for as_of in cut_offs:
        upto = int(np.searchsorted(times, as_of))
        for begin in range(done, upto, _BATCH):
            _move(replay, rows, begin, min(begin + _BATCH, upto), newest)
        done = max(done, upto)
        replay.put_known(as_of)
        here = [
            customer_id
            for customer_id, time_ms in newest.items()
            if (silent_ms is None or time_ms >= as_of - silent_ms)
            and rows.closed_ms.get(customer_id, as_of) >= as_of
            and (
                share >= 1 or xxhash.xxh32_intdigest(f"{as_of} {customer_id}".encode()) < share * _ALL_HASHES
            )
        ]
        arena = replay.arena
        slots = [arena.slot(customer_id) for customer_id in here]
        vectors = [
            customer_vector(engine, arena.records(slot), arena.totals(slot), as_of).astype(np.float32)
            for slot in slots
        ]
        width = len(customer_names(engine))
        after, before = np.searchsorted(times, [as_of, as_of + horizon_ms])
        active = set(ids[np.unique(codes[after:before])].tolist())
        churned = _outcomes(here, active, as_of, horizon_ms, end_ms, rows.closed_ms)
        yield ChurnRows(
            here,
            np.full(len(here), as_of, dtype=np.int64),
            np.stack(vectors) if vectors else np.empty((0, width), dtype=np.float32),
            churned,
        )


def count_as_of(rows: Rows, cut_offs: Sequence[int]) -> int:
    """How many `customers_as_of` finds at all cut-offs together; those that closed accounts count."""
    first_ms: dict[str, int] = {}
    for customer_id, time_ms in zip(rows.customer_ids, rows.time_ms.tolist(), strict=True):
        first_ms.setdefault(customer_id, time_ms)
    return int(np.searchsorted(np.sort(list(first_ms.values())), cut_offs).sum())


def _move(replay: VectorReplay, rows: Rows, begin: int, end: int, newest: dict[str, int]) -> None:
    at = begin
    for part in replay.feed(rows.part(begin, end)):
        size = len(part.customer_ids)
        slots = np.array([replay.arena.slot(c) for c in part.customer_ids], dtype=np.int64)
        update_totals(replay.arena, rows.records[at : at + size], slots, part.features)
        for row in np.flatnonzero(part.features.status == ACCEPTED).tolist():
            newest[part.customer_ids[row]] = int(part.time_ms[row])
        at += size


def _outcomes(
    customer_ids: Sequence[str],
    active: set[str],
    as_of: int,
    horizon_ms: int,
    end_ms: int,
    closed_ms: Mapping[str, int],
) -> npt.NDArray[np.int8]:
    if as_of + horizon_ms > end_ms:
        # Those who did something are known not to have left, but to count them alone would be unfair.
        return np.full(len(customer_ids), UNTOLD, dtype=np.int8)
    upto = as_of + horizon_ms
    left = [c not in active or closed_ms.get(c, upto) < upto for c in customer_ids]
    return np.array(left, dtype=np.int8)


def end_of(rows: Rows) -> int:
    """Until when a log tells what happened: the end of its newest day."""
    return (int(rows.records["time_ms"].max(initial=0)) // DAY_MS + 1) * DAY_MS


def joined(parts: Sequence[ChurnRows], width: int) -> ChurnRows:
    """Several cut-offs as one.

    Args:
        parts: Rows of each.
        width: Columns of `X`, where there are no parts.
    """
    return ChurnRows(
        [customer_id for part in parts for customer_id in part.customer_ids],
        np.concatenate([np.empty(0, dtype=np.int64), *(part.as_of_ms for part in parts)]),
        np.concatenate([np.empty((0, width), dtype=np.float32), *(part.X for part in parts)]),
        np.concatenate([np.empty(0, dtype=np.int8), *(part.churned for part in parts)]),
    )


def train_churn(
    rows: ChurnRows,
    engine: Engine,
    *,
    created_at: str,
    horizon_days: int = 30,
    seed: int = 7,
    source: str = "",
    on_round: Callable[[int, int], None] | None = None,
) -> tuple[ModelCard, bytes]:
    """A churn model: trees and a logistic regression, blended as held-out customers say, and calibrated.

    A customer stands in the rows once for each cut-off, so they are held out whole: three models that have
    not seen a third of the customers choose the blend, calibrate and measure; the one that is kept learns
    from all.

    Raises:
        ModelError: Too few customers left or stayed.
    """
    rows = rows.told()
    names = customer_names(engine)
    wanted = {f.name for f in engine.features if is_customer_feature(f)} | set(LIFETIME_NAMES)
    wanted -= _SAID_BY_SILENCE
    if not len(rows.as_of_ms) or np.ptp(rows.as_of_ms) < _SEASONS_MS:
        wanted -= set(SEASON_NAMES)
    columns = np.array([i for i, name in enumerate(names) if name in wanted])
    X, y = np.ascontiguousarray(rows.X[:, columns]), rows.churned == 1
    if y.sum() < _FEWEST or (~y).sum() < _FEWEST:
        raise ModelError(
            f"the churn model has {int(y.sum())} positive and {int((~y).sum())} negative rows to learn from; "
            f"it needs {_FEWEST} of each: give it more history or customers, or a shorter horizon"
        )
    fold = np.array(
        [xxhash.xxh32_intdigest(c.encode(), seed=seed) % _FOLDS for c in rows.customer_ids], dtype=np.int8
    )
    of_trees, of_linear = np.zeros(len(y)), np.zeros(len(y))
    total, finished = _ROUNDS * (_FOLDS + 1), 0
    for held_fold in range(_FOLDS):
        held = fold == held_fold
        if not held.any() or y[~held].all() or not y[~held].any():
            raise ModelError("the churn model has too few customers to hold some out: give it more")
        booster = _boost(X[~held], y[~held], seed)
        of_trees[held] = booster.inplace_predict(X[held], predict_type="margin")
        of_linear[held] = LinearPart.fit(X[~held], y[~held], 0.0).contributions(X[held]).sum(axis=1)
        finished += _ROUNDS
        if on_round:
            on_round(finished, total)
    weight = best_weight(of_trees, of_linear, y, _WEIGHTS)
    margin = weight * of_trees + (1 - weight) * of_linear
    # Platt, J. (1999): one slope keeps the order of scores and the exactness of contributions.
    platt = LogisticRegression(C=1e6).fit(margin[:, None], y)
    slope, intercept = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if slope <= 0:
        raise ModelError("the churn model does no better than chance on held-out customers: look at its data")
    booster = _boost(X, y, seed)
    if on_round:
        on_round(total, total)
    card = ModelCard(
        name="churn",
        version="",
        created_at=created_at,
        features_hash=engine.hash,
        feature_names=tuple(names[c] for c in columns),
        slope=slope,
        intercept=intercept,
        thresholds={"medium": 0.3, "high": 0.6},
        data=_described(rows, y, source) | engine.chosen,
        metrics=_metrics(y, to_proba(slope * margin + intercept), weight) | _doubted(rows.currencies),
        horizon_days=horizon_days,
        linear=LinearPart.fit(X, y, weight) if weight < 1 else None,
    )
    trees = bytes(booster.save_raw("ubj"))
    # Those of long ago are learned from, as they can be asked about; the stream has nothing of them.
    live = of_late(rows.X, engine, horizon_days * DAY_MS)
    since_ms = rows.as_of_ms - rows.X[:, names.index("tenure_s")].astype(np.float64) * 1000
    times = rows.as_of_ms[live]
    return with_reference(card, trees, rows.X[live], names, times, round(since_ms.min())), trees


def is_customer_feature(feature: Any) -> bool:
    """Whether a feature is known without an event to compare with."""
    if isinstance(feature, EntityFeature | AttributeFeature):
        return False
    compares = any(where.value == EVENT for where in feature.where)
    of_event = feature.op in {Op.EVENT_VALUE, Op.ZSCORE, Op.IS_NEW, Op.DISTANCE, Op.SPEED}
    return not (compares or of_event or "amount" in feature.of)


def _boost(X: Matrix32, y: Labels, seed: int) -> xgboost.Booster:
    return xgboost.train(
        {"objective": "binary:logistic", "tree_method": "hist", "seed": seed, "nthread": 1, **_PARAMS},
        xgboost.DMatrix(X, label=y, nthread=1),
        num_boost_round=_ROUNDS,
    )


def calibration_error(y: Labels, proba: Margins, bins: int = 10) -> float:
    """Expected calibration error: mean distance of predicted and found share, in bins of equal width.

    Source:
        Naeini, Cooper and Hauskrecht (2015), AAAI 29.

    >>> calibration_error(np.array([True, False]), np.array([0.5, 0.5]))
    0.0
    """
    if len(y) == 0:
        return float("nan")
    which = np.minimum((proba * bins).astype(np.int64), bins - 1)
    apart = [abs((proba[which == b] - y[which == b]).sum()) for b in range(bins)]
    return float(sum(apart)) / len(y)


def _metrics(y: Labels, proba: Margins, weight: float) -> dict[str, Any]:
    return {
        "rows": len(y),
        "positives": int(y.sum()),
        "average_precision": float(average_precision_score(y, proba)),
        "roc_auc": float(roc_auc_score(y, proba)),
        "brier": float(brier_score_loss(y, proba)),
        "calibration_error": calibration_error(y, proba),
        "weight_of_trees": weight,
        "note": "held-out customers at the same cut-offs; later days are for 'tidegate backtest'",
    }


def _doubted(currencies: Currencies) -> dict[str, str]:
    said = mixed(currencies, "sums of value at risk")
    return {} if said is None else {"currencies": said}


def _described(rows: ChurnRows, y: Labels, source: str) -> dict[str, Any]:
    cut_offs = np.unique(rows.as_of_ms)
    return {
        "source": source,
        "rows": len(y),
        "positives": int(y.sum()),
        "customers": len(set(rows.customer_ids)),
        "cut_offs": len(cut_offs),
        "from_ms": int(cut_offs[0]),
        "to_ms": int(cut_offs[-1]),
    } | ({"currencies": dict(rows.currencies)} if len(rows.currencies) > 1 else {})
