"""One day after the other: what is kept for later stays small."""

import tracemalloc

from generator.settings import BankSettings
from generator.simulation import Simulation


def test_what_is_pending_does_not_grow_with_the_days():
    simulation = Simulation(BankSettings(customers=200, days=260, seed=3))
    pending = []
    for _ in range(240):
        for _ in simulation.live_day():
            pass
        pending.append(simulation.pending)
    assert max(pending[120:]) < 2 * max(pending[40:120])


def test_nothing_is_kept_for_after_the_span():
    simulation = Simulation(BankSettings(customers=200, days=30, typologies=("stolen_card", "mule_chain")))
    events = sum(1 for _ in simulation.run())
    assert events > 5_000
    assert simulation.pending == 0


def test_memory_does_not_grow_with_the_days():
    simulation = Simulation(BankSettings(customers=100, days=110, seed=4))
    held = []
    tracemalloc.start()
    try:
        for day in range(100):
            for _ in simulation.live_day():
                pass
            if day in {40, 99}:
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[1] - held[0] < 300_000


def test_a_day_is_made_only_when_it_is_asked_for():
    simulation = Simulation(BankSettings(customers=50, days=100))
    day = simulation.live_day()
    next(day)
    assert simulation.pending < 500
    assert sum(1 for _ in day) < 1_000


def test_a_card_is_replaced_after_its_fraud_was_reported(stream):
    tokens: dict[str, str] = {}
    waiting: dict[str, tuple[int, str]] = {}
    replaced = kept = 0
    for event in stream:
        customer = str(event.message["customer_id"])
        if event.topic == "transactions" and (token := event.message.get("card_token")):
            tokens[customer] = str(token)
            if customer in waiting and event.time_ms // 86_400_000 > waiting[customer][0]:
                old = waiting.pop(customer)[1]
                replaced, kept = replaced + (old != token), kept + (old == token)
        elif event.topic == "labels" and event.typology == "stolen_card" and customer in tokens:
            waiting[customer] = (event.time_ms // 86_400_000, tokens[customer])
    assert replaced > 10
    assert kept == 0


def test_the_bank_pays_back_what_was_stolen(stream):
    reported, refunds = [], set()
    for event in stream:
        message = event.message
        if event.topic == "labels" and event.typology == "stolen_card":
            reported.append((message["transaction_id"], event.time_ms))
        elif event.topic == "transactions" and message["transaction_type"] == "refund":
            refunds.add((message["customer_id"], message["amount"]))
    by_id = {e.message["transaction_id"]: e.message for e in stream if e.topic == "transactions"}
    end = stream[-1].time_ms
    due = [by_id[id_] for id_, time in reported if time < end - 6 * 86_400_000]
    paid = [message for message in due if (message["customer_id"], message["amount"]) in refunds]
    assert len(due) > 20
    assert len(paid) > 0.9 * len(due)
