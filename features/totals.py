"""Lifetime totals of customers, moved past a chunk's transactions and corrected with them."""

import numpy as np
import numpy.typing as npt

from features import kernels
from features.arena import HistoryArena
from features.codec import Headers, Totals, empty_headers, encode_header, read_headers
from features.engine import ChunkFeatures
from features.record import TRANSACTION_KIND, Records


def update_totals(
    arena: HistoryArena, records: Records, slots: npt.NDArray[np.int64], features: ChunkFeatures
) -> Headers:
    """Add a chunk's accepted transactions to their customers' lifetime totals.

    Args:
        arena: Histories, past the chunk; their totals are changed.
        records: `(n,)` the chunk.
        slots: `(n,)` the customers' slots.
        features: What was computed of it.

    Returns:
        Headers with the totals behind each accepted transaction.
    """
    accepted = np.flatnonzero(features.status == kernels.ACCEPTED)
    corrected = set(np.flatnonzero(features.flags & kernels.FLAG_CORRECTED).tolist())
    slots, records = slots[accepted], records[accepted]
    if not corrected:
        behind = empty_headers(len(records))
        kernels.add_totals(arena.headers, records, slots, behind)
        return behind
    added: dict[int, Totals] = {}
    headers = []
    for row, slot, time_ms, minor, credit in zip(
        accepted.tolist(),
        slots.tolist(),
        records["time_ms"].tolist(),
        records["amount_minor"].tolist(),
        records["credit"].tolist(),
        strict=True,
    ):
        totals = added.get(slot) or arena.totals(slot)
        if row in corrected:
            totals = _without_replaced(totals, features.replaced[row : row + 1], arena.records(slot), time_ms)
        added[slot] = totals.plus_one(time_ms, minor, credit == 1)
        headers.append(encode_header(added[slot]))
    for slot, totals in added.items():
        arena.set_totals(slot, totals)
    return read_headers(b"".join(headers))


def _without_replaced(totals: Totals, replaced: Records, history: Records, time_ms: int) -> Totals:
    first_ms = totals.first_ms
    if replaced["time_ms"][0] == first_ms:
        # The earliest is in the history, so all others are.
        times = history["time_ms"][history["kind"] == TRANSACTION_KIND]
        first_ms = int(times.min(initial=time_ms))
    return totals.corrected(replaced, first_ms)
