"""The rhythm of a day, a week and a year."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from generator.draws import Floats, Ints
from generator.settings import DAY_MS, HOUR_MS, BankSettings

# Share of a kind of shop's visits by hour of the day, 0 to 23, not normalised.
HOURS: dict[str, tuple[float, ...]] = {
    "shop": (0, 0, 0, 0, 0, 0, 0, 1, 3, 6, 8, 8, 7, 5, 6, 7, 8, 10, 10, 7, 3, 1, 0, 0),
    "morning": (0, 0, 0, 0, 0, 2, 6, 14, 14, 8, 5, 5, 7, 4, 2, 3, 5, 8, 7, 3, 1, 1, 0, 0),
    "meal": (1, 0, 0, 0, 0, 0, 0, 1, 2, 1, 1, 6, 14, 12, 3, 1, 1, 2, 6, 12, 14, 10, 5, 2),
    "evening": (7, 5, 3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 4, 7, 9, 11, 13, 14, 13, 10),
    "online": (2, 1, 0.5, 0.3, 0.2, 0.3, 1, 2, 3, 4, 5, 5, 6, 6, 5, 5, 5, 5, 6, 7, 9, 10, 8, 4),
    "cash": (0.5, 0.3, 0.2, 0.1, 0.1, 0.3, 1, 3, 5, 7, 9, 9, 8, 6, 6, 7, 8, 9, 8, 5, 3, 2, 1.5, 1),
}

_WEEKDAYS = (0.90, 0.91, 0.95, 1.0, 1.16, 1.28, 0.80)
_MONTHS = (0.93, 0.94, 0.98, 0.99, 1.01, 1.03, 1.05, 0.94, 1.0, 1.01, 1.06, 1.12)
# Trips abroad by month: summer, then school holidays in winter.
_TRAVEL = (0.7, 1.3, 0.7, 1.1, 1.0, 1.2, 2.4, 2.3, 0.9, 0.8, 0.4, 0.9)


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the span.

    Attributes:
        index: 0 is the first.
        start_ms: Its midnight UTC, epoch milliseconds.
        date: Its calendar date.
    """

    index: int
    start_ms: int
    date: date

    @classmethod
    def of(cls, settings: BankSettings, index: int) -> "Day":
        """The day with an index."""
        return cls(index, settings.start_ms + index * DAY_MS, settings.start.date() + timedelta(days=index))

    @property
    def weekend(self) -> bool:
        """Saturday or Sunday."""
        return self.date.weekday() >= 5

    @property
    def spending(self) -> float:
        """Card payments relative to an average day, by weekday and month.

        >>> Day(0, 0, date(2025, 12, 20)).spending > Day(0, 0, date(2025, 2, 18)).spending
        True
        """
        return _WEEKDAYS[self.date.weekday()] * _MONTHS[self.date.month - 1]

    @property
    def travel(self) -> float:
        """Trips begun relative to an average day."""
        return _TRAVEL[self.date.month - 1]

    @property
    def christmas(self) -> float:
        """How much of Christmas shopping is on: from 0 to 1 until the 24th of December.

        >>> [round(Day(0, 0, date(2025, 12, day)).christmas, 2) for day in (1, 12, 23, 25)]
        [0.3, 0.65, 1.0, 0.0]
        """
        if self.date.month != 12 or self.date.day > 24:
            return 0.0
        return min(1.0, 0.3 + 0.032 * (self.date.day - 1))

    @property
    def bank_days(self) -> tuple[int, ...]:
        """Days of the month whose salaries and debits are booked today; weekends go to Monday.

        >>> Day(0, 0, date(2025, 9, 1)).bank_days, Day(0, 0, date(2025, 9, 6)).bank_days
        ((1, 31, 30), ())
        """
        if self.weekend:
            return ()
        back = 3 if self.date.weekday() == 0 else 1
        return tuple((self.date - timedelta(days=offset)).day for offset in range(back))


def time_of_day(rng: np.random.Generator, hours: Floats, profile: Ints, shift_h: Floats) -> Ints:
    """Moments of the day in milliseconds since midnight.

    Args:
        rng: Random numbers.
        hours: Cumulative share by hour. Shape: (profiles, 24).
        profile: Row of `hours` for each moment wanted. Shape: (n,).
        shift_h: Hours by which somebody is later than most; wraps at midnight. Shape: (n,).
    """
    point = rng.random(profile.size)
    hour = np.count_nonzero(point[:, None] > hours[profile, :-1], axis=1)
    moment = ((hour + rng.random(profile.size) + shift_h) % 24.0) * HOUR_MS
    whole: Ints = np.minimum(moment.astype(np.int64), DAY_MS - 1)
    return whole


def cumulative_hours(names: tuple[str, ...]) -> Floats:
    """Cumulative share of visits by hour. Shape: (names, 24).

    >>> cumulative_hours(("shop", "meal"))[:, 23].round(9).tolist()
    [1.0, 1.0]
    """
    table = np.array([HOURS[name] for name in names])
    cumulative: Floats = np.cumsum(table, axis=1) / table.sum(axis=1, keepdims=True)
    return cumulative
