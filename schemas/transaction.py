"""A transaction event: what core banking publishes, one for each movement of money."""

import re
from decimal import Decimal
from types import NoneType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, StringConstraints, Tag

from schemas.fields import CountryCode, Identifier, Message, Moment, to_epoch_ms
from schemas.money import CURRENCIES, MAX_AMOUNT_MINOR, to_minor

Direction = Literal["debit", "credit"]
TransactionType = Literal[
    "purchase", "withdrawal", "transfer", "deposit", "payment", "fee", "refund", "salary"
]
Channel = Literal["pos", "ecommerce", "atm", "mobile", "branch", "online"]

MAX_REVISION: Final = 255
CREDIT_TYPES = frozenset({"deposit", "refund", "salary"})


def _check_currency(value: str) -> str:
    if value not in CURRENCIES:
        raise ValueError("not an ISO 4217 currency code in capitals, for example EUR")
    return value


Currency = Annotated[str, AfterValidator(_check_currency)]
Text = Annotated[str, StringConstraints(max_length=128)]
ATTRIBUTE_NAME: Final = r"^[a-z][a-z0-9_]{0,47}$"
ATTRIBUTE_NAME_WORDS: Final = (
    "lower-case letters, digits and underscores, beginning with a letter, at most 48"
)
"""The same for people."""
MAX_ATTRIBUTES: Final = 256


def _kind(value: Any) -> str | None:
    return {bool: "flag", int: "number", float: "number", str: "text", NoneType: "nothing"}.get(type(value))


def _check_names(said: Any) -> Any:
    # Not left to the pattern: its refusal repeats what was sent.
    if isinstance(said, dict) and not all(re.fullmatch(ATTRIBUTE_NAME, str(name)) for name in said):
        raise ValueError(f"its names are {ATTRIBUTE_NAME_WORDS}")
    return said


AttributeValue = Annotated[
    Annotated[bool, Tag("flag")]
    | Annotated[float, Field(allow_inf_nan=False), Tag("number")]
    | Annotated[Text, Tag("text")]
    | Annotated[None, Tag("nothing")],
    # Without it a refusal would say of each kind why it is not that.
    Discriminator(
        _kind,
        custom_error_type="attribute",
        custom_error_message="an attribute is a number, true or false, a text, or null",
    ),
]
Attributes = Annotated[
    dict[Annotated[str, StringConstraints(pattern=ATTRIBUTE_NAME)], AttributeValue],
    Field(max_length=MAX_ATTRIBUTES, json_schema_extra={"additionalProperties": False}),
    BeforeValidator(_check_names),
]


class Transaction(Message):
    """One movement of money on one customer's account.

    `customer_id` is the message key too, so that one partition holds a customer's events in order.
    """

    transaction_id: Identifier = Field(description="Unique; the same id twice counts once.")
    customer_id: Identifier
    event_time: Moment = Field(description="When it happened: RFC 3339 with offset, or epoch milliseconds.")
    amount: Decimal = Field(
        gt=0,
        le=MAX_AMOUNT_MINOR,
        allow_inf_nan=False,
        description="In major units; text keeps decimals exact.",
    )
    currency: Currency = Field(description="ISO 4217.")
    revision: int = Field(
        default=0,
        ge=0,
        le=MAX_REVISION,
        strict=True,
        description="0 for an event as first sent. A correction is the whole event again, with the same ids "
        "and a larger number: it replaces what came before. The largest counts.",
    )

    account_id: Identifier | None = None
    direction: Direction | None = Field(default=None, description="From the customer's side.")
    transaction_type: TransactionType | None = None
    channel: Channel | None = None
    merchant_id: Text | None = None
    merchant_category: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}$")] | None = Field(
        default=None, description="ISO 18245 merchant category code."
    )
    merchant_country: CountryCode | None = Field(default=None, description="ISO 3166-1 alpha-2.")
    latitude: float | None = Field(default=None, ge=-90, le=90, allow_inf_nan=False)
    longitude: float | None = Field(default=None, ge=-180, le=180, allow_inf_nan=False)
    device_id: Text | None = None
    ip_address: Text | None = None
    card_token: Text | None = None
    counterparty_id: Text | None = None
    card_present: bool | None = None
    balance_before: Decimal | None = Field(default=None, allow_inf_nan=False)
    balance_after: Decimal | None = Field(default=None, allow_inf_nan=False)
    attributes: Attributes | None = Field(
        default=None,
        description="Further facts of this transaction by name: numbers, flags and short texts that no other "
        "field is for. Models can read them; histories do not keep them.",
    )

    @property
    def event_time_ms(self) -> int:
        """Event time in milliseconds since 1970."""
        return to_epoch_ms(self.event_time)

    @property
    def amount_minor(self) -> int:
        """Amount in minor units of `currency`."""
        return to_minor(self.amount, self.currency)

    @property
    def is_credit(self) -> bool:
        """Whether money came in: by `direction`, else by the type, else it went out."""
        if self.direction is not None:
            return self.direction == "credit"
        return self.transaction_type in CREDIT_TYPES
