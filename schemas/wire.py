"""Transactions as nearly all of them are written, read in a tenth of the time.

`schemas.transaction` and `schemas.parse` alone decide what is accepted and word each refusal. What is read
here they accept too, with equal values; whatever is not plain is left to them.
"""

import re
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.card_number import may_hold_card_number
from schemas.fields import EARLIEST, LATEST, to_epoch_ms
from schemas.money import CURRENCIES, MAX_AMOUNT_MINOR, minor_unit_scale
from schemas.parse import MAX_MESSAGE_BYTES
from schemas.transaction import (
    ATTRIBUTE_NAME,
    CREDIT_TYPES,
    MAX_ATTRIBUTES,
    MAX_REVISION,
    Channel,
    Direction,
    TransactionType,
)

_Identifier = Annotated[str, Meta(min_length=1, max_length=64)]
_Text = Annotated[str, Meta(max_length=128)]
# Python's `$` also stands before a last line's end.
_AttributeName = Annotated[str, Meta(pattern=ATTRIBUTE_NAME.replace("$", r"\Z"))]
_Attributes = Annotated[
    dict[_AttributeName, bool | float | _Text | None],
    Meta(max_length=MAX_ATTRIBUTES),
]

_FIRST_MS: Final = to_epoch_ms(EARLIEST)
_END_MS: Final = to_epoch_ms(LATEST)
_SCALES: Final = {currency: int(minor_unit_scale(currency)) for currency in CURRENCIES}
_MOST_DIGITS: Final = 12
_BALANCE: Final = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,4})?")
_MCC: Final = frozenset(f"{code:04d}" for code in range(10_000))
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COUNTRIES: Final = frozenset(a + b for a in _LETTERS for b in _LETTERS)


class WireTransaction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The fields of `schemas.transaction.Transaction`, as far as they are plain.

    Attributes:
        event_time: In milliseconds since 1970 once `read_transaction` has returned it.
    """

    transaction_id: _Identifier
    customer_id: _Identifier
    event_time: str | int
    amount: str | int
    currency: str
    schema_version: Literal[1] = 1
    revision: Annotated[int, Meta(ge=0, le=MAX_REVISION)] = 0
    account_id: _Identifier | None = None
    direction: Direction | None = None
    transaction_type: TransactionType | None = None
    channel: Channel | None = None
    merchant_id: _Text | None = None
    merchant_category: str | None = None
    merchant_country: str | None = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    device_id: _Text | None = None
    ip_address: _Text | None = None
    card_token: _Text | None = None
    counterparty_id: _Text | None = None
    card_present: bool | None = None
    balance_before: str | int | None = None
    balance_after: str | int | None = None
    attributes: _Attributes | None = None

    @property
    def event_time_ms(self) -> int:
        """Event time in milliseconds since 1970."""
        return int(self.event_time)

    @property
    def amount_minor(self) -> int:
        """Amount in minor units of its currency."""
        return _minor(self.amount, self.currency) or 0

    @property
    def is_credit(self) -> bool:
        """Whether money came in, as `Transaction` says it."""
        if self.direction is not None:
            return self.direction == "credit"
        return self.transaction_type in CREDIT_TYPES


_DECODER: Final = msgspec.json.Decoder(WireTransaction)


def read_transaction(raw: bytes | None) -> tuple[WireTransaction, int] | None:
    """A plain transaction and its amount in minor units; `None` where `parse_message` is to decide."""
    if not raw or len(raw) > MAX_MESSAGE_BYTES:
        return None
    try:
        found = _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return None
    if may_hold_card_number(raw) and not _only_its_time(raw, found.event_time):
        return None
    time_ms, amount_minor = _moment(found.event_time), _minor(found.amount, found.currency)
    if (
        time_ms is None
        or amount_minor is None
        or (found.merchant_category is not None and found.merchant_category not in _MCC)
        or (found.merchant_country is not None and found.merchant_country not in _COUNTRIES)
        or (type(found.balance_before) is str and _BALANCE.fullmatch(found.balance_before) is None)
        or (type(found.balance_after) is str and _BALANCE.fullmatch(found.balance_after) is None)
    ):
        return None
    found.event_time = time_ms
    return found, amount_minor


def _only_its_time(raw: bytes, event_time: str | int) -> bool:
    # A time in milliseconds has 13 digits too. Were they found in a name instead, the time would remain.
    return type(event_time) is int and not may_hold_card_number(raw.replace(b"%d" % event_time, b"_", 1))


def _moment(value: str | int) -> int | None:
    if type(value) is str:
        # Only UTC with no or three decimals, of all that the standard allows.
        size = len(value) - (1 if value[-1:] == "Z" else 6 if value[-6:] == "+00:00" else 99)
        if value[4:20:3] != "--T::." if size == 23 else size != 19 or value[4:19:3] != "--T::":
            return None
        try:
            value = to_epoch_ms(datetime.fromisoformat(value))
        except ValueError:
            return None
    return int(value) if _FIRST_MS <= int(value) < _END_MS else None


def _minor(amount: str | int, currency: str) -> int | None:
    scale = _SCALES.get(currency)
    if scale is None:
        return None
    if type(amount) is str:
        whole, point, cents = amount.partition(".")
        if not (amount.isascii() and whole.isdigit() and len(whole) <= _MOST_DIGITS):
            return None
        if point and not (scale == 100 and cents.isdigit() and len(cents) <= 2):
            return None
        minor = int(whole) * scale + (int(cents) * (10 if len(cents) == 1 else 1) if point else 0)
    else:
        minor = int(amount) * scale
    return minor if 0 < minor <= MAX_AMOUNT_MINOR else None
