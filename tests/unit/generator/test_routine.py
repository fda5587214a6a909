"""Money that moves by the calendar."""

from collections import defaultdict
from datetime import UTC, datetime

from generator.settings import DAY_MS


def test_rent_is_the_same_every_month(by_customer):
    months = 0
    for events in by_customer.values():
        paid = defaultdict(list)
        for event in events:
            if event.message["transaction_type"] == "payment":
                paid[event.message["counterparty_id"]].append(event.message["amount"])
        months += any(len(amounts) >= 3 and len(set(amounts)) == 1 for amounts in paid.values())
    assert months > 0.6 * len(by_customer)


def test_subscriptions_keep_their_day(by_customer):
    days = defaultdict(set)
    for customer, events in by_customer.items():
        for event in events:
            message = event.message
            if (
                message.get("channel") == "ecommerce"
                and "ip_address" not in message
                and event.typology is None
            ):
                key = customer, message["merchant_id"], message["amount"]
                days[key].add(
                    (datetime.fromtimestamp(event.time_ms / 1000, UTC).day, event.time_ms // DAY_MS)
                )
    regular = [seen for seen in days.values() if len(seen) >= 3]
    kept = [seen for seen in regular if len({day for day, _ in seen}) == 1]
    assert len(kept) > 50
    assert len(kept) > 0.8 * len(regular)


def test_salaries_stop_for_most_who_leave(bank, by_customer):
    moved = stayed = 0
    for customer, leaver in bank.leavers.items():
        paid = [e for e in by_customer[customer] if e.message["transaction_type"] == "salary"]
        length = leaver.last_activity - leaver.fades_from
        if paid and length.days > 40:
            last = datetime.fromtimestamp(paid[-1].time_ms / 1000, UTC)
            late = (leaver.last_activity - last).days > 32
            moved, stayed = moved + late, stayed + (not late)
    assert moved > 0
