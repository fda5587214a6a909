"""Genuine behaviour that looks like fraud."""

from collections import defaultdict
from statistics import median

from generator.settings import DAY_MS


def of(transactions, lookalike):
    found = defaultdict(list)
    for event in transactions:
        if event.lookalike == lookalike:
            found[event.message["customer_id"]].append(event)
    return found


def test_holidays_are_spent_abroad_for_a_week_or_two(transactions):
    journeys = of(transactions, "holiday")
    present = [e for events in journeys.values() for e in events if e.message.get("card_present")]
    abroad = [e for e in present if e.message["merchant_country"] != "FR"]
    assert len(abroad) > 0.5 * len(present)
    for events in journeys.values():
        days = sorted({event.time_ms // DAY_MS for event in events})
        # Two journeys may follow each other; within one there are no gaps of weeks.
        assert len(days) < 70


def test_nobody_is_at_home_and_abroad_on_a_holiday(by_customer):
    for events in by_customer.values():
        away = {e.time_ms // DAY_MS for e in events if e.lookalike == "holiday"}
        for event in events:
            if event.time_ms // DAY_MS in away and event.typology is None and event.lookalike is None:
                assert not (event.message.get("channel") == "pos" and event.message.get("card_present"))


def test_a_move_brings_dear_purchases(transactions):
    moves = of(transactions, "house_move")
    amounts = [float(e.message["amount"]) for events in moves.values() for e in events]
    ordinary = [
        float(e.message["amount"])
        for e in transactions
        if e.lookalike is None and e.typology is None and e.message["transaction_type"] == "purchase"
    ]
    assert sorted(amounts)[int(0.9 * len(amounts))] > 3 * sorted(ordinary)[int(0.9 * len(ordinary))]


def test_christmas_is_before_christmas_and_dearer(transactions):
    presents = [event for events in of(transactions, "christmas").values() for event in events]
    assert all("-12-" in e.message["event_time"] and e.message["event_time"][8:10] <= "24" for e in presents)
    ordinary = [
        e for e in transactions if e.lookalike is None and e.message["transaction_type"] == "purchase"
    ]
    assert median(float(e.message["amount"]) for e in presents) > 1.2 * median(
        float(e.message["amount"]) for e in ordinary
    )


def test_a_new_phone_is_a_device_never_seen_before(by_customer):
    fresh = 0
    for events in by_customer.values():
        seen = set()
        for event in events:
            device = event.message.get("device_id")
            if device and event.lookalike == "new_phone" and device not in seen:
                fresh += 1
            seen.add(device)
    assert fresh > 20


def test_money_that_passes_through_came_first(by_customer):
    for events in by_customer.values():
        passing = [e for e in events if e.lookalike == "pass_through"]
        if passing:
            assert passing[0].message["direction"] == "credit"
