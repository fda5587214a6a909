"""Facts of the scored transaction that no history keeps: balances, and a bank's own attributes.

They say something of this transaction alone, so nothing of them is stored and no window is over them: a
column is a value of the message. An engine declares those that its models read (`attribute_features`).
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from features.codes import name_hash
from schemas.errors import ConfigError
from schemas.transaction import ATTRIBUTE_NAME, ATTRIBUTE_NAME_WORDS, Transaction
from schemas.wire import WireTransaction

BALANCES: Final = ("balance_before", "balance_after")
"""Fields of a transaction that are chosen by their names, as attributes are."""

NONE: Final = "none"
RESERVED: Final = (*BALANCES, NONE)
"""No attribute can be chosen by these names."""

_FLAGS: Final = {"": float("nan"), "true": 1.0, "false": 0.0}
_NUMBER: Final = re.compile(r"[+-]?\d{1,64}(\.\d{0,64})?([eE][+-]?\d{1,4})?", re.ASCII)
_SHARE: Final = "amount_to_balance"
_GAP: Final = "balance_gap"
_LARGEST: Final = 1e30
_CODE_BITS: Final = 24
"""As many as a 32-bit float holds exactly: models read vectors as such."""


@dataclass(frozen=True, slots=True)
class AttributeFeature:
    """One value of the scored transaction.

    Attributes:
        name: Of the column.
        attribute: Which attribute it is; empty for balances.
        unit: Of the value.
        meaning: One line for documents.
        phrase: Words for a reason.
    """

    name: str
    attribute: str
    unit: str
    meaning: str
    phrase: str
    category: str = "attribute"


def attribute_features(names: str) -> tuple[AttributeFeature, ...]:
    """Declarations of chosen attributes, in the order of their names.

    Args:
        names: `balance_before`, `balance_after` and names of attributes, with commas between them; nothing,
            or `none`, for none.

    Raises:
        ConfigError: One cannot be the name of an attribute.

    >>> [feature.name for feature in attribute_features("email_domain, balance_before")]
    ['balance_before', 'amount_to_balance', 'attribute_email_domain']
    >>> [feature.name for feature in attribute_features("balance_before,balance_after")]
    ['balance_before', 'balance_after', 'amount_to_balance', 'balance_gap']
    """
    chosen = {name.strip() for name in names.split(",") if name.strip()} - {NONE}
    wrong = sorted(name for name in chosen if not re.fullmatch(ATTRIBUTE_NAME, name))
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: an attribute's name is {ATTRIBUTE_NAME_WORDS}")
    balances = [_balance(name) for name in BALANCES if name in chosen]
    share = [_share()] if balances else []
    gap = [_gap()] if len(balances) == len(BALANCES) else []
    return (*balances, *share, *gap, *(_attribute(name) for name in sorted(chosen - set(BALANCES))))


def names_of(features: Sequence[AttributeFeature]) -> tuple[str, ...]:
    """Names by which `attribute_features` chooses them.

    >>> names_of(attribute_features("email_domain,balance_before"))
    ('balance_before', 'email_domain')
    """
    return tuple(f.attribute or f.name for f in features if f.name not in (_SHARE, _GAP))


def declaration_hash(features: Sequence[AttributeFeature]) -> str:
    """Identity of a list of declarations; wording does not count."""
    return hashlib.sha256(json.dumps([feature.name for feature in features]).encode()).hexdigest()[:16]


def attribute_values(
    features: Sequence[AttributeFeature], transactions: Sequence[Transaction | WireTransaction]
) -> npt.NDArray[np.float64] | None:
    """Values of transactions, `(n, len(features))`; NaN is unknown. `None` where none are declared.

    A number is itself, also in quotes, a flag 0 or 1, and any other text a code of 24 bits: trees tell the
    values of a few texts from one another by it, and its order says nothing. So it does not matter whether a
    file or a message says it: a file has no types.
    """
    if not features:
        return None
    values = np.full((len(transactions), len(features)), np.nan)
    for column, feature in enumerate(features):
        if feature.attribute:
            said = [t.attributes.get(feature.attribute) if t.attributes else None for t in transactions]
            # What is no text is itself, and numpy reads a column of such in a tenth of the time.
            values[:, column] = list(map(_value, said)) if str in set(map(type, said)) else said
        elif feature.name == _SHARE:
            values[:, column] = list(map(_share_of, transactions))
        elif feature.name == _GAP:
            values[:, column] = list(map(_gap_of, transactions))
        else:
            values[:, column] = [_money(getattr(t, feature.name)) for t in transactions]
    # Models read 32 bits, and no tree can be grown from an infinite number.
    found: npt.NDArray[np.float64] = np.clip(values, -_LARGEST, _LARGEST)
    return found


def _balance(name: str) -> AttributeFeature:
    when = name.removeprefix("balance_")
    meaning, phrase = f"Balance of the account {when} the transaction.", f"balance {when} of {{value:.2f}}"
    return AttributeFeature(name, "", "currency", meaning, phrase)


def _share() -> AttributeFeature:
    return AttributeFeature(
        _SHARE,
        "",
        "ratio",
        "Amount over the balance before the transaction, or, where only the one after is said, what it would "
        "have been; unknown where nothing was there.",
        "{value:.0%} of the balance",
    )


def _gap() -> AttributeFeature:
    return AttributeFeature(
        _GAP,
        "",
        "currency",
        "What the balance before and the amount leave, less the balance after: 0 where they add up.",
        "balances do not add up by {value:.2f}",
    )


def _attribute(name: str) -> AttributeFeature:
    words = name.replace("_", " ")
    return AttributeFeature(
        f"attribute_{name}",
        name,
        "value",
        f"Attribute `{name}` of the transaction: its number, or a code of its text.",
        f"{words} of this transaction",
    )


def _value(said: bool | float | str | None) -> float:
    if isinstance(said, str):
        return _value_of_text(said)
    return np.nan if said is None else float(said)


@lru_cache(maxsize=65_536)
def _value_of_text(said: str) -> float:
    said = said.strip()
    if said.lower() in _FLAGS:
        return _FLAGS[said.lower()]
    if _NUMBER.fullmatch(said):
        return float(said)
    return float(name_hash(said) & ((1 << _CODE_BITS) - 1))


def _money(said: Decimal | str | int | None) -> float:
    return np.nan if said is None else float(said)


def _share_of(t: Transaction | WireTransaction) -> float:
    amount, before = float(t.amount), _money(t.balance_before)
    if t.balance_before is None:
        before = _money(t.balance_after) + (-amount if t.is_credit else amount)
    return amount / before if before > 0 else np.nan


def _gap_of(t: Transaction | WireTransaction) -> float:
    amount = float(t.amount)
    gap = _money(t.balance_before) + (amount if t.is_credit else -amount) - _money(t.balance_after)
    # What binary fractions leave of zero is no gap.
    return round(gap, 4)
