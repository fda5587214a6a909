"""A model over a past log, as if it had been there: each score from what was known at its moment."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.definitions import DAY_MS
from features.engine import Engine, Matrix
from features.kernels import ACCEPTED
from models.anomaly import AnomalyScore
from models.online_scorer import Labelled, OnlineScorer
from models.pipeline import decide
from models.reasons import by_name, explain
from models.tree import TreeModel
from models.vectors import FRAUD, GENUINE, Rows, VectorReplay, Vectors

CHUNK: Final = 4_000
_EARLY: Final = 20_000
_WEEK_MS: Final = 7 * DAY_MS
TRAITS: Final = ("amount", "history_span_s", "hour_of_day", "channel_code", "category_code")
UNTOLD: Final = -1
"""Of a transaction whose label the file does not say."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Scored transactions in time order.

    Attributes:
        time_ms: `(n,)`.
        score: `(n,)` calibrated probabilities.
        decisions: `(n,)` indices into `models.pipeline.DECISIONS`.
        label: `(n,)` 1 fraud, 0 genuine, `UNTOLD`; what the file says in the end, whenever it was known.
        anomaly: `(n,)` of `models.anomaly`, from the transactions of earlier blocks; NaN while those are few.
        traits: `(n, len(TRAITS))` features by which a report parts transactions.
        reasons: Of rows that are not allowed, by row.
    """

    transaction_ids: Sequence[str]
    customer_ids: Sequence[str]
    time_ms: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    decisions: npt.NDArray[np.int8]
    label: npt.NDArray[np.int8]
    anomaly: npt.NDArray[np.float64]
    traits: npt.NDArray[np.float64]
    reasons: dict[int, tuple[dict[str, Any], ...]]

    def __len__(self) -> int:
        return len(self.time_ms)


def window(rows: Rows, engine: Engine, from_ms: int | None, to_ms: int | None) -> tuple[int, int, int]:
    """Where a replay has to start, and the rows `[begin, end)` that are scored.

    What is older than all that histories and entities keep changes no score.
    """
    times = rows.time_ms
    end = len(rows) if to_ms is None else int(np.searchsorted(times, to_ms))
    begin = 0 if from_ms is None else min(int(np.searchsorted(times, from_ms)), end)
    if begin == end:
        return end, end, end
    return int(np.searchsorted(times, int(times[begin]) - engine.memory_ms)), begin, end


def silence_is_genuine(rows: Rows) -> bool:
    """Whether a file names frauds alone, so that who is not named is genuine."""
    return bool((rows.labels == FRAUD).any() and not (rows.labels == GENUINE).any())


def truth(rows: Rows) -> npt.NDArray[np.int8]:
    """What the file says of each row: 1 fraud, 0 genuine, `UNTOLD`.

    Where no row is said to be genuine but some are said to be fraud, all others are genuine.
    """
    untold = 0 if silence_is_genuine(rows) else UNTOLD
    said = np.where(rows.labels == FRAUD, 1, np.where(rows.labels == GENUINE, 0, untold))
    return said.astype(np.int8)


def victims(rows: Rows, since_ms: int | None = None) -> dict[str, int]:
    """Since when each customer of whom a fraud became known is known to be a victim.

    Args:
        rows: All of the log, with what came before the transactions that are scored.
        since_ms: What became known earlier does not count: whoever was a victim years ago has a new card.
    """
    found: dict[str, int] = {}
    for row in np.flatnonzero(rows.labels == FRAUD).tolist():
        known_ms = int(rows.label_time_ms[row])
        if since_ms is None or known_ms >= since_ms:
            customer_id = rows.customer_ids[row]
            found[customer_id] = min(known_ms, found.get(customer_id, known_ms))
    return found


def backtest_fraud(
    rows: Rows,
    model: TreeModel,
    engine: Engine,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    anomaly: bool = True,
    online: OnlineScorer | None = None,
    ahead: Callable[[Iterator[list[Vectors]]], Iterator[list[Vectors]]] = iter,
) -> Iterator[ScoredRows]:
    """Score the transactions of `[from_ms, to_ms)`, each from the log before it.

    Labels enter histories and merchants when they became known; duplicates are left out.

    Args:
        rows: In time order, with those before `from_ms`: they are the histories.
        model: The fraud model.
        engine: What it was trained on.
        from_ms: `None` from the first.
        to_ms: `None` to the last.
        anomaly: Whether the anomaly score is wanted; without it NaN.
        online: Of this model: scores are then those of the model that goes on learning.
        ahead: Gives back the same vectors, and may compute the next while these are scored.

    Yields:
        Blocks in order; also empty ones, while history is replayed.
    """
    start, begin, end = window(rows, engine, from_ms, to_ms)
    labels, silence = truth(rows), silence_is_genuine(rows)
    replay, log, declared = VectorReplay(engine), rows.frauds_only(), by_name(engine.features)
    traits = [engine.names.index(name) for name in TRAITS]
    unusual_of, done = _Unusual(engine) if anomaly else _nobody_looked, start
    for parts in ahead(
        list(replay.feed(log.part(at, min(at + CHUNK, end)))) for at in range(start, end, CHUNK)
    ):
        odd = unusual_of(parts)
        for part in parts:
            accepted = np.flatnonzero(part.features.status == ACCEPTED)
            kept = accepted[accepted + done >= begin]
            X, numbers = part.features.X[kept], kept + done
            if online is not None:
                history = accepted[accepted + done < begin]
                online.learn(_labelled(rows, labels, part.features.X[history], history + done, silence))
            done += len(part.customer_ids)
            unusual, odd = odd[kept], odd[len(part.customer_ids) :]
            segments: Iterable[tuple[int, int, TreeModel]] = [(0, len(numbers), model)]
            if online is not None and len(numbers):
                segments = online.segments(_labelled(rows, labels, X, numbers, silence))
            for first, last, now in segments:
                mine = slice(first, last)
                score = now.predict_proba(X[mine])
                decisions = decide(now, score)
                alerted = np.flatnonzero(decisions > 0)
                reasons = explain(now, X[mine][alerted], declared)
                yield ScoredRows(
                    [rows.transaction_ids[i] for i in numbers[mine].tolist()],
                    [rows.customer_ids[i] for i in numbers[mine].tolist()],
                    rows.time_ms[numbers[mine]],
                    score,
                    decisions,
                    labels[numbers[mine]],
                    unusual[mine],
                    X[mine][:, traits],
                    dict(zip(alerted.tolist(), reasons, strict=True)),
                )


def _labelled(
    rows: Rows, labels: npt.NDArray[np.int8], X: Matrix, numbers: npt.NDArray[np.intp], silence: bool
) -> Labelled:
    times = rows.time_ms[numbers], rows.label_time_ms[numbers]
    return Labelled(X, numbers, times[0], labels[numbers], times[1], silence)


class _Unusual:
    """The anomaly score of chunk after chunk, each by the transactions of those before."""

    def __init__(self, engine: Engine) -> None:
        self._score, self._week = AnomalyScore(engine), -1

    def __call__(self, parts: Sequence[Vectors]) -> npt.NDArray[np.float64]:
        # Labels cut a chunk into parts: what is unusual must not depend on where.
        everything = np.concatenate([part.features.X for part in parts])
        counted = np.concatenate([part.features.status for part in parts]) == ACCEPTED
        week = int(parts[0].time_ms[0]) // _WEEK_MS if counted.any() else self._week
        if counted.any() and (week != self._week or self._score.seen < _EARLY):
            self._week = week
            self._score.refresh()
        odd = self._score.score(everything)
        self._score.learn(everything[counted])
        return odd


def _nobody_looked(parts: Sequence[Vectors]) -> npt.NDArray[np.float64]:
    return np.full(sum(len(part.customer_ids) for part in parts), np.nan)
