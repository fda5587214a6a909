"""The stream as its readers see it."""

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.bank import Bank
from generator.events import LOOKALIKES, TYPOLOGIES, BankEvent
from generator.settings import DAY_MS, BankSettings


def written(events) -> bytes:
    return b"\n".join(orjson.dumps([e.time_ms, e.topic, e.message, e.typology, e.lookalike]) for e in events)


def test_same_settings_give_the_same_bytes():
    chosen = BankSettings(customers=80, days=40, seed=5)
    assert written(Bank(chosen).events()) == written(Bank(chosen).events())


def test_events_begin_anew_at_every_call():
    bank = Bank(BankSettings(customers=40, days=10))
    half_read = bank.events()
    list(islice(half_read, 200))
    assert written(bank.events()) == written(bank.events())


def test_another_seed_is_another_bank():
    one, other = (Bank(BankSettings(customers=80, days=5, seed=seed)) for seed in (1, 2))
    assert written(one.events()) != written(other.events())
    ids = [{e.message.get("transaction_id") for e in bank.events()} - {None} for bank in (one, other)]
    assert not ids[0] & ids[1]


def test_twice_the_days_make_about_twice_the_events():
    short = sum(1 for _ in Bank(BankSettings(customers=60, days=10)).events())
    long = sum(1 for _ in Bank(BankSettings(customers=60, days=20)).events())
    assert 1.5 < long / short < 2.5


def test_events_are_in_order_of_time(stream):
    assert all(before.time_ms <= after.time_ms for before, after in pairwise(stream))


def test_events_lie_within_the_span(bank, stream):
    assert stream[0].time_ms >= bank.settings.start_ms
    assert stream[-1].time_ms < bank.settings.end_ms


@pytest.mark.parametrize("field", ["transaction_id", "label_id"])
def test_ids_are_unique(stream, field):
    topic = "transactions" if field == "transaction_id" else "labels"
    ids = [event.message[field] for event in stream if event.topic == topic]
    assert len(ids) == len(set(ids))


def test_a_customer_is_announced_before_the_first_transaction(stream):
    known = set()
    for event in stream:
        if event.topic == "customers":
            known.add(event.message["customer_id"])
        elif event.topic == "transactions":
            assert event.message["customer_id"] in known


def test_every_customer_is_announced(bank, stream):
    announced = {event.message["customer_id"] for event in stream if event.topic == "customers"}
    assert len(announced) == bank.settings.customers


def test_every_typology_and_lookalike_occurs(transactions):
    assert {event.typology for event in transactions} == {None, *TYPOLOGIES}
    assert {event.lookalike for event in transactions} == {None, *LOOKALIKES}


def test_a_lookalike_is_never_fraud(stream):
    assert all(event.typology is None for event in stream if event.lookalike is not None)


def test_share_of_fraud_is_a_few_in_a_thousand(transactions):
    share = sum(event.typology is not None for event in transactions) / len(transactions)
    assert 0.003 <= share <= 0.006


def test_customers_are_as_active_as_people_are(bank, transactions):
    assert 1.5 <= len(transactions) / bank.settings.customers / bank.settings.days <= 2.5


def test_truth_is_not_in_the_messages(stream):
    secret = [name.encode() for name in (*TYPOLOGIES, *LOOKALIKES, "typology", "lookalike")]
    for event in stream:
        text = orjson.dumps(event.message)
        assert not any(word in text for word in secret)


def test_leavers_make_their_last_transaction_when_they_leave_and_none_after(bank, by_customer):
    assert len(bank.leavers) > 10
    for customer, leaver in bank.leavers.items():
        last = datetime.fromtimestamp(by_customer[customer][-1].time_ms / 1000, UTC)
        assert abs(last - leaver.last_activity) < timedelta(milliseconds=1)


def test_hardly_anybody_else_falls_silent(bank, by_customer):
    late = bank.settings.end_ms - 30 * DAY_MS
    stayed = [events for customer, events in by_customer.items() if customer not in bank.leavers]
    # Some are dormant, some leave after the span.
    assert sum(events[-1].time_ms > late for events in stayed) > 0.98 * len(stayed)


def test_leavers_fade_before_they_go(bank, by_customer):
    spent: dict[str, int] = {"before": 0, "last": 0}
    for customer, leaver in bank.leavers.items():
        length = leaver.last_activity - leaver.fades_from
        if length < timedelta(days=20) or leaver.fades_from - length < bank.settings.start:
            continue
        for event in by_customer[customer]:
            moment = datetime.fromtimestamp(event.time_ms / 1000, UTC)
            if leaver.fades_from - length <= moment < leaver.fades_from:
                spent["before"] += 1
            elif moment >= leaver.fades_from + length / 2:
                spent["last"] += 1
    assert spent["before"] > 100
    # Half as long: at the old pace half as many.
    assert spent["last"] < 0.6 * spent["before"] / 2


def test_closures_are_told_when_they_happen(bank, labels):
    told = {e.message["customer_id"]: e.time_ms for e in labels if e.message["label"] == "account_closed"}
    expected = {
        customer: int(leaver.closed_at.timestamp() * 1000 + 0.5)
        for customer, leaver in bank.leavers.items()
        if leaver.closed_at and leaver.closed_at < bank.settings.start + timedelta(days=bank.settings.days)
    }
    assert told
    assert {
        customer: abs(time - expected[customer]) <= 1 for customer, time in told.items()
    } == dict.fromkeys(expected, True)


def test_events_carry_the_time_in_their_message(stream):
    fields = {"transactions": "event_time", "labels": "label_time", "customers": "updated_at"}
    for event in islice(stream, 0, None, 50):
        moment = datetime.fromisoformat(str(event.message[fields[event.topic]]))
        assert round(moment.timestamp() * 1000) == event.time_ms


@settings(max_examples=25)
@given(
    st.builds(
        BankSettings,
        customers=st.integers(10, 60),
        days=st.integers(1, 25),
        seed=st.integers(0, 2**40),
        merchants=st.none() | st.integers(60, 200),
        fraud_rate=st.sampled_from([0.0, 0.07, 0.9]),
        typologies=st.lists(st.sampled_from(TYPOLOGIES), unique=True).map(tuple),
        churn_rate=st.sampled_from([0.0, 0.05, 0.9]),
        join_rate=st.sampled_from([0.0, 0.9]),
        dormant_rate=st.sampled_from([0.0, 0.9]),
        country=st.sampled_from(["FR", "PT", "GB"]),
        start=st.dates(date(1971, 1, 1), date(2090, 1, 1)).map(
            lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC)
        ),
    )
)
def test_any_settings_make_a_sound_stream(chosen):
    last, ids = chosen.start_ms, set()
    for event in Bank(chosen).events():
        assert last <= event.time_ms < chosen.end_ms
        last = event.time_ms
        if event.topic == "transactions":
            ids.add(event.message["transaction_id"])
            assert event.typology is None or event.typology in chosen.typologies
        elif event.message.get("transaction_id"):
            assert event.message["transaction_id"] in ids
        assert isinstance(event, BankEvent)
