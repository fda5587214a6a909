"""Compiled loops over tiles: windows of an event's entity, and counting the event."""

import math
from typing import Any, Final

import numba
import numpy as np

COUNT: Final = 0
FRAUD_COUNT: Final = 1
FRAUD_SHARE: Final = 2
CUSTOMERS: Final = 3
SINCE_FRAUD: Final = 4
FRAUD_RUN: Final = 5
GENUINE_SINCE: Final = 6
AMOUNT_RATIO: Final = 7
AMOUNT_ZSCORE: Final = 8

_MOST, _WRAP = 1 << 31, 1 << 32
LOG_STEPS: Final = 256
"""Steps of a logarithm in which an amount doubles: 0.3 % each. Squares of 2**35 amounts fit into 63 bits."""


@numba.njit(cache=True)
def log_amounts(minor: Any) -> Any:
    """Logarithms of amounts and one, in minor units, to whole steps: `(n,)`, and so are the results."""
    out = np.zeros(minor.shape[0], dtype=np.uint64)
    for i in range(minor.shape[0]):
        out[i] = np.uint64(math.floor(math.log2(np.float64(minor[i]) + 1.0) * LOG_STEPS + 0.5))
    return out


@numba.njit(cache=True)
def add_tile(
    pool: Any,
    first: int,
    length: int,
    hour: int,
    known: int,
    customer: int,
    count: int,
    log_sum: int,
    log_squares: int,
) -> int:
    """Count events where their hour belongs; returns how many tiles that added.

    The caller has made room for one at `first + length`.
    """
    index = first + length
    while index > first and pool[index - 1].hour > hour:
        index -= 1
    same = index - 1
    while same >= first and pool[same].hour == hour:
        if pool[same].known == known and pool[same].customer == customer:
            pool[same].count += np.uint32(count)
            pool[same].log_sum += np.uint64(log_sum)
            pool[same].log_squares += np.uint64(log_squares)
            return 0
        same -= 1
    for place in range(first + length, index, -1):
        pool[place] = pool[place - 1]
    pool[index].hour = hour
    pool[index].known = known
    pool[index].customer = customer
    pool[index].count = count
    pool[index].log_sum = log_sum
    pool[index].log_squares = log_squares
    return 1


@numba.njit(cache=True)
def _is_new(values: Any, stamp: int, customer: int) -> bool:
    """Put a customer into an open-addressing set; a value of another stamp counts as empty."""
    entry = np.uint64(stamp) << np.uint64(32) | np.uint64(customer)
    mask = np.uint64(values.shape[0] - 1)
    slot = (np.uint64(customer) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & mask
    while values[slot] >> np.uint64(32) == np.uint64(stamp):
        if values[slot] == entry:
            return False
        slot = (slot + np.uint64(1)) & mask
    values[slot] = entry
    return True


@numba.njit(cache=True)
def _end_hour(run: Any, s: int, hour: int) -> None:
    """All tiles of an hour were met, from the newest hour on: what that says of the newest run of frauds.

    `run[s]` is the hour of the newest fraud and the first of its run (-1: none yet), whether the run goes on,
    transactions since, and of this hour transactions and frauds.
    """
    total, frauds = run[s, 4], run[s, 5]
    if run[s, 0] < 0:
        if frauds > 0:
            run[s, 0], run[s, 1], run[s, 2] = hour, hour, 1
        else:
            run[s, 3] += total
    elif run[s, 2] and total > 0:
        if frauds >= total:
            run[s, 1] = hour
        else:
            run[s, 2] = 0
    run[s, 4], run[s, 5] = 0, 0


@numba.njit(cache=True)
def _amount(op: int, log: int, n: int, total: int, squares: int) -> float:
    """How an amount compares with those of a window: `n` of them, sums of their logarithms and squares."""
    if n == 0:
        return np.nan
    mean = total / n
    if op == AMOUNT_RATIO:
        ratio: float = 2.0 ** ((log - mean) / LOG_STEPS)
        return ratio
    # About a whole number near the mean: sums stay exact, and nothing large is taken from something large.
    shift = total // n
    rest = (total - n * shift) / n
    variance = (squares - 2 * shift * total + n * shift * shift) / n - rest * rest
    # What differs by less than a step differs by rounding alone.
    return (log - mean) / math.sqrt(variance) if variance > 1.0 else np.nan


@numba.njit(cache=True)
def _close(found: Any, runs: Any, place: int, s: int, sums: Any, run: Any, g: int) -> None:
    """A window's oldest tile was met: it has what its group has so far."""
    for kind in range(sums.shape[1]):
        found[place, s, kind] = sums[g, kind]
    for part in range(run.shape[1]):
        runs[place, s, part] = run[g, part]


@numba.njit(cache=True)
def _look(
    pool: Any,
    first: int,
    end: int,
    hour: Any,
    windows: Any,
    delays: Any,
    groups: Any,
    slack: int,
    retention: int,
    retention_of_frauds: int,
    most: int,
    apart: bool,
    place: int,
    found: Any,
    found_runs: Any,
    sums: Any,
    run: Any,
    upto: Any,
    with_runs: Any,
    values: Any,
    stamp: int,
) -> None:
    """All windows of an entity before an hour, into `found[place]`; see `compute_tiles`."""
    n_groups = groups.shape[0] - 1
    oldest, oldest_fraud = np.int64(0), np.int64(0)
    if end > first:
        oldest = np.int64(pool[end - 1].hour) - retention
        oldest_fraud = np.int64(pool[end - 1].hour) - retention_of_frauds
    sums[:] = 0
    run[:] = 0
    run[:, :2] = -1
    last = np.int64(-1)
    lowest = hour
    for g in range(n_groups):
        upto[g] = groups[g]
        longest = groups[g + 1] - 1
        lowest = min(lowest, hour - delays[longest] - windows[longest])
    lowest = max(lowest, oldest_fraud)
    events, confirmed = 0, 0
    index = end - 1
    while index >= first and pool[index].hour >= lowest:
        tile = pool[index]
        index -= 1
        # Unsigned where it is stored: what takes away is less than zero here.
        count = np.int64(tile.count) if tile.count < _MOST else np.int64(tile.count) - _WRAP
        # All of it was corrected away. Of transactions more was taken than there had been where another
        # version of this program did not count what is corrected now; of frauds that is what was withdrawn.
        if count == 0 or (count < 0 and tile.known == 0):
            continue
        # Whether what is beyond what is kept is here or let go of already must not matter.
        if tile.known == 0:
            events += 1
            if tile.hour < oldest or events > most:
                continue
        else:
            confirmed += 1
            if confirmed > most:
                continue
        if tile.known != 0 and tile.known >= hour - slack:
            continue
        another = tile.hour != last
        for g in range(n_groups):
            if another:
                if with_runs[g]:
                    _end_hour(run, g, last)
                newer = hour - delays[groups[g]]
                while upto[g] < groups[g + 1] and tile.hour < newer - windows[upto[g]]:
                    _close(found, found_runs, place, upto[g], sums, run, g)
                    upto[g] += 1
            if upto[g] == groups[g + 1] or tile.hour >= hour - delays[groups[g]]:
                continue
            if tile.known != 0:
                sums[g, 1] += count
                run[g, 5] += count
                continue
            sums[g, 0] += count
            sums[g, 3] += np.int64(tile.log_sum)
            sums[g, 4] += np.int64(tile.log_squares)
            run[g, 4] += count
            if apart and _is_new(values[g], stamp, tile.customer):
                sums[g, 2] += 1
        last = np.int64(tile.hour)
    for g in range(n_groups):
        if with_runs[g]:
            _end_hour(run, g, last)
        while upto[g] < groups[g + 1]:
            _close(found, found_runs, place, upto[g], sums, run, g)
            upto[g] += 1


@numba.njit(cache=True)
def compute_tiles(
    pool: Any,
    start: Any,
    length: Any,
    slots: Any,
    hours: Any,
    customers: Any,
    logs: Any,
    ops: Any,
    spans: Any,
    windows: Any,
    delays: Any,
    groups: Any,
    slack: int,
    retention: int,
    retention_of_frauds: int,
    most: int,
    count: bool,
    apart: bool,
    out: Any,
    known: Any,
    found: Any,
    found_runs: Any,
    sums: Any,
    run: Any,
    upto: Any,
    with_runs: Any,
    values: Any,
    stamp: int,
) -> int:
    """Windows of events in order, each before it is counted; returns the last stamp used.

    Of events, `(n,)`: `slots` of their entities (negative: the row stays as it is), `hours`, `customers` and
    `logs` of `log_amounts`. Of features, `(k,)`: `ops` and `spans`, which say where `windows` and `delays`,
    in tiles, are. Spans of one delay stand together, the shortest first: group `g` is spans `groups[g]` to
    `groups[g + 1]`, whose windows begin with the same tile, so that one sum serves them all. `apart` is
    whether customers are told apart. `out` is `(n, k)`.

    All windows end before the event's hour, so what they hold is that of the whole hour: `known` says of
    which slot, hour and number of tiles `found` and `found_runs` are, one place for slots that are equal but
    for multiples of their number. What follows is scratch: of groups `sums` (transactions, frauds, customers,
    logarithms, their squares), runs of `_end_hour`, which span ends next, whether a feature asks for runs,
    and sets.
    """
    for e in range(slots.shape[0]):
        slot = slots[e]
        if slot < 0:
            continue
        hour = hours[e]
        place = slot % known.shape[0]
        first, tiles = start[slot], length[slot]
        if known[place, 0] != slot or known[place, 1] != hour or known[place, 2] != tiles:
            stamp += 1
            _look(
                pool, first, first + tiles, hour, windows, delays, groups, slack, retention,
                retention_of_frauds, most, apart, place, found, found_runs, sums, run, upto, with_runs,
                values, stamp,
            )  # fmt: skip
            known[place, 0], known[place, 1], known[place, 2] = slot, hour, tiles
        for f in range(ops.shape[0]):
            s = spans[f]
            total, frauds = found[place, s, 0], max(found[place, s, 1], 0)
            if ops[f] == FRAUD_COUNT:
                out[e, f] = frauds
            elif ops[f] == FRAUD_SHARE:
                out[e, f] = frauds / total if total > 0 else np.nan
            elif ops[f] == CUSTOMERS:
                out[e, f] = found[place, s, 2]
            elif ops[f] == SINCE_FRAUD or ops[f] == FRAUD_RUN:
                begun = found_runs[place, s, 0] if ops[f] == SINCE_FRAUD else found_runs[place, s, 1]
                out[e, f] = (hour - begun) * 3600.0 if begun >= 0 else np.nan
            elif ops[f] == GENUINE_SINCE:
                out[e, f] = found_runs[place, s, 3] if found_runs[place, s, 0] >= 0 else np.nan
            elif ops[f] == AMOUNT_RATIO or ops[f] == AMOUNT_ZSCORE:
                log = np.int64(logs[e])
                out[e, f] = _amount(ops[f], log, total, found[place, s, 3], found[place, s, 4])
            else:
                out[e, f] = total
        oldest = np.int64(pool[first + tiles - 1].hour) - retention if tiles > 0 else np.int64(0)
        if count and hour >= oldest:
            log = logs[e]
            length[slot] += add_tile(pool, first, tiles, hour, 0, customers[e], 1, log, log * log)
    return stamp
