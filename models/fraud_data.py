"""Vectors of a log for the fraud model, and when each transaction was known to be fraud.

At every moment only what was known then is used. A row counts as genuine once its label delay is over
without a fraud label; until then nobody knows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from features.engine import Engine
from features.kernels import ACCEPTED
from models.boosting import Labels
from models.currencies import Currencies, counted
from models.vectors import FRAUD, GENUINE, Rows, VectorReplay

NEVER: Final = np.iinfo(np.int64).max
_CHUNK: Final = 4_000

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FraudData:
    """Vectors of transactions in time order, and when each was known to be fraud.

    Attributes:
        X: `(n, n_features)` as float32, columns in declaration order.
        time_ms: `(n,)`.
        known_ms: `(n,)` when its fraud became known, `NEVER` where it did not.
        end_ms: As of when: what was not known by then is not used.
        since_ms: When the log began; what was before is not known.
        currencies: Of the transactions.
    """

    X: npt.NDArray[np.float32]
    time_ms: Times
    known_ms: Times
    end_ms: int
    since_ms: int = 0
    currencies: Currencies = field(default_factory=dict)

    def known_by(self, as_of_ms: int) -> Labels:
        """`(n,)` whether it was known to be fraud."""
        return self.known_ms <= as_of_ms

    def settled(self, as_of_ms: int, delay_ms: int) -> Labels:
        """`(n,)` whether its label delay was over."""
        return self.time_ms < as_of_ms - delay_ms


def vectors_of(
    rows: Rows,
    engine: Engine,
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    on_rows: Callable[[int], None] = lambda done: None,
    untold: bool = False,
) -> FraudData:
    """Replay a log for training.

    Args:
        rows: In time order.
        engine: The engine.
        from_ms: Learn from later transactions only; what came before is their history.
        to_ms: As of when: nothing at or after it is looked at, nor any label of later.
        on_rows: Told how many rows are done.
        untold: Whether rows are wanted of which the file says nothing although it says of some that they are
            genuine.
    """
    end = len(rows) if to_ms is None else int(np.searchsorted(rows.time_ms, to_ms))
    begin = 0 if from_ms is None else min(int(np.searchsorted(rows.time_ms, from_ms)), end)
    labels = rows.labels[:end]
    # Where the file says of some that they are genuine, it says nothing of the others.
    told = labels != 0 if (labels == GENUINE).any() else np.ones(end, dtype=np.bool_)
    known = np.where(labels == FRAUD, rows.label_time_ms[:end], NEVER)
    replay, log = VectorReplay(engine), rows.frauds_only()
    X = np.empty((end - begin, len(engine.names)), dtype=np.float32)
    kept = told | untold
    kept[:begin] = False
    done = filled = 0
    for start in range(0, end, _CHUNK):
        for part in replay.feed(log.part(start, min(start + _CHUNK, end))):
            here = kept[done : done + len(part.customer_ids)]
            here &= part.features.status == ACCEPTED
            wanted = part.features.X[here]
            X[filled : filled + len(wanted)] = wanted
            filled += len(wanted)
            done += len(here)
        on_rows(done)
    end_ms = int(rows.time_ms[-1]) if end else 0
    if to_ms is not None and end:
        # Of later days the file says nothing, neither transactions nor labels: nobody is genuine by that.
        end_ms = min(to_ms, max(end_ms, int(rows.label_time_ms.max())))
    since_ms = int(rows.time_ms[0]) if end else 0
    currencies = counted(rows.records[:end][kept])
    return FraudData(X[:filled], rows.time_ms[:end][kept], known[kept], end_ms, since_ms, currencies)
