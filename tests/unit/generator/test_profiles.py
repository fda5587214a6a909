import numpy as np

from generator.profiles import SEGMENTS, Profiles
from generator.settings import BankSettings


def test_shares_of_segments_are_those_of_the_table():
    profiles = Profiles.draw(BankSettings(customers=20_000))
    share = np.bincount(profiles.segment) / 20_000
    assert np.abs(share - [segment.share for segment in SEGMENTS]).max() < 0.02


def test_ids_rise_with_the_day_of_opening_and_founders_come_first():
    profiles = Profiles.draw(BankSettings(customers=500))
    assert (np.diff(profiles.opened_on) >= 0).all()
    assert (profiles.opened_on[: profiles.founders] < 0).all()
    assert (profiles.opened_on[profiles.founders :] >= 0).all()


def test_nobody_opens_an_account_as_a_child():
    settings = BankSettings(customers=5_000)
    profiles = Profiles.draw(settings)
    opened = np.array([profiles.opening_date(settings, customer).year for customer in range(5_000)])
    assert (opened - profiles.birth_year).min() >= 15


def test_affluent_customers_earn_more_than_students():
    profiles = Profiles.draw(BankSettings(customers=5_000))
    assert np.median(profiles.income[profiles.segment == 2]) > 4 * np.median(
        profiles.income[profiles.segment == 0]
    )
