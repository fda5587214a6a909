"""How long customers are customers: joining, going quiet, fading away, leaving."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from generator.draws import Bools, Floats, Ints, Stream, generator_for
from generator.events import Leaver
from generator.profiles import Profiles, by_segment
from generator.rhythm import Day
from generator.settings import DAY_MS, HOUR_MS, BankSettings

FAR_MS = 1 << 62
"""A moment that never comes."""

_CLOSING_SHARE = 0.55
_SILENT_SHARE = 0.15
_SALARY_STAYS_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """When each customer may act, and how much; fixed before the first day.

    Attributes:
        joined_ms: First moment anything can happen. Shape: (n,).
        fade_ms: Since when activity decays; `FAR_MS` for who stays. Shape: (n,).
        last_ms: The last transaction; `FAR_MS` for who stays. Shape: (n,).
        closed_ms: When the account is closed; `FAR_MS` if it never is. Shape: (n,).
        salary_moves: Share of the fading after which the income goes elsewhere; above 1: never. Shape: (n,).
        quiet_from: First day of a dormant phase; past the span for most. Shape: (n,).
        quiet_to: First day after it. Shape: (n,).
    """

    joined_ms: Ints
    fade_ms: Ints
    last_ms: Ints
    closed_ms: Ints
    salary_moves: Floats
    quiet_from: Ints
    quiet_to: Ints

    @classmethod
    def draw(cls, settings: BankSettings, profiles: Profiles) -> "Lifetimes":
        """Lifetimes from a seed."""
        rng = generator_for(settings.seed, Stream.LIFETIMES)
        n, start = settings.customers, settings.start_ms
        joiner = profiles.opened_on >= 0
        joined_ms = np.where(
            joiner,
            start + profiles.opened_on * DAY_MS + (rng.uniform(9, 17, n) * HOUR_MS).astype(np.int64),
            start,
        )

        readiness = by_segment("leaving")[profiles.segment] * np.where(profiles.opened_on > -730, 1.4, 0.9)
        hazard = -np.log1p(-settings.churn_rate) / 90.0 * readiness / readiness.mean()
        stay = rng.exponential(1.0, n) / np.maximum(hazard, 1e-12)
        last_day = np.where(joiner, profiles.opened_on + 30, 0) + np.minimum(stay, 1e6)
        length = np.where(rng.random(n) < _SILENT_SHARE, rng.uniform(1, 8, n), rng.uniform(18, 75, n))
        fade_day = np.maximum(last_day - length, np.where(joiner, profiles.opened_on + 1, -1e6))

        leaves = last_day < settings.days
        last_ms = (
            start
            + np.floor(last_day).astype(np.int64) * DAY_MS
            + (rng.uniform(9, 20, n) * HOUR_MS).astype(np.int64)
        )
        waited = np.minimum(12.0 * np.exp(0.6 * rng.standard_normal(n)), 90.0)
        closes = leaves & (rng.random(n) < _CLOSING_SHARE)

        dormant = ~leaves & (rng.random(n) < min(settings.dormant_rate * settings.days / 90.0, 0.5))
        quiet_from = np.where(dormant, rng.integers(-20, max(settings.days, 1), n), settings.days)
        fading = fade_day < settings.days
        return cls(
            joined_ms=joined_ms,
            fade_ms=np.where(fading, start + (fade_day * DAY_MS).astype(np.int64), FAR_MS),
            # Who only begins to fade has a last day as well: it lies after the span.
            last_ms=np.where(fading, last_ms, FAR_MS),
            closed_ms=np.where(closes, last_ms + (waited * DAY_MS).astype(np.int64), FAR_MS),
            salary_moves=np.where(rng.random(n) < _SALARY_STAYS_SHARE, 2.0, rng.uniform(0.0, 0.8, n)),
            quiet_from=quiet_from,
            quiet_to=quiet_from + rng.integers(14, 51, n),
        )

    def faded(self, day: Day) -> Floats:
        """How far the fading has gone at noon: 0 before it, 1 at the last transaction. Shape: (n,)."""
        noon = day.start_ms + DAY_MS // 2
        length = np.maximum(self.last_ms - self.fade_ms, 1)
        faded: Floats = np.clip((noon - self.fade_ms) / length, 0.0, 1.0)
        return faded

    def here(self, day: Day) -> Bools:
        """Who is a customer at some time of the day. Shape: (n,)."""
        return (self.joined_ms < day.start_ms + DAY_MS) & (self.last_ms >= day.start_ms)

    def quiet(self, day: Day) -> Bools:
        """Who is dormant. Shape: (n,)."""
        return (self.quiet_from <= day.index) & (day.index < self.quiet_to)

    def activity(self, day: Day) -> Floats:
        """Own activity relative to the habit: joining, dormant, fading, gone. Shape: (n,)."""
        age_days = (day.start_ms + DAY_MS - self.joined_ms) / DAY_MS
        # Who was a customer before the span needs no time to settle in.
        joiner = self.joined_ms > self.joined_ms.min()
        settled = np.where(joiner, np.clip(0.35 + age_days / 35.0, 0.0, 1.0), 1.0)
        left = 0.04 + 0.96 * (1.0 - self.faded(day)) ** 1.4
        return settled * left * np.where(self.quiet(day), 0.04, 1.0) * self.here(day)

    def leavers(self, settings: BankSettings) -> dict[int, Leaver]:
        """Customers whose last transaction lies within the span."""
        found: dict[int, Leaver] = {}
        for customer in np.flatnonzero(self.last_ms < settings.end_ms).tolist():
            closed_ms = int(self.closed_ms[customer])
            found[customer] = Leaver(
                fades_from=_moment(settings, int(self.fade_ms[customer])),
                last_activity=_moment(settings, int(self.last_ms[customer])),
                closed_at=None if closed_ms == FAR_MS else _moment(settings, closed_ms),
            )
        return found


def _moment(settings: BankSettings, time_ms: int) -> datetime:
    return settings.start + timedelta(milliseconds=time_ms - settings.start_ms)
