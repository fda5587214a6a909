from itertools import product
from string import ascii_uppercase

import numpy as np
import pytest

from features.codes import (
    CATEGORIES,
    CHANNELS,
    MINOR_UNITS,
    TRANSACTION_TYPES,
    category_code,
    letters_code,
    name_hash,
    transaction_hash,
)
from schemas.money import CURRENCIES, minor_unit_scale


def category(mcc: str | None, transaction_type: str | None = None) -> str | None:
    code = category_code(mcc, transaction_type)
    return CATEGORIES[code - 1] if code else None


@pytest.mark.parametrize(
    ("mcc", "name"),
    [
        ("5411", "groceries"),
        ("5812", "dining"),
        ("5541", "fuel"),
        ("4121", "transport"),
        ("3000", "travel"),
        ("3299", "travel"),
        ("3300", "transport"),
        ("3500", "lodging"),
        ("4511", "travel"),
        ("7011", "lodging"),
        ("4900", "utilities"),
        ("4814", "telecom"),
        ("5912", "health"),
        ("8062", "health"),
        ("8220", "education"),
        ("7832", "entertainment"),
        ("5816", "digital"),
        ("7995", "gambling"),
        ("7801", "gambling"),
        ("5651", "clothing"),
        ("5732", "electronics"),
        ("5200", "home"),
        ("7230", "services"),
        ("6011", "cash"),
        ("4829", "transfers"),
        ("0000", "other"),
        ("9999", "other"),
    ],
)
def test_merchant_category_decides_the_spend_category(mcc, name):
    assert category(mcc) == name
    assert category(mcc, "salary") == name


@pytest.mark.parametrize(
    ("transaction_type", "name"),
    [
        (None, None),
        ("purchase", None),
        ("withdrawal", "cash"),
        ("transfer", "transfers"),
        ("salary", "transfers"),
        ("deposit", "transfers"),
        ("fee", "services"),
    ],
)
def test_type_decides_where_there_is_no_merchant_category(transaction_type, name):
    assert category(None, transaction_type) == name


def test_every_category_is_reached_and_fits_its_byte():
    reached = {category(f"{mcc:04d}") for mcc in range(10_000)}

    assert reached == set(CATEGORIES)
    assert len(CATEGORIES) == 20


def test_letters_have_codes_of_their_own():
    words = ["".join(w) for n in (1, 2, 3) for w in product(ascii_uppercase, repeat=n)]
    codes = {letters_code.__wrapped__(word) for word in words}

    assert len(codes) == len(words)
    assert 0 not in codes
    assert max(codes) < len(MINOR_UNITS) < 2**16
    assert letters_code(None) == letters_code("") == 0


def test_minor_units_are_those_of_each_currency():
    for currency in CURRENCIES:
        assert MINOR_UNITS[letters_code(currency)] == minor_unit_scale(currency)
    assert MINOR_UNITS[0] == 100


def test_order_of_stored_words_is_part_of_the_format():
    # Append to these; another order makes stored histories mean something else.
    assert CHANNELS == ("pos", "ecommerce", "atm", "mobile", "branch", "online")
    assert TRANSACTION_TYPES == (
        "purchase",
        "withdrawal",
        "transfer",
        "deposit",
        "payment",
        "fee",
        "refund",
        "salary",
    )
    assert (CATEGORIES[0], CATEGORIES[-1]) == ("groceries", "other")


def test_hashes_of_names_are_stable():
    # Stored in histories: another hash makes every known merchant a new one.
    assert (name_hash("m-1"), name_hash("")) == (name_hash("m-1"), 0)
    assert name_hash(None) == 0
    assert name_hash("m-1") == 1_836_213_683
    assert transaction_hash("t-1") == 18_109_838_371_330_425_779
    assert np.uint32(name_hash("Zoë")) > 0
