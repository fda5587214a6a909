"""What is known of a customer over their whole life: silence of months reaches beyond every window."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.attributes import AttributeFeature
from features.codec import Headers, History, Totals, encode_header, read_headers
from features.codes import MINOR_UNITS
from features.definitions import DAY_MS, MAX_EVENTS, RETENTION_MS, Feature, Op
from features.engine import Engine, Matrix
from features.entities import EntityFeature
from features.kernels import newest_arrival, retained_from
from features.record import TRANSACTION_KIND, Records

_WINDOWS_DAYS: Final = (30, 60, 90)
_RATE_DAYS: Final = 30.0
_DAY_MS: Final = int(DAY_MS)
_RETENTION_MS: Final = int(RETENTION_MS)
_MAX_EVENTS: Final = int(MAX_EVENTS)
_YEAR_MS: Final = 365.2425 * DAY_MS
_SEASON: Final = "the time of year"


def _ever(name: str, unit: str, meaning: str, phrase: str) -> Feature:
    # The op is of documents only: no kernel computes these.
    return Feature(name, "lifetime", Op.EVENT_VALUE, unit, meaning, phrase=phrase)


LIFETIME: Final[tuple[Feature, ...]] = (
    _ever("silence_s", "s", "Time since the newest transaction, however long ago.", "silent for {duration}"),
    _ever("tenure_s", "s", "Time since the first transaction ever.", "a customer for {duration}"),
    _ever("txn_count_ever", "events", "Transactions ever.", "{value:.0f} transactions ever"),
    _ever("amount_sum_ever", "currency", "Spent ever.", "{value:.2f} spent ever"),
    _ever("credit_sum_ever", "currency", "Money in, ever.", "{value:.2f} came in ever"),
    _ever("active_days_ever", "days", "Days with a transaction, ever.", "active on {value:.0f} days ever"),
    *(
        _ever(
            f"active_days_{days}d",
            "days",
            f"Days with a transaction in the last {days} days.",
            f"active on {{value:.0f}} of the last {days} days",
        )
        for days in _WINDOWS_DAYS
    ),
    _ever(
        "active_days_per_month_ever",
        "days",
        "Active days for every 30 days of tenure, with a month of tenure added: who is new is not busy.",
        "active on {value:.1f} days a month",
    ),
    _ever(
        "interval_ever_s",
        "s",
        "Mean time from one active day to the next; unknown before the second.",
        "usually {duration} between active days",
    ),
    _ever(
        "silence_to_interval",
        "ratio",
        "Silence over the mean time from one active day to the next; 1 is when they are due.",
        "silent {value:.1f} times as long as usual",
    ),
    _ever(
        "silence_to_tenure",
        "ratio",
        "Silence over tenure.",
        "silent for {value:.0%} of the time as a customer",
    ),
    _ever(
        "amount_per_active_day",
        "currency",
        "Spent ever, for each active day.",
        "{value:.2f} spent on an active day",
    ),
    _ever(
        "txn_per_active_day",
        "events",
        "Transactions ever, for each active day.",
        "{value:.1f} transactions on an active day",
    ),
    _ever("year_cosine", "ratio", "Time of year: 1 at New Year, -1 at the beginning of July.", _SEASON),
    _ever("year_sine", "ratio", "Time of year: 1 at the beginning of April, -1 at that of October.", _SEASON),
)
"""A feature whose meaning changes gets another name: models are bound to these by name."""

LIFETIME_NAMES: Final = tuple(feature.name for feature in LIFETIME)
SEASON_NAMES: Final = ("year_cosine", "year_sine")
"""Of no use to who has not seen each time of the year: then they tell early days from late ones."""
GROWING_NAMES: Final = (
    "tenure_s",
    "txn_count_ever",
    "amount_sum_ever",
    "credit_sum_ever",
    "active_days_ever",
    "silence_to_tenure",
)
"""Those that are larger with every day of the same customers; over tenure, smaller."""


def customer_names(engine: Engine) -> tuple[str, ...]:
    """Columns of `customer_vector`."""
    return (*engine.names, *LIFETIME_NAMES)


def customer_vector(
    engine: Engine, records: Records, totals: Totals, as_of_ms: int
) -> npt.NDArray[np.float64]:
    """All that is known of a customer at a moment: the engine's vector, and behind it `LIFETIME`.

    Args:
        engine: The engine.
        records: `(n,)` what the history keeps, in time order; those at or after `as_of_ms` do not count.
        totals: Lifetime totals of the same history.
        as_of_ms: The moment.

    Returns:
        `(n_features + k,)`; NaN is unknown.
    """
    lifetime = lifetime_vector(records, totals_before(totals, records, as_of_ms), as_of_ms)
    return np.concatenate([engine.compute(records, None, as_of_ms), lifetime])


def customer_vectors(
    engine: Engine, arena: HistoryArena, slots: npt.NDArray[np.int64], as_of_ms: npt.NDArray[np.int64]
) -> Matrix:
    """`customer_vector` of customers in the arena, each as of its own moment.

    Args:
        engine: The engine.
        arena: Histories; not changed.
        slots: `(n,)` the customers' slots.
        as_of_ms: `(n,)` the moments.

    Returns:
        `(n, n_features + k)`.
    """
    later = arena.newest_ms(slots) >= as_of_ms
    lifetime, settled = np.empty((len(slots), len(LIFETIME))), slots[~later]
    # Their totals are those of the moment: nothing came after it.
    lifetime[~later] = lifetime_vectors(arena, settled, arena.headers[settled], as_of_ms[~later])
    for i in np.flatnonzero(later).tolist():
        records, moment = arena.records(int(slots[i])), int(as_of_ms[i])
        totals = totals_before(arena.totals(int(slots[i])), records, moment)
        lifetime[i] = lifetime_vector(records, totals, moment)
    return np.hstack([engine.compute_many(arena, slots, as_of_ms), lifetime])


def totals_before(totals: Totals, records: Records, as_of_ms: int) -> Totals:
    """Totals without what is at or after a moment, as far as the history keeps it (120 days).

    Args:
        totals: Of the whole history.
        records: `(n,)` in time order.
        as_of_ms: The moment.
    """
    records = records[_first_kept(records, 0, len(records)) :]
    begin = int(np.searchsorted(records["time_ms"], as_of_ms))
    after = records[begin:]
    after = after[after["kind"] == TRANSACTION_KIND]
    if len(after) == 0:
        return totals
    before = records[:begin]
    days_before = before["time_ms"][before["kind"] == TRANSACTION_KIND] // DAY_MS
    days_after = np.unique(after["time_ms"] // DAY_MS)
    last_day = int(days_before.max(initial=0))
    credit = after["credit"] == 1
    count = max(totals.count - len(after), 0)
    return Totals(
        totals.first_ms if totals.first_ms < as_of_ms else 0,
        count,
        totals.debit_minor - int(after["amount_minor"][~credit].sum()),
        totals.credit_minor - int(after["amount_minor"][credit].sum()),
        totals.churn_day,
        totals.churn_band,
        last_day,
        max(totals.active_days - int((days_after > last_day).sum()), 0),
    )


def lifetime_vector(records: Records, totals: Totals, as_of_ms: int) -> npt.NDArray[np.float64]:
    """`LIFETIME` of a customer.

    Args:
        records: `(n,)` in time order; those at or after `as_of_ms` are not looked at.
        totals: As of the same moment.
        as_of_ms: The moment.

    Returns:
        `(k,)`; unknown for who has no transaction before the moment.
    """
    header, vector = read_headers(encode_header(totals)), np.empty((1, len(LIFETIME)))
    place = np.array([[0], [len(records)], [as_of_ms]])
    _lifetimes(records, place[0], place[1], header, place[2], MINOR_UNITS, vector)
    found: npt.NDArray[np.float64] = vector[0]
    return found


def lifetime_vectors(
    arena: HistoryArena, slots: npt.NDArray[np.int64], totals: Headers, as_of_ms: npt.NDArray[np.int64]
) -> Matrix:
    """`lifetime_vector` of customers in the arena, `(n, k)`.

    Args:
        arena: Histories.
        slots: `(n,)` the customers' slots.
        totals: `(n,)` of `codec.HEADER`, each as of its moment.
        as_of_ms: `(n,)` the moments.
    """
    vectors = np.empty((len(slots), len(LIFETIME)))
    _lifetimes(arena.pool, arena.start[slots], arena.length[slots], totals, as_of_ms, MINOR_UNITS, vectors)
    return vectors


@numba.njit(cache=True)
def _first_kept(pool: Any, start: int, end: int) -> int:
    """Where what a history keeps begins: when it was last cut down must change no value.

    Measured from the newest event and not from the moment: silence may be longer than what is kept.
    """
    newest = newest_arrival(pool, start, end)
    if newest < start:
        return start
    return int(retained_from(pool, start, end, pool[newest].time_ms, _RETENTION_MS, _MAX_EVENTS))


@numba.njit(cache=True)
def _look_back(pool: Any, start: int, length: int, as_of_ms: int) -> Any:
    """Time and currency of the newest transaction before a moment (-1: none), active days of each window."""
    newest, currency, day_ms = -1, -1, 86_400_000
    in_30, in_60, in_90 = 0, 0, 0
    day = -1
    for index in range(start + length - 1, _first_kept(pool, start, start + length) - 1, -1):
        record = pool[index]
        time_ms = record.time_ms
        if record.kind != 0 or time_ms >= as_of_ms:
            continue
        if newest < 0:
            newest, currency = time_ms, int(record.currency)
        age = as_of_ms - time_ms
        if age > 90 * day_ms:
            break
        if time_ms // day_ms != day:
            day = time_ms // day_ms
            in_90 += 1
            if age <= 60 * day_ms:
                in_60 += 1
            if age <= 30 * day_ms:
                in_30 += 1
    return newest, currency, in_30, in_60, in_90


@numba.njit(cache=True)
def _lifetimes(pool: Any, start: Any, length: Any, totals: Any, as_of_ms: Any, units: Any, out: Any) -> None:
    """Fill rows of `out` from histories in a pool.

    Args:
        pool: Records.
        start: `(n,)` where each history begins.
        length: `(n,)` of each.
        totals: `(n,)` of `codec.HEADER`.
        as_of_ms: `(n,)`.
        units: Minor units of a major one, by currency.
        out: `(n, k)`.
    """
    for i in range(out.shape[0]):
        header, moment, vector = totals[i], as_of_ms[i], out[i]
        if header.count == 0:
            vector[:] = math.nan
            continue
        newest_ms, currency, in_30, in_60, in_90 = _look_back(pool, start[i], length[i], moment)
        last_day, active = int(header.last_day), max(int(header.active_days), 1)
        if newest_ms < 0:
            # What the history kept is all later: its day is known all the same.
            newest_ms = last_day * _DAY_MS
        scale = units[currency] if currency >= 0 else 100.0
        silence, tenure = moment - newest_ms, moment - header.first_ms
        spent = header.debit_minor / scale
        between = (last_day - header.first_ms // _DAY_MS) * _DAY_MS
        interval = between / (active - 1) if active > 1 else math.nan
        vector[0] = silence / 1000
        vector[1] = tenure / 1000
        vector[2] = header.count
        vector[3] = spent
        vector[4] = header.credit_minor / scale
        vector[5] = active
        vector[6] = in_30
        vector[7] = in_60
        vector[8] = in_90
        vector[9] = active * _RATE_DAYS / (tenure / _DAY_MS + _RATE_DAYS)
        vector[10] = interval / 1000
        vector[11] = silence / interval if active > 1 and interval > 0 else math.nan
        vector[12] = silence / max(tenure, 1)
        vector[13] = spent / active
        vector[14] = header.count / active
        angle = 2 * math.pi * (moment / _YEAR_MS)
        vector[15] = math.cos(angle)
        vector[16] = math.sin(angle)


def warm_up() -> None:
    """Compile now what the first churn score would wait for."""
    arena = HistoryArena()
    slots = np.array([arena.put("", History.empty())])
    lifetime_vectors(arena, slots, arena.headers[slots], slots)


def declared(engine: Engine) -> Sequence[Feature | EntityFeature | AttributeFeature]:
    """Declarations of the columns of `customer_vector`, in their order."""
    return (*engine.features, *LIFETIME)
