from itertools import pairwise

import numpy as np

from generator.lifetimes import FAR_MS, Lifetimes
from generator.profiles import Profiles
from generator.rhythm import Day
from generator.settings import BankSettings


def drawn(**changes):
    settings = BankSettings(customers=10_000, **changes)
    profiles = Profiles.draw(settings)
    return settings, profiles, Lifetimes.draw(settings, profiles)


def test_the_share_of_leavers_is_the_churn_rate():
    settings, _, lifetimes = drawn(days=90, churn_rate=0.05, join_rate=0.0)
    assert 0.04 < len(lifetimes.leavers(settings)) / settings.customers < 0.06


def test_without_churn_nobody_leaves():
    settings, _, lifetimes = drawn(churn_rate=0.0)
    assert not lifetimes.leavers(settings)


def test_activity_decays_from_the_habit_to_nearly_nothing():
    settings, _, lifetimes = drawn()
    leavers = np.flatnonzero(
        (lifetimes.fade_ms > settings.start_ms) & (lifetimes.last_ms < settings.end_ms - 86_400_000)
    )
    leaver = leavers[np.argmax(lifetimes.last_ms[leavers] - lifetimes.fade_ms[leavers])]
    course = [lifetimes.activity(Day.of(settings, day))[leaver] for day in range(settings.days)]
    last = (lifetimes.last_ms[leaver] - settings.start_ms) // 86_400_000
    assert course[0] == 1.0
    assert course[last - 1] < 0.2
    assert all(later <= earlier for earlier, later in pairwise(course))
    assert set(course[last + 1 :]) == {0.0}


def test_the_dormant_come_back():
    settings, _, lifetimes = drawn(dormant_rate=0.2)
    dormant = np.flatnonzero(
        (lifetimes.quiet_from > 0) & (lifetimes.quiet_to < settings.days) & (lifetimes.fade_ms == FAR_MS)
    )
    assert dormant.size > 100
    quiet = lifetimes.activity(Day.of(settings, int(lifetimes.quiet_from[dormant[0]])))[dormant[0]]
    back = lifetimes.activity(Day.of(settings, int(lifetimes.quiet_to[dormant[0]])))[dormant[0]]
    assert quiet < 0.1 * back


def test_closure_comes_after_the_last_transaction():
    settings, _, lifetimes = drawn()
    for leaver in lifetimes.leavers(settings).values():
        assert leaver.fades_from < leaver.last_activity
        assert leaver.closed_at is None or leaver.closed_at > leaver.last_activity
