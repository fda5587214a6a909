"""Balances: what can be booked is booked in order, what cannot is declined."""

import numpy as np

from generator.draws import Floats, Ints, Stream, generator_for
from generator.profiles import AFFLUENT, BUSINESS, STUDENT, Profiles
from generator.rows import IS_CREDIT, Kind, Rows
from generator.settings import BankSettings


class Ledger:
    """Current and savings balances of all customers, in minor units.

    Attributes:
        balance: Current accounts; not below ``-overdraft`` but for fees. Shape: (n,).
        overdraft: How far below zero an account may go. Shape: (n,).
        savings: Savings accounts; they have no transactions of their own. Shape: (n,).
    """

    def __init__(self, settings: BankSettings, profiles: Profiles) -> None:
        rng = generator_for(settings.seed, Stream.ACCOUNTS)
        n, monthly = settings.customers, profiles.monthly_income
        self.balance: Ints = (monthly * np.exp(rng.normal(-0.3, 0.6, n))).astype(np.int64)
        self.savings: Ints = (monthly * rng.gamma(1.2, 2.5, n)).astype(np.int64)
        lent = np.full(n, 0.35)
        lent[profiles.segment == STUDENT] = 0.15
        lent[(profiles.segment == AFFLUENT) | (profiles.segment == BUSINESS)] = 0.6
        self.overdraft: Ints = (monthly * lent).astype(np.int64)
        joiner = profiles.opened_on >= 0
        self.balance[joiner] = 0
        self.savings[joiner] = 0

    def ease(self, monthly: Floats) -> Floats:
        """How freely money is spent, given what is there: 0.35 to 1.25. Shape: (n,)."""
        eased: Floats = np.clip(0.6 + 0.5 * self.balance / np.maximum(monthly, 1.0), 0.35, 1.25)
        return eased

    def book(self, rows: Rows) -> tuple[Rows, Ints]:
        """Book a day's rows.

        A debit that would take an account below its overdraft is declined, and with it every later
        debit of that customer on that day; fees are always booked.

        Args:
            rows: Of one day, in any order.

        Returns:
            Rows that were booked, in order of time (then customer), and the balance after each.

        >>> from generator.rows import make_rows
        >>> settings = BankSettings(customers=10)
        >>> ledger = Ledger(settings, Profiles.draw(settings))
        >>> ledger.balance[3], ledger.overdraft[3] = 1_000, 0
        >>> day = make_rows(3, np.array([5, 1, 9]), np.array([600, 700, 50]), np.array([0, 0, 6]))
        >>> booked, balance = ledger.book(day)
        >>> booked["amount_minor"].tolist(), balance.tolist()
        ([700, 50], [300, 350])
        """
        rows = rows[np.lexsort((rows["time_ms"], rows["customer"]))]
        customer = rows["customer"]
        credit = IS_CREDIT[rows["kind"]]
        signed = np.where(credit, rows["amount_minor"], -rows["amount_minor"])
        after = self._running(customer, signed)
        short = (after < -self.overdraft[customer]) & ~credit
        if short.any():
            # Once short, always short until midnight: the first refusal is what counts.
            first = np.searchsorted(customer, customer)
            failures = np.cumsum(short)
            before = np.where(first > 0, failures[np.maximum(first, 1) - 1], 0)
            declined = (failures > before) & ~credit & (rows["kind"] != Kind.FEE)
            rows, signed, customer = rows[~declined], signed[~declined], customer[~declined]
            after = self._running(customer, signed)
        np.add.at(self.balance, customer, signed)
        order = np.argsort(rows["time_ms"], kind="stable")
        return rows[order], after[order]

    def _running(self, customer: Ints, signed: Ints) -> Ints:
        """Balance after each row; rows are grouped by customer. Shape: (m,)."""
        if customer.size == 0:
            return np.zeros(0, np.int64)
        total = np.cumsum(signed)
        first = np.searchsorted(customer, customer)
        opening = total[first] - signed[first]
        running: Ints = self.balance[customer] + total - opening
        return running
