"""Each way of fraud has its own signature, and none of them is always the same."""

from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from generator.bank import Bank
from generator.events import ON_REQUEST, TYPOLOGIES
from generator.settings import DAY_MS, BankSettings
from generator.simulation import Simulation


@pytest.fixture(scope="module")
def frauds():
    """Fraud of a bank with much of it, by typology and customer."""
    found = defaultdict(lambda: defaultdict(list))
    for event in Bank(BankSettings(customers=400, days=60, seed=12, fraud_rate=0.5)).events():
        if event.topic == "transactions" and event.typology is not None:
            found[event.typology][event.message["customer_id"]].append(event)
    return found


def amounts(events):
    return [float(event.message["amount"]) for event in events]


def test_card_testing_is_a_burst_of_tiny_orders_online(frauds):
    bursts = [sorted(events, key=lambda e: e.time_ms) for events in frauds["card_testing"].values()]
    first = [events[:3] for events in bursts if len(events) >= 4]
    tiny = [events for events in first if max(amounts(events)) < 10]
    quick = [events for events in tiny if events[-1].time_ms - events[0].time_ms < 30 * 60_000]
    assert len(first) > 20
    assert len(tiny) > 0.6 * len(first)
    assert 0.3 * len(first) < len(quick) < len(first)
    assert all(e.message["channel"] == "ecommerce" for events in bursts for e in events)
    gaps = {after.time_ms - before.time_ms for events in first for before, after in pairwise(events)}
    assert min(gaps) >= 4_000
    assert len(gaps) > 0.9 * 2 * len(first)


def test_a_stolen_card_is_used_in_shops_and_machines_here_and_abroad(frauds):
    events = [event for part in frauds["stolen_card"].values() for event in part]
    assert {event.message["channel"] for event in events} == {"pos", "atm"}
    at_home = sum(event.message["merchant_country"] == "FR" for event in events)
    assert 0.2 * len(events) < at_home < 0.95 * len(events)


def test_a_takeover_pays_elsewhere_mostly_from_a_strange_device(frauds):
    events = [event for part in frauds["account_takeover"].values() for event in part]
    assert all(event.message["transaction_type"] == "transfer" for event in events)
    assert all(event.message["counterparty_id"].startswith("x") for event in events)
    shared = Counter(event.message["counterparty_id"] for event in events)
    assert shared.most_common(1)[0][1] > 1


def test_most_takeovers_come_from_a_device_the_customer_never_used(by_customer):
    strange = []
    for events in by_customer.values():
        own = {e.message["device_id"] for e in events if e.typology is None and "device_id" in e.message}
        strange += [
            event.message["device_id"] not in own for event in events if event.typology == "account_takeover"
        ]
    assert 0.55 < sum(strange) / len(strange) < 0.98


def test_a_large_amount_is_one_payment(frauds):
    counts = [len(events) for events in frauds["large_amount"].values()]
    assert counts.count(1) > 0.7 * len(counts)


def test_compromised_merchants_have_many_victims_who_shop_elsewhere_afterwards(frauds):
    victims = frauds["compromised_merchant"]
    assert len(victims) > 8
    merchants = Counter(e.message["merchant_id"] for events in victims.values() for e in events)
    # A ring cashes out at a few merchants: they stand out.
    assert merchants.most_common(1)[0][1] > 5


def test_mules_pass_on_what_came(frauds):
    events = [event for part in frauds["mule_chain"].values() for event in part]
    assert {event.message["direction"] for event in events} == {"debit", "credit"}
    parts = frauds["mule_chain"].values()
    came = [min(part, key=lambda e: e.time_ms).message["direction"] == "credit" for part in parts]
    assert sum(came) > 0.95 * len(came)


def test_a_chain_has_several_mules(frauds):
    assert len(frauds["mule_chain"]) >= 6


def test_only_the_typologies_asked_for_occur():
    settings = BankSettings(
        customers=300, days=60, fraud_rate=0.3, typologies=("compromised_merchant", "stolen_card")
    )
    assert {event.typology for event in Bank(settings).events()} == {
        None,
        "compromised_merchant",
        "stolen_card",
    }


def test_a_typology_can_begin_later():
    settings = BankSettings(customers=300, days=50, fraud_rate=0.4, typology_from={"account_takeover": 30})
    first = {}
    for event in Bank(settings).events():
        if event.typology is not None:
            first.setdefault(event.typology, event.time_ms)
    assert first["account_takeover"] >= settings.start_ms + 30 * DAY_MS
    assert first["stolen_card"] < settings.start_ms + 10 * DAY_MS


def test_without_fraud_nothing_is_fraud():
    events = list(Bank(BankSettings(customers=100, days=20, fraud_rate=0.0)).events())
    assert all(event.typology is None for event in events)
    assert not any(event.message.get("label") == "fraud" for event in events)


def test_copied_cards_are_forgotten_when_the_campaign_is_over():
    settings = BankSettings(customers=300, days=120, fraud_rate=0.3, typologies=("compromised_merchant",))
    simulation = Simulation(settings)
    waiting = []
    for _ in range(settings.days):
        for _ in simulation.live_day():
            pass
        waiting.append(len(simulation._fraudsters))
    assert 0 < max(waiting) < settings.customers
    assert max(waiting[60:]) < 2 * max(waiting[:60])


def test_every_typology_varies_in_amount(frauds):
    for typology in TYPOLOGIES:
        spent = sorted(amount for events in frauds[typology].values() for amount in amounts(events))
        assert spent[int(0.9 * len(spent))] > 3 * spent[int(0.1 * len(spent))]


def test_a_terminal_in_wrong_hands_charges_who_was_there_again_for_some_weeks():
    settings = BankSettings(
        customers=400, days=70, seed=4, fraud_rate=0.3, typologies=("compromised_terminal",)
    )
    seen, frauds = defaultdict(list), []
    for event in Bank(settings).events():
        if event.topic != "transactions":
            continue
        who = event.message["customer_id"], event.message.get("merchant_id")
        if event.typology is None:
            seen[who].append(event.time_ms)
        else:
            frauds.append((who, event))
    assert len(frauds) > 50
    assert {event.typology for _, event in frauds} == {"compromised_terminal"}
    assert {event.message["channel"] for _, event in frauds} == {"pos"}
    for who, event in frauds:
        assert any(event.time_ms - 4 * DAY_MS < time_ms < event.time_ms for time_ms in seen[who])
    by_merchant = defaultdict(list)
    for (_, merchant), event in frauds:
        by_merchant[merchant].append(event.time_ms)
    assert len(by_merchant) < 20
    assert max(max(times) - min(times) for times in by_merchant.values()) > 14 * DAY_MS
    # Most who are there are charged again, and look like everybody else.
    (busiest, times) = max(by_merchant.items(), key=lambda item: len(item[1]))
    visits = [t for (_, m), found in seen.items() if m == busiest for t in found]
    during = sum(min(times) - DAY_MS < t < max(times) for t in visits)
    assert 0.5 * during < len(times) < 2 * during


def test_terminals_are_in_wrong_hands_only_where_that_is_asked_for():
    assert not {event.typology for event in Bank(BankSettings(customers=200, days=30)).events()} & {
        *ON_REQUEST
    }
