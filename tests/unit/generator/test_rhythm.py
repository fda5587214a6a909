"""The week and the year, as figures of the stream."""

from collections import Counter
from datetime import UTC, datetime

import numpy as np

from generator.rhythm import Day, cumulative_hours, time_of_day
from generator.settings import HOUR_MS, BankSettings


def bought(transactions):
    for event in transactions:
        if event.message["transaction_type"] == "purchase" and event.typology is None:
            yield datetime.fromtimestamp(event.time_ms / 1000, UTC), event


def test_saturdays_are_busier_than_sundays_and_mondays(transactions):
    counts = Counter(time.weekday() for time, _ in bought(transactions) if time.month < 12)
    assert counts[5] > 1.2 * counts[0]
    assert counts[5] > 1.3 * counts[6]


def test_december_before_christmas_is_busier_than_autumn(transactions):
    days = Counter(time.date() for time, _ in bought(transactions))
    autumn = [n for day, n in days.items() if day.month in (9, 10)]
    advent = [n for day, n in days.items() if day.month == 12 and day.day <= 24]
    after = [n for day, n in days.items() if day.month == 12 and day.day > 25]
    assert 1.2 < np.mean(advent) / np.mean(autumn) < 2.0
    assert np.mean(after) < 0.9 * np.mean(advent)


def test_people_sleep_at_night(transactions):
    hours = Counter(time.hour for time, event in bought(transactions) if event.message["channel"] == "pos")
    assert sum(hours[h] for h in range(1, 6)) < 0.06 * hours.total()
    assert sum(hours[h] for h in range(9, 20)) > 0.6 * hours.total()


def test_salaries_come_on_bank_days_and_once_a_month(by_customer):
    months = Counter()
    for customer, events in by_customer.items():
        for event in events:
            if event.message["transaction_type"] == "salary":
                time = datetime.fromtimestamp(event.time_ms / 1000, UTC)
                assert time.weekday() < 5
                months[customer, event.message["counterparty_id"], time.month] += 1
    assert months
    # A salary of the 1st that falls on a Saturday comes on the 3rd: twice a month is rare.
    assert sum(count > 1 for count in months.values()) < 0.05 * len(months)


def test_every_day_of_the_month_is_a_bank_day_once():
    settings = BankSettings(days=365)
    booked = Counter()
    for index in range(365):
        booked.update(Day.of(settings, index).bank_days)
    assert min(booked[day] for day in range(1, 29)) >= 11
    assert max(booked.values()) <= 12


def test_hours_later_shift_the_day():
    rng = np.random.default_rng(1)
    hours = cumulative_hours(("meal",))
    usual, late = (
        time_of_day(rng, hours, np.zeros(4_000, np.int64), np.full(4_000, shift)) for shift in (0.0, 1.0)
    )
    assert 0.5 * HOUR_MS < np.median(late) - np.median(usual) < 2.0 * HOUR_MS
    assert usual.min() >= 0
    assert usual.max() < 24 * HOUR_MS
