"""Balances: what can be booked is booked in order, what cannot is declined."""

import numpy as np

from generator.draws import Bools, Floats, Ints, Stream, generator_for
from generator.profiles import AFFLUENT, BUSINESS, STUDENT, Profiles
from generator.rows import IS_CREDIT, NONE, Kind, Rows
from generator.settings import DAY_MS, BankSettings

_TRANSFERS = (Kind.MOBILE_TRANSFER, Kind.ONLINE_TRANSFER, Kind.BRANCH_TRANSFER)


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

        A debit that would take an account below its overdraft is declined; fees are always booked.
        A declined transfer inside the bank does not arrive.

        Args:
            rows: Of one day, in any order.

        Returns:
            Rows that were booked, in order of time (then customer), and the balance after each.

        >>> from generator.rows import make_rows
        >>> settings = BankSettings(customers=10)
        >>> ledger = Ledger(settings, Profiles.draw(settings))
        >>> ledger.balance[3], ledger.overdraft[3] = 1_000, 0
        >>> day = make_rows(3, np.array([5, 1, 9, 7]), np.array([600, 700, 50, 300]), np.array([0, 0, 6, 0]))
        >>> booked, balance = ledger.book(day)
        >>> booked["amount_minor"].tolist(), balance.tolist()
        ([700, 300, 50], [300, 0, 50])
        """
        rows = rows[np.lexsort((rows["time_ms"], rows["customer"]))]
        while True:
            signed = np.where(IS_CREDIT[rows["kind"]], rows["amount_minor"], -rows["amount_minor"])
            after = self._running(rows["customer"], signed)
            declined = self._declined(rows, after)
            if not declined.any():
                break
            # What was not sent does not arrive, and what does not arrive cannot be spent.
            rows = rows[~(declined | _other_side(rows, declined))]
        np.add.at(self.balance, rows["customer"], signed)
        order = np.argsort(rows["time_ms"], kind="stable")
        return rows[order], after[order]

    def _declined(self, rows: Rows, after: Ints) -> Bools:
        """Debits that do not fit into the overdraft, each tried after those before it. Shape: (m,)."""
        declined = np.zeros(rows.size, np.bool_)
        customer = rows["customer"]
        # Most accounts are never short: only those that are get looked at row by row.
        short = np.unique(customer[after < -self.overdraft[customer]]).tolist()
        for who in short:
            first, end = np.searchsorted(customer, [who, who + 1]).tolist()
            kinds, amounts = rows["kind"][first:end].tolist(), rows["amount_minor"][first:end].tolist()
            left, lowest = int(self.balance[who]), -int(self.overdraft[who])
            for place, (kind, amount) in enumerate(zip(kinds, amounts, strict=True)):
                if IS_CREDIT[kind]:
                    left += amount
                elif kind == Kind.FEE or left - amount >= lowest:
                    left -= amount
                else:
                    declined[first + place] = True
        return declined

    def _running(self, customer: Ints, signed: Ints) -> Ints:
        """Balance after each row; rows are grouped by customer. Shape: (m,)."""
        if customer.size == 0:
            return np.zeros(0, np.int64)
        total = np.cumsum(signed)
        first = np.searchsorted(customer, customer)
        opening = total[first] - signed[first]
        running: Ints = self.balance[customer] + total - opening
        return running


def arrivals(rows: Rows, customers: int) -> Rows:
    """The other side of transfers inside the bank: the same amount, received some seconds later.

    Of a mule's transfer, it is as fraudulent as the sending; an honest one is ordinary to the receiver.

    Args:
        rows: Of one day.
        customers: Accounts in the bank.
    """
    inside = (rows["counterparty"] >= 0) & (rows["counterparty"] < customers)
    sent = rows[np.isin(rows["kind"], _TRANSFERS) & inside]
    received = sent.copy()
    received["customer"], received["counterparty"] = sent["counterparty"], sent["customer"]
    midnight = sent["time_ms"] // DAY_MS * DAY_MS + DAY_MS - 1
    received["time_ms"] = np.minimum(sent["time_ms"] + 900 + sent["time_ms"] % 4_093, midnight)
    received["kind"], received["device"], received["ip"] = Kind.TRANSFER_IN, NONE, NONE
    received["lookalike"] = 0
    return received


def _other_side(rows: Rows, declined: Bools) -> Bools:
    """Arrivals of declined transfers. Shape: (m,)."""
    found = np.zeros(rows.size, np.bool_)
    lost = rows[declined & np.isin(rows["kind"], _TRANSFERS)]
    wanted = set(_sides(lost["counterparty"], lost["customer"], lost["amount_minor"]))
    arrived = np.flatnonzero(rows["kind"] == Kind.TRANSFER_IN)
    arrived = arrived[np.isin(rows["customer"][arrived], lost["counterparty"])]
    came = rows[arrived]
    sides = _sides(came["customer"], came["counterparty"], came["amount_minor"])
    found[arrived] = np.array([side in wanted for side in sides], np.bool_)
    return found


def _sides(receiver: Ints, sender: Ints, amount: Ints) -> list[tuple[int, int, int]]:
    return list(zip(receiver.tolist(), sender.tolist(), amount.tolist(), strict=True))
