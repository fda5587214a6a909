"""Transactions as rows of one array, before they become messages."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from generator.draws import Ints
from generator.settings import DAY_MS

ROW = np.dtype(
    [
        ("time_ms", "i8"),
        ("customer", "i4"),
        ("kind", "i1"),
        ("amount_minor", "i8"),
        ("merchant", "i4"),  # NONE: without
        ("counterparty", "i8"),  # NONE: without
        ("device", "i8"),  # NONE: not known
        ("ip", "i8"),  # NONE: not known
        ("typology", "i1"),  # 0: genuine
        ("lookalike", "i1"),  # 0: ordinary
        ("label_ms", "i8"),  # 0: never reported
        ("label_by", "i1"),  # place in reports.SOURCES
    ]
)
Rows = npt.NDArray[np.void]
Column = Ints | int

NONE = -1


class Kind(IntEnum):
    """What a transaction is; `FIELDS` says it in the words of the contract."""

    POS = 0
    ECOMMERCE = 1
    CASH_MACHINE = 2
    MOBILE_TRANSFER = 3
    ONLINE_TRANSFER = 4
    BRANCH_TRANSFER = 5
    TRANSFER_IN = 6
    SALARY = 7
    DIRECT_DEBIT = 8
    FEE = 9
    REFUND = 10
    CASH_DEPOSIT = 11
    SUBSCRIPTION = 12


class Fields(NamedTuple):
    """Fields of a message that follow from its kind; ``None`` is left out."""

    transaction_type: str
    direction: str
    channel: str | None
    card_present: bool | None


FIELDS: dict[Kind, Fields] = {
    Kind.POS: Fields("purchase", "debit", "pos", True),
    Kind.ECOMMERCE: Fields("purchase", "debit", "ecommerce", False),
    Kind.CASH_MACHINE: Fields("withdrawal", "debit", "atm", True),
    Kind.MOBILE_TRANSFER: Fields("transfer", "debit", "mobile", None),
    Kind.ONLINE_TRANSFER: Fields("transfer", "debit", "online", None),
    Kind.BRANCH_TRANSFER: Fields("transfer", "debit", "branch", None),
    Kind.TRANSFER_IN: Fields("transfer", "credit", "online", None),
    Kind.SALARY: Fields("salary", "credit", "online", None),
    Kind.DIRECT_DEBIT: Fields("payment", "debit", "online", None),
    Kind.FEE: Fields("fee", "debit", None, None),
    Kind.REFUND: Fields("refund", "credit", None, None),
    Kind.CASH_DEPOSIT: Fields("deposit", "credit", "branch", None),
    Kind.SUBSCRIPTION: Fields("purchase", "debit", "ecommerce", False),
}

CARD_KINDS = (Kind.POS, Kind.ECOMMERCE, Kind.CASH_MACHINE, Kind.SUBSCRIPTION)
IS_CARD = np.array([kind in CARD_KINDS for kind in Kind])
IS_CREDIT = np.array([FIELDS[kind].direction == "credit" for kind in Kind])


def make_rows(
    customer: Column,
    time_ms: Column,
    amount_minor: Column,
    kind: Column,
    *,
    merchant: Column = NONE,
    counterparty: Column = NONE,
    device: Column = NONE,
    ip: Column = NONE,
    typology: Column = 0,
    lookalike: Column = 0,
) -> Rows:
    """Rows from columns; a single number fills its column. At least one of the first two is an array."""
    rows = np.zeros(np.broadcast(customer, time_ms).size, ROW)
    rows["customer"], rows["time_ms"], rows["amount_minor"], rows["kind"] = (
        customer,
        time_ms,
        amount_minor,
        kind,
    )
    rows["merchant"], rows["counterparty"], rows["device"], rows["ip"] = merchant, counterparty, device, ip
    rows["typology"], rows["lookalike"] = typology, lookalike
    return rows


NO_ROWS: Rows = np.zeros(0, ROW)


class Agenda:
    """Rows that are known ahead of their day: refunds, furniture for a new home, the rest of a fraud."""

    def __init__(self, start_ms: int, days: int) -> None:
        self._start_ms = start_ms
        self._days = days
        self._by_day: dict[int, list[Rows]] = {}

    def add(self, rows: Rows) -> None:
        """Keep rows for their days; those after the span are forgotten."""
        if rows.size == 0:
            return
        day = (rows["time_ms"] - self._start_ms) // DAY_MS
        for index in np.unique(day).tolist():
            if index < self._days:
                self._by_day.setdefault(index, []).append(rows[day == index])

    def take(self, day: int) -> Rows:
        """Rows of a day; they are no longer kept."""
        kept = self._by_day.pop(day, None)
        return np.concatenate(kept) if kept else NO_ROWS

    def __len__(self) -> int:
        """Rows waiting."""
        return sum(part.size for parts in self._by_day.values() for part in parts)
