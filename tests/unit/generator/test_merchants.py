import numpy as np
import pytest

from generator.merchants import CASH_MACHINE, CATEGORIES, ONLINE, Merchants
from generator.settings import BankSettings


@pytest.mark.parametrize("count", [60, 61, 120, 500, 5_000])
def test_every_city_has_shops_and_a_cash_machine(count):
    merchants = Merchants(BankSettings(merchants=count))
    assert len(merchants) == count
    assert merchants.shops.sizes().min() >= 1
    assert merchants.cash_machines.sizes().min() >= 1
    assert merchants.online.sizes()[0] > 5
    assert 0 < merchants.home_cities < len(merchants.cities)


def test_only_shops_have_a_place():
    merchants = Merchants(BankSettings())
    assert (np.isnan(merchants.latitude) == (merchants.city == ONLINE)).all()


def test_category_codes_have_four_digits():
    assert all(len(category.mcc) == 4 and category.mcc.isdigit() for category in CATEGORIES)


def test_a_few_merchants_are_known_to_everybody():
    merchants = Merchants(BankSettings(merchants=2_000))
    fame = np.sort(merchants.fame[merchants.category != CASH_MACHINE])[::-1]
    assert fame[: fame.size // 10].sum() > 0.35 * fame.sum()


def test_a_trade_is_found_in_town_or_online():
    merchants = Merchants(BankSettings())
    rng = np.random.default_rng(1)
    for _ in range(50):
        shop = merchants.of_category(rng, "electronics", 0)
        assert (
            merchants.category[shop] == merchants.category[merchants.of_category(rng, "electronics", ONLINE)]
        )
        assert merchants.city[shop] in (0, ONLINE)


def test_amounts_are_those_of_the_trade():
    merchants = Merchants(BankSettings())
    rng = np.random.default_rng(1)
    machine = int(np.flatnonzero(merchants.category == 1)[0])
    amounts = merchants.amounts(rng, np.full(5_000, machine), np.ones(5_000))
    assert np.log(np.median(amounts)) == pytest.approx(merchants.log_median[machine], abs=0.1)
    assert amounts.min() >= 50
