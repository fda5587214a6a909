"""Labels into histories: one rule for the stream, training data and replays."""

from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.definitions import MAX_EVENTS, RETENTION_MS
from features.kernels import find_transaction, insert_record, newest_arrival, retained_from
from features.record import LABEL_KIND, Records

PUT: Final = 0
ALREADY_THERE: Final = 1
UNKNOWN_TRANSACTION: Final = 2


@numba.njit(cache=True)
def is_leaving(pool: Any, start: int, length: int, transaction: int, oldest_ms: int, too_many: int) -> bool:
    """Whether a transaction is among the oldest records: before a time, or the first so many."""
    for index in range(start, start + length):
        record = pool[index]
        if record.time_ms >= oldest_ms and index - start >= too_many:
            return False
        if record.transaction == transaction:
            return True
    return False


@numba.njit(cache=True)
def _put(
    pool: Any,
    start: Any,
    length: Any,
    labels: Any,
    slots: Any,
    about_account: Any,
    retention_ms: int,
    max_events: int,
    outcome: Any,
) -> None:
    for i in range(labels.shape[0]):
        slot = slots[i]
        first = start[slot]
        end = first + length[slot]
        label = labels[i]
        newest = newest_arrival(pool, first, end)
        newest_ms = pool[newest].time_ms if newest >= first else 0
        # What is there before has left the history: when it was last cut down must not matter.
        kept = retained_from(pool, first, end, newest_ms, retention_ms, max_events)
        there = False
        for at in range(kept, end):
            r = pool[at]
            if r.kind == LABEL_KIND and r.transaction == label.transaction and r.label == label.label:
                there = True
                break
        if there:
            outcome[i] = ALREADY_THERE
            continue
        if not about_account[i] and find_transaction(pool, kept, end, label.transaction) < kept:
            outcome[i] = UNKNOWN_TRANSACTION
            continue
        insert_record(pool, first, length[slot], labels, i)
        length[slot] += 1
        outcome[i] = PUT


def put_labels(
    arena: HistoryArena,
    slots: npt.NDArray[np.int64],
    labels: Records,
    about_account: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int8]:
    """Put labels into histories, in order, each once.

    Args:
        arena: Histories; changed in place.
        slots: `(n,)` the customers' slots.
        labels: `(n,)` records of `features.record.label_record`.
        about_account: `(n,)` labels without a transaction, which need none in the history; `None`: all
            are about transactions.

    Returns:
        `(n,)`: `PUT`, `ALREADY_THERE`, or `UNKNOWN_TRANSACTION` where what the history keeps does not
        have it.
    """
    arena.reserve(slots)
    outcome = np.zeros(len(labels), dtype=np.int8)
    if about_account is None:
        about_account = np.zeros(len(labels), dtype=np.bool_)
    _put(
        arena.pool,
        arena.start,
        arena.length,
        labels,
        slots,
        about_account,
        RETENTION_MS,
        MAX_EVENTS,
        outcome,
    )
    return outcome
