"""Money that moves by the calendar: income, rent, bills, subscriptions, fees, savings."""

import numpy as np

from generator.draws import Bools, Floats, Ints, Stream, generator_for
from generator.habits import EXTERNAL_FIRST, SAVINGS_FIRST, Habits
from generator.ledger import Ledger
from generator.lifetimes import Lifetimes
from generator.merchants import CATEGORY, Merchants
from generator.profiles import BUSINESS, SENIOR, STUDENT, Profiles, by_segment
from generator.rhythm import Day
from generator.rows import NONE, Kind, Rows, make_rows
from generator.settings import HOUR_MS, MINUTE_MS, BankSettings

BILLS, SUBSCRIPTIONS = 4, 4
RENT = 0

_PENSION_OFFICES = 3
_FEE_DAY = 28
_MAIN_PAYMENT_SHARE = 0.9


class Routine:
    """Standing payments of all customers.

    Attributes:
        employer: Who pays the income. Shape: (n,).
        income_day: Day of the month it comes. Shape: (n,).
        bill_day: Day of the month of each direct debit, 0 for none; the first is the rent. Shape: (n, BILLS).
        bill_minor: Usual amount. Shape: (n, BILLS).
        creditor: Who takes it. Shape: (n, BILLS).
        subscription_day: Day of the month of each subscription, 0 for none. Shape: (n, SUBSCRIPTIONS).
        subscription_minor: Amount, always the same. Shape: (n, SUBSCRIPTIONS).
        subscription_merchant: Who takes it. Shape: (n, SUBSCRIPTIONS).
    """

    def __init__(self, settings: BankSettings, profiles: Profiles, merchants: Merchants) -> None:
        rng = generator_for(settings.seed, Stream.ROUTINE)
        self._seed = settings.seed
        n, segment = settings.customers, profiles.segment
        employers = np.minimum(rng.zipf(1.5, n), n // 10 + 5)
        self.employer: Ints = EXTERNAL_FIRST + 70_000_000 + employers
        offices = EXTERNAL_FIRST + 80_000_000 + rng.integers(0, _PENSION_OFFICES, n)
        self.employer = np.where(segment == SENIOR, offices, self.employer)
        usual_days = rng.choice([25, 26, 27, 28, 1, 2, 5], n, p=[0.15, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05])
        self.income_day: Ints = np.where(segment == SENIOR, 9, usual_days)

        monthly = profiles.monthly_income
        self.bill_day: Ints = rng.integers(1, 29, (n, BILLS))
        self.bill_day[:, RENT] = rng.integers(1, 11, n)
        self.bill_day[rng.random((n, BILLS)) < np.array([0.12, 0.08, 0.2, 0.4])] = 0
        share = np.stack(
            [by_segment("rent")[segment], np.full(n, 0.035), np.full(n, 0.02), np.full(n, 0.03)], 1
        )
        self.bill_minor: Ints = (share * monthly[:, None] * np.exp(rng.normal(0, 0.25, (n, BILLS)))).astype(
            np.int64
        )
        utilities = EXTERNAL_FIRST + 81_000_000 + rng.integers(0, 40, (n, BILLS))
        landlords = EXTERNAL_FIRST + 82_000_000 + rng.integers(0, n, n)
        self.creditor: Ints = utilities
        self.creditor[:, RENT] = landlords

        online = merchants.online.members(0)
        serial = online[np.isin(merchants.category[online], _subscription_trades())]
        self.subscription_day: Ints = rng.integers(1, 29, (n, SUBSCRIPTIONS))
        wanted = np.where(segment == SENIOR, 0.2, np.where(segment == STUDENT, 0.55, 0.45))
        self.subscription_day[rng.random((n, SUBSCRIPTIONS)) > wanted[:, None]] = 0
        self.subscription_minor: Ints = rng.choice(
            [499, 699, 799, 999, 1099, 1299, 1399, 1499, 1799, 1999, 2999], (n, SUBSCRIPTIONS)
        )
        self.subscription_merchant: Ints = serial[rng.integers(0, serial.size, (n, SUBSCRIPTIONS))]

    def rows(
        self, day: Day, profiles: Profiles, lifetimes: Lifetimes, habits: Habits, ledger: Ledger
    ) -> Rows:
        """Everything the calendar asks for on a day, booked in the small hours and the morning."""
        rng = generator_for(self._seed, Stream.ROUTINE, day.index + 1)
        here = lifetimes.here(day)
        faded = lifetimes.faded(day)
        parts = [self._subscriptions(rng, day, here, faded)]
        parts.append(self._business_income(rng, day, profiles, here & (faded <= lifetimes.salary_moves)))
        if day.bank_days:
            monthly = profiles.monthly_income
            parts.append(self._income(rng, day, profiles, here & (faded <= lifetimes.salary_moves)))
            parts.append(self._bills(rng, day, here, faded))
            parts.append(_savings(rng, day, habits, ledger, monthly, here & (faded == 0.0)))
            if _FEE_DAY in day.bank_days:
                charged = np.flatnonzero(here & (profiles.segment != STUDENT))
                amount = np.where(profiles.segment[charged] == BUSINESS, 1_200, 250)
                parts.append(make_rows(charged, _between(rng, day, 1, 3, charged.size), amount, Kind.FEE))
        return np.concatenate(parts)

    def _income(self, rng: np.random.Generator, day: Day, profiles: Profiles, paid: Bools) -> Rows:
        who = np.flatnonzero(paid & np.isin(self.income_day, day.bank_days) & (profiles.segment != BUSINESS))
        amount = profiles.monthly_income[who]
        worker = ~np.isin(profiles.segment[who], (SENIOR, STUDENT))
        amount = amount * np.where(worker, np.exp(rng.normal(0, 0.02, who.size)), 1.0)
        # A thirteenth salary, for some.
        if day.date.month == 12:
            amount = amount * np.where(worker & (who % 5 < 2), 1.6, 1.0)
        # Parents send a student's money; they are not an employer.
        kind = np.where((profiles.segment[who] == STUDENT) & (who % 10 < 6), Kind.TRANSFER_IN, Kind.SALARY)
        return make_rows(
            who,
            _between(rng, day, 2, 9, who.size),
            amount.astype(np.int64),
            kind,
            counterparty=np.where(kind == Kind.SALARY, self.employer[who], EXTERNAL_FIRST + 60_000_000 + who),
        )

    def _business_income(self, rng: np.random.Generator, day: Day, profiles: Profiles, paid: Bools) -> Rows:
        """Customers' payments and takings of a business: about nine in a month make up the income."""
        if day.weekend:
            return make_rows(np.zeros(0, np.int64), 0, 0, Kind.TRANSFER_IN)
        payments = np.where(paid & (profiles.segment == BUSINESS), rng.poisson(0.43, paid.size), 0)
        who = np.repeat(np.arange(paid.size), payments)
        amount = profiles.monthly_income[who] / 9.0 * np.exp(rng.normal(-0.32, 0.8, who.size))
        cash = (who % 3 == 0) & (rng.random(who.size) < 0.4)
        payer = EXTERNAL_FIRST + 83_000_000 + (who * 37 + rng.integers(0, 12, who.size)) % 5_000_000
        return make_rows(
            who,
            _between(rng, day, 8, 18, who.size),
            np.maximum(amount, 1_000).astype(np.int64),
            np.where(cash, Kind.CASH_DEPOSIT, Kind.TRANSFER_IN),
            counterparty=np.where(cash, NONE, payer),
        )

    def _bills(self, rng: np.random.Generator, day: Day, here: Bools, faded: Floats) -> Rows:
        who, bill = np.nonzero(np.isin(self.bill_day, day.bank_days) & here[:, None])
        # Those who leave take their direct debits with them, one after the other.
        kept = faded[who] <= ((who * 7 + bill * 3) % 10 + 1) / 10.0
        who, bill = who[kept], bill[kept]
        varies = np.where(bill == RENT, 1.0, np.exp(rng.normal(0, 0.12, who.size)))
        return make_rows(
            who,
            _between(rng, day, 4, 8, who.size),
            np.maximum(self.bill_minor[who, bill] * varies, 500).astype(np.int64),
            Kind.DIRECT_DEBIT,
            counterparty=self.creditor[who, bill],
        )

    def _subscriptions(self, rng: np.random.Generator, day: Day, here: Bools, faded: Floats) -> Rows:
        who, place = np.nonzero((self.subscription_day == day.date.day) & here[:, None])
        kept = faded[who] <= ((who * 3 + place * 7) % 10 + 1) / 10.0
        who, place = who[kept], place[kept]
        return make_rows(
            who,
            _between(rng, day, 0, 7, who.size),
            self.subscription_minor[who, place],
            Kind.SUBSCRIPTION,
            merchant=self.subscription_merchant[who, place],
        )


def _savings(
    rng: np.random.Generator, day: Day, habits: Habits, ledger: Ledger, monthly: Floats, here: Bools
) -> Rows:
    """Put aside what is not needed, and take back what is."""
    mind = rng.random(here.size)
    plenty = here & (ledger.balance > 1.6 * monthly) & (mind < 0.09)
    scarce = here & (ledger.balance < 0.08 * monthly) & (ledger.savings > 0.1 * monthly) & (mind < 0.3)
    out, back = np.flatnonzero(plenty), np.flatnonzero(scarce)
    aside = (
        ((ledger.balance[out] - monthly[out]) * rng.uniform(0.3, 0.9, out.size)).astype(np.int64)
        // 1000
        * 1000
    )
    taken = np.minimum(ledger.savings[back], monthly[back] * rng.uniform(0.15, 0.5, back.size)).astype(
        np.int64
    )
    ledger.savings[out] += aside
    ledger.savings[back] -= taken
    rows = make_rows(
        np.concatenate([out, back]),
        _between(rng, day, 8, 22, out.size + back.size),
        np.concatenate([aside, taken]),
        np.concatenate([np.full(out.size, Kind.MOBILE_TRANSFER), np.full(back.size, Kind.TRANSFER_IN)]),
    )
    rows["counterparty"] = SAVINGS_FIRST + rows["customer"]
    rows["device"], rows["ip"] = habits.phone[rows["customer"]], habits.home_ip[rows["customer"]]
    return rows


def _between(rng: np.random.Generator, day: Day, first_hour: int, last_hour: int, n: int) -> Ints:
    """Moments of a day between two hours, in milliseconds; not before the first minute."""
    return day.start_ms + rng.integers(first_hour * HOUR_MS + MINUTE_MS, last_hour * HOUR_MS, n)


def _subscription_trades() -> list[int]:
    return [CATEGORY[name] for name in ("streaming", "digital goods", "telephone")]
