"""What is known of a customer over their whole life: silence of months reaches beyond every window."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.codec import Totals
from features.codes import MINOR_UNITS
from features.definitions import DAY_MS, Feature, Op
from features.engine import Engine, Matrix
from features.entities import EntityFeature
from features.record import TRANSACTION_KIND, Records

_WINDOWS_DAYS: Final = (30, 60, 90)
_RATE_DAYS: Final = 30.0


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
)
"""A feature whose meaning changes gets another name: models are bound to these by name."""

LIFETIME_NAMES: Final = tuple(feature.name for feature in LIFETIME)


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
    lifetime = np.empty((len(slots), len(LIFETIME)))
    for i, (slot, moment) in enumerate(zip(slots.tolist(), as_of_ms.tolist(), strict=True)):
        records = arena.records(slot)
        lifetime[i] = lifetime_vector(records, totals_before(arena.totals(slot), records, moment), moment)
    return np.hstack([engine.compute_many(arena, slots, as_of_ms), lifetime])


def totals_before(totals: Totals, records: Records, as_of_ms: int) -> Totals:
    """Totals without what is at or after a moment, as far as the history keeps it (120 days).

    Args:
        totals: Of the whole history.
        records: `(n,)` in time order.
        as_of_ms: The moment.
    """
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
    vector = np.full(len(LIFETIME), np.nan)
    if totals.count == 0:
        return vector
    newest_ms, currency, *days = _look_back(records, as_of_ms)
    if newest_ms < 0:
        # What the history kept is all later: its day is known all the same.
        newest_ms = totals.last_day * DAY_MS
    scale = float(MINOR_UNITS[currency]) if currency >= 0 else 100.0
    silence, tenure = as_of_ms - newest_ms, as_of_ms - totals.first_ms
    active = max(totals.active_days, 1)
    first_day = totals.first_ms // DAY_MS
    interval = (totals.last_day - first_day) * DAY_MS / (active - 1) if active > 1 else math.nan
    spent = totals.debit_minor / scale
    vector[:] = (
        silence / 1000,
        tenure / 1000,
        totals.count,
        spent,
        totals.credit_minor / scale,
        active,
        *days,
        active * _RATE_DAYS / (tenure / DAY_MS + _RATE_DAYS),
        interval / 1000,
        silence / interval if active > 1 and interval > 0 else math.nan,
        silence / max(tenure, 1),
        spent / active,
        totals.count / active,
    )
    return vector


@numba.njit(cache=True)
def _look_back(records: Any, as_of_ms: int) -> Any:
    """Time and currency of the newest transaction before a moment (-1: none), active days of each window."""
    newest, currency, day_ms = -1, -1, 86_400_000
    in_30, in_60, in_90 = 0, 0, 0
    day = -1
    for index in range(records.shape[0] - 1, -1, -1):
        record = records[index]
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


def declared(engine: Engine) -> Sequence[Feature | EntityFeature]:
    """Declarations of the columns of `customer_vector`, in their order."""
    return (*engine.features, *LIFETIME)
