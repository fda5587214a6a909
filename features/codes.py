"""Small integers for the words in messages: what a history record can hold."""

from functools import lru_cache
from typing import get_args

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest, xxh32_intdigest

from schemas.money import CURRENCIES, minor_unit_scale
from schemas.transaction import Channel, TransactionType

CHANNELS: tuple[str, ...] = get_args(Channel)
TRANSACTION_TYPES: tuple[str, ...] = get_args(TransactionType)
CATEGORIES: tuple[str, ...] = (
    "groceries",
    "dining",
    "fuel",
    "transport",
    "travel",
    "lodging",
    "utilities",
    "telecom",
    "health",
    "education",
    "entertainment",
    "digital",
    "gambling",
    "clothing",
    "electronics",
    "home",
    "services",
    "cash",
    "transfers",
    "other",
)
"""Spend categories. Their order is part of the stored format: append, never reorder."""

# Ranges of ISO 18245 merchant category codes, first match counts; what matches none is "other".
_MCC_RANGES: tuple[tuple[int, int, str], ...] = (
    (3000, 3299, "travel"),  # airlines
    (3300, 3499, "transport"),  # car rental
    (3500, 3999, "lodging"),
    (4011, 4131, "transport"),
    (4111, 4131, "transport"),
    (4214, 4225, "services"),
    (4411, 4411, "travel"),
    (4457, 4468, "travel"),
    (4511, 4582, "travel"),
    (4722, 4723, "travel"),
    (4784, 4789, "transport"),
    (4812, 4821, "telecom"),
    (4829, 4829, "transfers"),
    (4899, 4899, "telecom"),
    (4900, 4900, "utilities"),
    (5045, 5046, "electronics"),
    (5200, 5271, "home"),
    (5300, 5311, "groceries"),
    (5411, 5499, "groceries"),
    (5511, 5533, "transport"),
    (5541, 5552, "fuel"),
    (5611, 5699, "clothing"),
    (5712, 5719, "home"),
    (5722, 5722, "home"),
    (5732, 5735, "electronics"),
    (5811, 5814, "dining"),
    (5815, 5818, "digital"),
    (5912, 5912, "health"),
    (5921, 5921, "groceries"),
    (5940, 5949, "entertainment"),
    (5960, 5969, "services"),
    (5977, 5977, "health"),
    (5983, 5983, "fuel"),
    (6010, 6011, "cash"),
    (6012, 6051, "transfers"),
    (6211, 6540, "services"),
    (7011, 7033, "lodging"),
    (7210, 7299, "services"),
    (7311, 7399, "services"),
    (7512, 7549, "transport"),
    (7800, 7802, "gambling"),
    (7832, 7841, "entertainment"),
    (7911, 7994, "entertainment"),
    (7995, 7995, "gambling"),
    (7996, 7999, "entertainment"),
    (8011, 8099, "health"),
    (8211, 8299, "education"),
    (8351, 8351, "education"),
    (8111, 8111, "services"),
    (8931, 8999, "services"),
    (9211, 9405, "services"),
)
_BY_TYPE = {
    "withdrawal": "cash",
    "transfer": "transfers",
    "salary": "transfers",
    "deposit": "transfers",
    "fee": "services",
}
_CATEGORY_CODE = {name: code for code, name in enumerate(CATEGORIES, start=1)}


@lru_cache(maxsize=16384)
def category_code(mcc: str | None, transaction_type: str | None) -> int:
    """Spend category, 1 to 20, or 0 where neither code nor type says.

    >>> CATEGORIES[category_code("5411", None) - 1], category_code(None, None)
    ('groceries', 0)
    """
    if mcc is not None:
        number = int(mcc)
        for low, high, name in _MCC_RANGES:
            if low <= number <= high:
                return _CATEGORY_CODE[name]
        return _CATEGORY_CODE["other"]
    return _CATEGORY_CODE[_BY_TYPE[transaction_type]] if transaction_type in _BY_TYPE else 0


@lru_cache(maxsize=1024)
def letters_code(letters: str | None) -> int:
    """Code of two or three capital letters, in base 27 so that `A` and `AA` differ; 0 for none.

    >>> letters_code("EUR"), letters_code("FR"), letters_code(None)
    (4230, 180, 0)
    """
    code = 0
    for letter in letters or "":
        code = code * 27 + ord(letter) - 64
    return code


def letters_of(code: int) -> str:
    """Letters of a code of `letters_code`; empty for none.

    >>> letters_of(4230), letters_of(180), letters_of(0)
    ('EUR', 'FR', '')
    """
    letters = ""
    while code:
        code, letter = divmod(code - 1, 27)
        letters = chr(letter + 65) + letters
    return letters


def _scales() -> npt.NDArray[np.float64]:
    scales = np.full(27**3, 100.0)
    for currency in CURRENCIES:
        scales[letters_code(currency)] = float(minor_unit_scale(currency))
    return scales


MINOR_UNITS = _scales()
"""Minor units in one major unit, by `letters_code` of the currency."""


@lru_cache(maxsize=65536)
def name_hash(name: str | None) -> int:
    """32-bit hash of a merchant, device or counterparty; 0 for none.

    Two of 300 names in one history collide once in 100,000 histories.
    """
    return (xxh32_intdigest(name.encode()) or 1) if name else 0


def transaction_hash(transaction_id: str) -> int:
    """64-bit hash of a transaction id."""
    return xxh3_64_intdigest(transaction_id.encode())
