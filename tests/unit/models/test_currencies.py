import numpy as np
import pytest

from features.codes import letters_code, letters_of
from features.record import RECORD
from models.currencies import counted, mixed
from schemas.money import CURRENCIES


def test_every_currency_has_its_letters_back():
    assert [letters_of(letters_code(code)) for code in sorted(CURRENCIES)] == sorted(CURRENCIES)


def test_the_most_frequent_currency_comes_first():
    records = np.zeros(5, dtype=RECORD)
    records["currency"] = [letters_code(code) for code in ("EUR", "USD", "USD", "CHF", "USD")]
    found = counted(records)
    assert next(iter(found)) == "USD"
    assert found == {"USD": 3, "CHF": 1, "EUR": 1}


@pytest.mark.parametrize("currencies", [{}, {"EUR": 7}])
def test_nothing_is_said_of_one_currency_or_none(currencies):
    assert mixed(currencies, "sums") is None


def test_of_many_currencies_the_first_are_named():
    said = mixed({code: 10 - n for n, code in enumerate(("EUR", "USD", "GBP", "CHF", "JPY", "SEK"))}, "sums")
    assert said is not None
    assert "6 currencies (EUR 22 %, USD 20 %, GBP 18 %, CHF 16 %, JPY 13 %, ...)" in said
