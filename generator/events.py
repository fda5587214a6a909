"""What the bank emits, and the truth that goes with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Topic = Literal["transactions", "labels", "customers"]

TYPOLOGIES = (
    "card_testing",
    "stolen_card",
    "account_takeover",
    "compromised_merchant",
    "large_amount",
    "mule_chain",
)
"""Ways of fraud of a bank, unless others are asked for."""

ON_REQUEST = ("compromised_terminal",)
"""Ways of fraud that occur only where they are asked for."""

ALL_TYPOLOGIES = (*TYPOLOGIES, *ON_REQUEST)
"""A row's code is the place here plus one; 0 is genuine."""

LOOKALIKES = ("holiday", "house_move", "christmas", "new_phone", "big_purchase", "pass_through")
"""Genuine behaviour that looks like fraud. A row's code is the place here plus one; 0 is ordinary."""

CARD_TYPOLOGIES = frozenset({"card_testing", "stolen_card", "compromised_merchant", "compromised_terminal"})
"""Ways of fraud after whose report the card is replaced."""


def typology_code(name: str) -> int:
    """Code of a typology in a row.

    >>> typology_code("card_testing")
    1
    """
    return ALL_TYPOLOGIES.index(name) + 1


def lookalike_code(name: str) -> int:
    """Code of a look-alike in a row.

    >>> lookalike_code("house_move")
    2
    """
    return LOOKALIKES.index(name) + 1


@dataclass(frozen=True, slots=True)
class BankEvent:
    """One message and what is true about it.

    Attributes:
        time_ms: Event time of a transaction, label time of a label, update time of a customer.
        topic: Where the message belongs.
        message: As the contract says, ready for JSON. The truth is not in it.
        typology: One of `ALL_TYPOLOGIES` for a fraudulent transaction and for a label about one, else
            ``None``.
        lookalike: One of `LOOKALIKES` for genuine transactions that look like fraud, else ``None``.
    """

    time_ms: int
    topic: Topic
    message: dict[str, object]
    typology: str | None = None
    lookalike: str | None = None


@dataclass(frozen=True, slots=True)
class Leaver:
    """A customer who leaves within the span.

    Attributes:
        fades_from: Since when activity decays; may lie before the span.
        last_activity: Time of the last transaction.
        closed_at: When the account is closed; ``None`` when the customer just stays away. May lie
            after the span, and then no label tells of it.
    """

    fades_from: datetime
    last_activity: datetime
    closed_at: datetime | None


Leavers = Mapping[str, Leaver]
"""Leavers by customer id."""
