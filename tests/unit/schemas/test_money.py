from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import EventError
from schemas.money import CURRENCIES, MAX_AMOUNT_MINOR, minor_unit_scale, to_major, to_minor


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.34", "EUR", 1234),
        ("1234", "JPY", 1234),
        ("12.345", "KWD", 12345),
        ("1.2345", "CLF", 12345),
        ("1", "XXX", 100),
        # More decimals than the currency has: half to even.
        ("0.015", "EUR", 2),
        ("0.025", "EUR", 2),
        ("0.0251", "EUR", 3),
        ("1.5", "JPY", 2),
        ("2.5", "JPY", 2),
        ("0.00051", "BHD", 1),
        ("10000000000000", "EUR", MAX_AMOUNT_MINOR),
        ("1000000000000000", "JPY", MAX_AMOUNT_MINOR),
    ],
)
def test_amount_is_counted_in_its_currency_s_own_minor_unit(amount, currency, minor):
    assert to_minor(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "reason"),
    [
        ("0.004", "EUR", "amount_not_positive"),
        ("0.005", "EUR", "amount_not_positive"),
        ("0.4", "JPY", "amount_not_positive"),
        ("1e-308", "EUR", "amount_not_positive"),
        ("1e-99999999", "EUR", "amount_not_positive"),
        ("10000000000000.01", "EUR", "amount_too_large"),
        ("1000000000000001", "JPY", "amount_too_large"),
        ("1e308", "JPY", "amount_too_large"),
        ("1e99999999", "JPY", "amount_too_large"),
    ],
)
def test_amount_that_cannot_be_counted_is_refused(amount, currency, reason):
    with pytest.raises(EventError) as refused:
        to_minor(Decimal(amount), currency)
    assert refused.value.reason == reason
    assert amount not in str(refused.value)


@given(st.integers(1, MAX_AMOUNT_MINOR), st.sampled_from(sorted(CURRENCIES)))
def test_minor_to_major_and_back_is_the_same(minor, currency):
    assert to_minor(to_major(minor, currency), currency) == minor


def test_every_currency_has_0_2_3_or_4_decimals():
    decimals = {int(minor_unit_scale(currency).log10()) for currency in CURRENCIES}

    assert decimals == {0, 2, 3, 4}
    assert {c for c in CURRENCIES if minor_unit_scale(c) == 1000} == set(
        "BHD IQD JOD KWD LYD OMR TND".split()
    )
