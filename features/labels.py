"""Labels into histories: one rule for the stream, training data and replays."""

from typing import Any, Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.definitions import MAX_EVENTS, RETENTION_MS
from features.kernels import find_transaction, insert_record, newest_arrival, retained_from
from features.record import LABEL_CODES, LABEL_KIND, Records

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


class Word(NamedTuple):
    """What was said of a transaction.

    Attributes:
        known_ms: Since when it is known.
        change: 1: that it was fraud; -1: that it was not after all.
    """

    known_ms: int
    change: int


def words_about(history: Records, transaction: int) -> tuple[Word, ...]:
    """What labels in a history say of a transaction, whatever order they were read in.

    What was said genuine before it was said fraud, or never fraud, says nothing.

    Args:
        history: `(n,)` records.
        transaction: Hash of its id.
    """
    labels = history[(history["kind"] == LABEL_KIND) & (history["transaction"] == transaction)]
    times = {code: labels["time_ms"][labels["label"] == LABEL_CODES[code]] for code in ("fraud", "genuine")}
    if not len(times["fraud"]):
        return ()
    known_ms = int(times["fraud"][0])
    withdrawn = [Word(int(ms), -1) for ms in times["genuine"][:1] if ms >= known_ms]
    return (Word(known_ms, 1), *withdrawn)


def words_of(history: Records, label: Records) -> tuple[Word, ...]:
    """What a label that was put into a history adds to what is said of its transaction.

    Args:
        history: `(n,)` records, with the label.
        label: Its record, `(1,)`.
    """
    others = history[
        (history["kind"] != LABEL_KIND)
        | (history["transaction"] != label["transaction"][0])
        | (history["label"] != label["label"][0])
    ]
    before = words_about(others, label["transaction"][0])
    return tuple(word for word in words_about(history, label["transaction"][0]) if word not in before)
