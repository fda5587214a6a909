"""What of a customer's history counts, and whether that reaches back over all windows of a moment."""

import numpy as np

from features.codec import History
from features.definitions import MAX_EVENTS, RETENTION_MS
from features.kernels import holds_transactions, newest_arrival, retained_from
from features.record import RECORD, TRANSACTION_KIND, Records


def retained(records: Records) -> Records:
    """The part of a history that features may look at.

    What is stored before it depends on when the history was last packed, and nothing else may.

    Args:
        records: `(n,)` in time order.
    """
    newest = int(newest_arrival(records, 0, len(records)))
    newest_ms = int(records["time_ms"][newest]) if newest >= 0 else 0
    first = int(retained_from(records, 0, len(records), newest_ms, RETENTION_MS, MAX_EVENTS))
    kept: Records = records[first:]
    return kept


def history_cut(history: History, as_of_ms: int, reach_ms: int) -> bool:
    """Whether windows as of a moment begin before what a history keeps, where there had been events.

    What scores are flagged with when they are made (`kernels.FLAG_HISTORY_CUT`), asked of a moment in the
    past. Lifetime totals know of events that no copy of the history holds any more: so, unlike there, a
    customer who is younger than what is kept is never cut.

    Args:
        history: As it is stored now.
        as_of_ms: The moment.
        reach_ms: How far before it the longest window begins, as `Engine.reach_ms`.
    """
    newest = int(newest_arrival(history.records, 0, len(history.records)))
    if newest < 0:
        return False
    whole_from_ms = int(history.records["time_ms"][newest]) - RETENTION_MS
    if len(history.records) >= MAX_EVENTS:
        kept = retained(history.records)
        full = holds_transactions(kept, 0, len(kept), MAX_EVENTS)
        if full and history.totals.count > np.count_nonzero(kept["kind"] == TRANSACTION_KIND):
            # Others of the oldest one's millisecond may be gone.
            whole_from_ms = max(whole_from_ms, int(kept["time_ms"][0]) + 1)
    return as_of_ms - reach_ms < whole_from_ms and history.totals.first_ms < whole_from_ms


def warm_up() -> None:
    """Compile now what the first lookup would wait for."""
    record = np.zeros(1, dtype=RECORD)
    retained(record)
    holds_transactions(record, 0, 1, MAX_EVENTS)
