"""Who the customers are: segment, age, income, since when."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

from generator.draws import Floats, Ints, Stream, choose, generator_for
from generator.settings import BankSettings


class Segment(NamedTuple):
    """A kind of customer.

    Attributes:
        share: Of all customers.
        income: Median net income of a year, in major units.
        income_sigma: Spread of the income's logarithm.
        ages: Youngest and oldest.
        purchases: Card payments on an average day.
        online: Share of them made online.
        cash: Withdrawals on an average day.
        rent: Share of income for the home.
        spending: Share of income for card payments.
        trips: Journeys in a year.
        hours_later: By how much the day is later than most people's.
        leaving: Readiness to leave relative to the average.
        branch: Share of transfers made at the counter.
    """

    name: str
    share: float
    income: float
    income_sigma: float
    ages: tuple[int, int]
    purchases: float
    online: float
    cash: float
    rent: float
    spending: float
    trips: float
    hours_later: float
    leaving: float
    branch: float


SEGMENTS = (
    Segment("student", 0.13, 10_500, 0.30, (18, 27), 1.30, 0.33, 0.05, 0.30, 0.58, 0.9, 1.5, 1.7, 0.0),
    Segment("mass", 0.50, 26_500, 0.35, (22, 64), 1.40, 0.22, 0.06, 0.28, 0.50, 1.1, 0.0, 1.0, 0.02),
    Segment("affluent", 0.12, 72_000, 0.45, (30, 70), 1.75, 0.26, 0.05, 0.20, 0.42, 2.4, 0.2, 0.8, 0.03),
    Segment("senior", 0.17, 21_500, 0.35, (62, 92), 0.95, 0.10, 0.09, 0.22, 0.48, 0.8, -1.2, 0.5, 0.25),
    Segment("business", 0.08, 64_000, 0.60, (25, 66), 1.70, 0.30, 0.07, 0.18, 0.40, 1.3, -0.3, 1.1, 0.05),
)
STUDENT, MASS, AFFLUENT, SENIOR, BUSINESS = range(len(SEGMENTS))


def by_segment(field: str) -> Floats:
    """One field of all segments. Shape: (segments,)."""
    return np.array([getattr(segment, field) for segment in SEGMENTS], np.float64)


@dataclass(slots=True)
class Profiles:
    """Customers as the bank's master data has them; index is identity, ids rise with `opened_on`.

    Attributes:
        segment: Place in `SEGMENTS`. Shape: (n,).
        birth_year: Shape: (n,).
        income: Net income of a year in major units; changes with a raise. Shape: (n,).
        opened_on: Day of the span the account was opened on, negative before it. Shape: (n,).
        phones: How often the phone number has changed. Shape: (n,).
    """

    segment: Ints
    birth_year: Ints
    income: Floats
    opened_on: Ints
    phones: Ints

    @classmethod
    def draw(cls, settings: BankSettings) -> "Profiles":
        """Customers from a seed."""
        rng = generator_for(settings.seed, Stream.PROFILES)
        n = settings.customers
        joined = 1.0 - (1.0 - settings.join_rate) ** (settings.days / 90.0)
        # A bank that is all joiners would have no habits to learn from.
        joiners = min(round(n * joined), n // 2)
        shares = np.cumsum(by_segment("share"))
        segment = choose(rng, np.broadcast_to(shares, (n, len(SEGMENTS))))
        ages = np.array([one.ages for one in SEGMENTS])[segment]
        age = rng.integers(ages[:, 0], ages[:, 1] + 1)
        # Nobody opened an account before the age of 16.
        tenure = 1 + np.minimum(rng.exponential(7 * 365.0, n), (age - 16) * 365.0).astype(np.int64)
        joins = np.arange(n) < joiners
        opened_on = np.where(joins, rng.integers(0, settings.days, n), -tenure)
        income = by_segment("income")[segment] * np.exp(
            by_segment("income_sigma")[segment] * rng.standard_normal(n)
        )
        order = np.argsort(opened_on, kind="stable")
        return cls(
            segment=segment[order],
            birth_year=settings.start.year - age[order],
            income=np.maximum(income // 100.0 * 100.0, 5_000.0)[order],
            opened_on=opened_on[order],
            phones=np.zeros(n, np.int64),
        )

    @property
    def founders(self) -> int:
        """Customers from before the span; their ids come first."""
        return int(np.searchsorted(self.opened_on, 0))

    @property
    def monthly_income(self) -> Floats:
        """Net income of a month in minor units. Shape: (n,)."""
        return self.income * (100.0 / 12.0)

    def opening_date(self, settings: BankSettings, customer: int) -> date:
        """Calendar date the account was opened on."""
        return settings.start.date() + timedelta(days=int(self.opened_on[customer]))
