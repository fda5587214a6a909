"""What the stream shows of people's habits."""

from collections import Counter

import numpy as np
import pytest

from generator.habits import LOCAL, Habits
from generator.merchants import Merchants
from generator.profiles import Profiles
from generator.settings import BankSettings


@pytest.fixture(scope="module")
def habits() -> Habits:
    settings = BankSettings(customers=1_000)
    return Habits.draw(settings, Profiles.draw(settings), Merchants(settings))


def test_favourite_shops_are_near_home(habits):
    merchants = Merchants(BankSettings(customers=1_000))
    assert (merchants.city[habits.local] == habits.city[:, None]).all()
    assert habits.local.shape == (1_000, LOCAL)


def test_favourite_shops_are_hardly_ever_the_same_twice():
    settings = BankSettings(customers=1_000, merchants=3_000)
    habits = Habits.draw(settings, Profiles.draw(settings), Merchants(settings))
    different = [len(set(shops)) for shops in habits.local.tolist()]
    assert np.mean(different) > 0.95 * LOCAL


def test_preferences_fall_with_rank_and_add_up(habits):
    share = np.diff(habits.local_cumulative, axis=1, prepend=0.0)
    assert (np.diff(share, axis=1) <= 1e-12).all()
    assert habits.local_cumulative[:, -1] == pytest.approx(1.0)


def test_devices_belong_to_one_customer_or_one_household(habits):
    owners = Counter(habits.phone.tolist())
    assert max(owners.values()) == 1
    assert max(Counter(desk for desk in habits.desk.tolist() if desk >= 0).values()) <= 2


def test_customers_return_to_their_favourites(by_customer):
    shares = []
    for events in by_customer.values():
        visits = Counter(
            e.message["merchant_id"]
            for e in events
            if e.message.get("channel") == "pos" and e.lookalike is None
        )
        if visits.total() >= 50:
            shares.append(sum(count for _, count in visits.most_common(5)) / visits.total())
    assert 0.5 < np.median(shares) < 0.95


def test_some_merchants_are_new_to_a_customer_every_month(by_customer):
    news = []
    for events in by_customer.values():
        half = len(events) // 2
        old = {e.message.get("merchant_id") for e in events[:half]}
        later = [e.message["merchant_id"] for e in events[half:] if "merchant_id" in e.message]
        if len(later) > 30:
            news.append(sum(merchant not in old for merchant in later) / len(later))
    assert 0.05 < np.median(news) < 0.5
