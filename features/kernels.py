"""Compiled pieces that every generated kernel calls: searching, inserting, distances."""

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

INNER: Any = {"cache": True, "_nrt": False}
"""How what runs for each event is compiled: without counting references to arrays, which its callers hold.

Numba counts a reference, with all processors in step, wherever an array or a record is passed or named. Such
code cannot make arrays; numba refuses to compile what does.
"""
HOUR_MS = 3_600_000
_HOUR = float(HOUR_MS)
SQUARE_BITS = 25
"""Differences of amounts are squared in two halves of so many bits: sums of 16,384 squares fit into 64."""
_EARTH_RADIUS_KM = 6371.0088

# Outcomes of one event, as the chunk kernel reports them.
ACCEPTED = 0
DUPLICATE = 1
# Flags of one event.
FLAG_LATE = 1
FLAG_COLD_START = 2
FLAG_HISTORY_CUT = 4
FLAG_CORRECTED = 8


@numba.njit(**INNER)
def haversine_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Great-circle distance on a sphere of the Earth's mean radius.

    Source:
        R. W. Sinnott (1984), Sky and Telescope 68(2), 159.

    >>> round(haversine_km(48.8566, 2.3522, 51.5074, -0.1278))
    344
    """
    phi_a, phi_b = math.radians(latitude_a), math.radians(latitude_b)
    half_phi = math.sin((phi_b - phi_a) / 2.0)
    half_lambda = math.sin(math.radians(longitude_b - longitude_a) / 2.0)
    inner = half_phi * half_phi + math.cos(phi_a) * math.cos(phi_b) * half_lambda * half_lambda
    return 2.0 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, inner)))


@numba.njit(**INNER)
def hours_utc(time_ms: Any) -> Any:
    """Whole hours since 1970, of a time not before that.

    Divided in floating point, since processors divide several of these at once. At any time before the year
    9999 the quotient is far enough from the next whole number that rounding never reaches it.
    """
    return np.uint32(np.float64(time_ms) / _HOUR)


@numba.njit(**INNER)
def hour_of(hours: Any) -> Any:
    """Hour of the day, 0 to 23."""
    return hours % np.uint32(24)


@numba.njit(**INNER)
def weekday_of(hours: Any) -> Any:
    """Day of the week; Monday is 0. The first of January 1970 was a Thursday."""
    return (hours // np.uint32(24) + np.uint32(3)) % np.uint32(7)


@numba.njit(**INNER)
def hour_utc(time_ms: Any) -> Any:
    """Hour of the day of a time."""
    return hour_of(hours_utc(time_ms))


@numba.njit(**INNER)
def weekday_utc(time_ms: Any) -> Any:
    """Day of the week of a time."""
    return weekday_of(hours_utc(time_ms))


@intrinsic
def prefetch(typing_context: Any, pool: Any, index: Any) -> Any:
    """Ask the processor for `pool[index]`, which is read soon; any index will do, also one outside."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        offset = builder.mul(arguments[1], array.itemsize)
        address = cgutils.pointer_add(builder, array.data, offset, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        wanted = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, wanted, "llvm.prefetch.p0")
        # For reading, kept in all caches, data.
        builder.call(function, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(pool, types.int64), generate


@numba.njit(**INNER)
def packed_codes(record: Any) -> Any:
    """The codes that conditions compare, side by side as `features.columns.PACKED` says, and the kind on top.

    All of them stand so in memory too: this is one load.
    """
    low = np.uint64(record.currency) | np.uint64(record.category) << np.uint64(16)
    middle = np.uint64(record.transaction_type) << np.uint64(24) | np.uint64(record.channel) << np.uint64(32)
    high = np.uint64(record.credit) << np.uint64(40) | np.uint64(record.card_present) << np.uint64(48)
    return low | middle | high | np.uint64(record.kind) << np.uint64(56)


@numba.njit(**INNER)
def position_before(pool: Any, start: int, end: int, time_ms: int) -> int:
    """First index in `[start, end)` whose record is not before `time_ms`, else `end`."""
    # Nearly always the end: events come nearly in order.
    if end == start or pool[end - 1].time_ms < time_ms:
        return end
    low, high = start, end - 1
    while low < high:
        middle = (low + high) // 2
        if pool[middle].time_ms < time_ms:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(**INNER)
def find_transaction(pool: Any, start: int, end: int, transaction: int) -> Any:
    """Index of a record of this transaction, `start - 1` where there is none.

    Whichever of its versions that is, it has the newest one's revision, amount and sign.
    """
    # Unsigned: what numba does for indices that count from the end costs as much as the comparison.
    one, index = np.uint64(1), np.uint64(end)
    while index > np.uint64(start):
        index -= one
        if pool[index].transaction == transaction and pool[index].kind != 1:
            return np.int64(index)
    return start - 1


@numba.njit(**INNER)
def replace_transaction(pool: Any, start: int, end: int, records: Any, which: int, replaced: Any) -> None:
    """Hide all earlier versions of a transaction from features, and note its newest in them.

    The one that features saw goes to `replaced[which]`, else, where only the note of it is left, that.
    """
    seen = False
    for index in range(start, end):
        if pool[index].transaction == records[which].transaction and pool[index].kind != 1:
            if not seen:
                replaced[which] = pool[index]
                seen = pool[index].kind == 0
            pool[index].kind = 2
            pool[index].revision = records[which].revision
            pool[index].amount_minor = records[which].amount_minor
            pool[index].credit = records[which].credit


@numba.njit(**INNER)
def insert_record(pool: Any, start: int, length: int, records: Any, which: int) -> None:
    """Put one record where its time belongs, behind others of the same time.

    The caller has made room for it at `start + length`.
    """
    index = start + length
    while index > start and pool[index - 1].time_ms > records[which].time_ms:
        pool[index] = pool[index - 1]
        index -= 1
    pool[index] = records[which]


@numba.njit(**INNER)
def newest_transaction(pool: Any, start: int, end: int) -> int:
    """Index of the newest transaction in `[start, end)`, `start - 1` where there is none.

    Labels stand in the history too, at the time they became known: they make no event late.
    """
    index = end - 1
    while index >= start and pool[index].kind != 0:
        index -= 1
    return index


@numba.njit(**INNER)
def newest_arrival(pool: Any, start: int, end: int) -> int:
    """Index of the newest transaction in `[start, end)`, replaced or not; `start - 1` where there is none.

    What is kept is measured from it: a correction that moves the newest event back brings nothing back.
    """
    index = end - 1
    while index >= start and pool[index].kind == 1:
        index -= 1
    return index


@numba.njit(cache=True)
def newest_times(pool: Any, start: Any, length: Any, slots: Any) -> Any:
    """Time of each slot's newest transaction, corrected or not; 0 for none: a label is no sign of life."""
    times = np.zeros(slots.shape[0], dtype=np.int64)
    for i in range(slots.shape[0]):
        first = start[slots[i]]
        newest = newest_arrival(pool, first, first + length[slots[i]])
        if newest >= first:
            times[i] = pool[newest].time_ms
    return times


@numba.njit(**INNER)
def newest_from(pool: Any, start: int, end: int, count: int) -> int:
    """First index of the newest `count` transactions in `[start, end)`; labels do not count."""
    if end - start <= count:
        return start
    index, found = end, 0
    while index > start and found < count:
        index -= 1
        if pool[index].kind != 1:
            found += 1
    return index


@numba.njit(**INNER)
def holds_transactions(pool: Any, start: int, end: int, count: int) -> bool:
    """Whether at least `count` transactions are in `[start, end)`."""
    if end - start < count:
        return False
    found = 0
    for index in range(start, end):
        if pool[index].kind != 1:
            found += 1
    return bool(found >= count)


@numba.njit(**INNER)
def retained_from(pool: Any, start: int, end: int, newest_ms: int, retention_ms: int, max_events: int) -> int:
    """First index that still counts: not older than the retention, not beyond the newest `max_events`.

    What is physically kept before it is never looked at, so that when a history was last cut down
    changes no feature.
    """
    first: int = newest_from(pool, start, end, max_events)
    if first < end and pool[first].time_ms < newest_ms - retention_ms:
        first = int(position_before(pool, first, end, newest_ms - retention_ms))
    return first


@numba.njit(**INNER)
def add_totals(headers: Any, records: Any, slots: Any, behind: Any) -> None:
    """Add accepted transactions to the lifetime totals in their customers' headers.

    Sums stop at the largest stored number: absurd ones must not stop the stream.

    Args:
        headers: `(n_slots,)` of `codec.HEADER`; changed.
        records: `(n,)` accepted transactions in order.
        slots: `(n,)` the customers.
        behind: `(n,)` of `codec.HEADER`: filled with the header behind each of them.
    """
    largest = np.int64(0x7FFFFFFFFFFFFFFF)
    last, day_ms = np.int64(0xFFFF), np.int64(86_400_000)
    for i in range(records.shape[0]):
        header, record = headers[slots[i]], records[i]
        if header.count == 0 or record.time_ms < header.first_ms:
            header.first_ms = record.time_ms
        header.count += 1
        if record.credit == 1:
            header.credit_minor = (
                min(header.credit_minor, largest - record.amount_minor) + record.amount_minor
            )
        else:
            header.debit_minor = min(header.debit_minor, largest - record.amount_minor) + record.amount_minor
        day = min(record.time_ms // day_ms, last)
        if day > np.int64(header.last_day):
            header.last_day = day
            header.active_days = min(np.int64(header.active_days) + 1, last)
        behind[i] = header


@numba.njit(cache=True)
def numbered(slots: Any) -> tuple[Any, Any]:
    """Different slots, each numbered from 0 where it first stands; by hashing, as most chunks are small.

    Args:
        slots: `(n,)`.

    Returns:
        `known: (k,)` and `number: (n,)`, with `known[number] == slots`.
    """
    n, size = slots.shape[0], 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, dtype=np.int64)
    known, number, found = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), 0
    for i in range(n):
        place = (slots[i] * 0x9E3779B1) & (size - 1)
        while table[place] >= 0 and known[table[place]] != slots[i]:
            place = (place + 1) & (size - 1)
        if table[place] < 0:
            table[place], known[found] = found, slots[i]
            found += 1
        number[i] = table[place]
    return known[:found], number


@numba.njit(cache=True)
def first_of_day(times: Any, slots: Any, last_day: Any, day_ms: int) -> tuple[Any, Any]:
    """Which events are their customer's first of a day later than all before.

    Args:
        times: `(n,)` in ms, in the order of the log.
        slots: `(n,)` the customers.
        last_day: `(n_slots,)` latest day before.
        day_ms: Length of a day.

    Returns:
        `first: (n,)` and `mixed: (n,)`: whether an event of the same customer that is not newer comes later.
    """
    n = times.shape[0]
    first, mixed = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    latest, oldest = last_day.copy(), np.full(last_day.shape[0], np.int64(0x7FFFFFFFFFFFFFFF))
    for i in range(n):
        day = times[i] // day_ms
        if day > latest[slots[i]]:
            first[i], latest[slots[i]] = True, day
    for i in range(n - 1, -1, -1):
        mixed[i] = oldest[slots[i]] <= times[i]
        oldest[slots[i]] = min(oldest[slots[i]], times[i])
    return first, mixed


@numba.njit(**INNER)
def deviation_sum(n: int, total: Any, shift: int) -> float:
    """Sum of the differences of `n` amounts from `shift`, exact until it is rounded once.

    `total` is the sum of the amounts, unsigned.
    """
    shifted = np.uint64(n) * np.uint64(shift)
    return np.float64(total - shifted) if total >= shifted else -np.float64(shifted - total)


@numba.njit(**INNER)
def sample_std(n: int, deviations: float, low: Any, mid: Any, high: Any) -> float:
    """Standard deviation of a sample of at least two, from sums of differences and of their squares.

    Args:
        n: How many.
        deviations: Sum of the differences from some number near all of them.
        low: Sum of the squares of the differences' lower `SQUARE_BITS`.
        mid: Sum of the products of the lower and the higher ones.
        high: Sum of the squares of the higher ones.
    """
    squares = np.float64(high) * 2.0 ** (2 * SQUARE_BITS) + np.float64(mid) * 2.0 ** (SQUARE_BITS + 1)
    squares += np.float64(low)
    return math.sqrt(max(0.0, (squares - deviations * deviations / n) / (n - 1)))


@numba.njit(**INNER)
def count_bits(bits: Any) -> int:
    """How many bits of an unsigned number are set.

    Source:
        P. Wegner (1960), Communications of the ACM 3(5), 322.
    """
    count = 0
    while bits:
        bits &= bits - np.uint64(1)
        count += 1
    return count


@numba.njit(**INNER)
def add_distinct(values: Any, stamp: Any, value: Any) -> int:
    """Put a 32-bit value into an open-addressing set; 1 where it was not there.

    Args:
        values: `(capacity,)` unsigned 64-bit, a power of two of them, half full at most.
        stamp: This call's, in the upper 32 bits. A slot with another counts as empty, so nothing is ever
            cleared.
        value: What to add.
    """
    wanted = stamp | np.uint64(value)
    mask = np.uint64(values.shape[0] - 1)
    slot = (np.uint64(value) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & mask
    one, below = np.uint64(1), np.uint64(0xFFFFFFFF)
    difference = values[slot] ^ wanted
    # Another value of this call stands there: neither 0, which would be this one, nor up to the stamp. One
    # comparison, for that hardly ever happens; with one for each case it is a guess whether a value is new.
    while difference - one < below:
        slot = (slot + one) & mask
        difference = values[slot] ^ wanted
    values[slot] = wanted
    return int(difference > below)
