"""Erasing a customer: nothing is left, nothing comes back, nobody else notices."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.codec import decode
from infra.partitioning import partition_for
from schemas.customer import SealedContact
from schemas.erasure import erased_name
from schemas.topics import CHURN_SCORES, CUSTOMERS, ERASURES, LABELS, TRANSACTIONS
from tests.streaming import (
    DAY_MS,
    PUBLISHED_MS,
    START_MS,
    Crash,
    Store,
    Stream,
    label,
    transaction,
    what_counts,
)

T, L, C, E = TRANSACTIONS.name, LABELS.name, CUSTOMERS.name, ERASURES.name
HOURS_3 = 3 * 3_600_000


def erasure(customer: str, at_ms: int) -> dict[str, Any]:
    return {"erasure_id": f"e-{customer}", "customer_id": customer, "requested_at": at_ms}


def erase(stream: Stream, customer: str, at_ms: int) -> None:
    stream.kafka.put(E, 0, erasure(customer, at_ms), customer.encode())


def others(stream: Stream, customer: str) -> Any:
    """Everything that is kept of the others, and of the partition."""
    p = stream.store._partitions[0]
    return (
        p.watermark_ms,
        p.swept_day,
        {c: what_counts(p.history(c)) for c in p.histories if c != customer},
        {c: ms for c, ms in p.last_event_ms.items() if c != customer},
        {c: tuple(s) for c, s in p.scores.items() if s and c != customer},
        {c: s for c, s in p.churn.items() if c != customer},
        {c: s for c, s in p.profiles.items() if c != customer},
    )


def is_gone(stream: Stream, customer: str) -> bool:
    p = stream.store._partitions[0]
    parts = (p.histories, p.packed, p.last_event_ms, p.scores, p.churn, p.profiles)
    return not any(customer in part for part in parts)


async def test_nothing_is_left_of_an_erased_customer_and_all_of_the_others(stream: Stream) -> None:
    stream.transact(30)
    for customer in ("c-0", "c-1"):
        stream.kafka.put(C, 0, {"customer_id": customer, "country": "FR"}, customer.encode())
    await stream.start()
    await stream.run()
    before = others(stream, "c-1")
    assert not is_gone(stream, "c-1")
    erase(stream, "c-1", START_MS + 30 * HOURS_3)
    await stream.run()

    assert is_gone(stream, "c-1")
    assert others(stream, "c-1") == before
    assert await stream.store.read("c-1") is None
    assert "c-1" not in str(stream.store._partitions[0].erased)
    assert stream.observer.outcomes["erased_customers"] == 1


async def test_what_is_older_than_the_erasure_is_not_taken_again(stream: Stream) -> None:
    stream.transact(30)
    await stream.start()
    await stream.run()
    erase(stream, "c-1", START_MS + 30 * HOURS_3)
    await stream.run()
    scored = len(stream.scored)
    stream.kafka.put(T, 0, transaction(30, customer="c-1"))
    stream.kafka.put(L, 0, label("t-4", customer="c-1"))
    stream.kafka.put(L, 0, {"customer_id": "c-1", "label": "account_closed", "label_time": START_MS})
    old = {"customer_id": "c-1", "country": "FR", "updated_at": START_MS}
    stream.kafka.put(C, 0, old, b"c-1")
    await stream.run()

    assert is_gone(stream, "c-1")
    assert len(stream.scored) == scored
    # A dead letter would bring back what was erased.
    assert stream.dead == []
    assert stream.observer.outcomes["erased"] == 4


async def test_a_request_of_a_time_to_come_is_refused_and_its_customer_is_scored_on(stream: Stream) -> None:
    stream.transact(30)
    await stream.start()
    await stream.run()
    erase(stream, "c-1", PUBLISHED_MS + DAY_MS + 1)
    stream.kafka.put(T, 0, transaction(31, customer="c-1"))
    await stream.run()

    assert not is_gone(stream, "c-1")
    assert "t-31" in stream.scored
    (letter,) = stream.dead
    assert (letter["reason"], letter["source"]["topic"]) == ("event_from_the_future", E)
    assert "requested_at" in letter["detail"]


async def test_what_comes_after_the_erasure_is_of_a_new_customer(stream: Stream) -> None:
    stream.transact(30)
    await stream.start()
    await stream.run()
    erase(stream, "c-1", START_MS + 30 * HOURS_3)
    await stream.run()
    stream.kafka.put(T, 0, transaction(31, customer="c-1"))
    stream.kafka.put(C, 0, {"customer_id": "c-1", "country": "DE"}, b"c-1")
    await stream.run()

    state = await stream.store.read("c-1")
    assert state is not None
    assert decode(state.history).totals.count == 1
    assert state.profile is not None
    assert "t-31" in stream.scored


async def replayed(stream: Stream) -> Stream:
    """The same log, into an empty store."""
    again = Stream(stream.models, kafka=stream.kafka, silent_days=stream.silent_days)
    again.store = Store()
    await again.start()
    await again.run()
    assert not again.worker.failed.done()
    return again


async def test_a_replay_does_not_bring_back_the_customer_and_leaves_the_others_as_they_were(
    stream: Stream,
) -> None:
    for start in (0, 40, 80):
        stream.transact(40, customers=5, first=start)
        # A day that only the customer who is erased has reached.
        stream.kafka.put(T, 0, transaction(start + 39, customer="c-1", transaction_id=f"last-{start}"))
        if start == 0:
            await stream.start()
        await stream.run([7, 3, 11])
        if start == 40:
            erase(stream, "c-1", START_MS + 81 * HOURS_3)
            await stream.run()
    stream.kafka.put(T, 0, transaction(400, customer="c-2"))
    await stream.run()
    again = await replayed(stream)

    assert others(again, "c-1") == others(stream, "c-1")
    assert again.store._partitions[0].erased == stream.store._partitions[0].erased
    # Of c-1 there is what came after the erasure, in both.
    for found in (stream, again):
        state = await found.store.read("c-1")
        assert state is not None
        assert decode(state.history).records["time_ms"].min() > START_MS + 81 * HOURS_3


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=5, max_size=60),
    st.integers(0, 59),
    st.lists(st.integers(1, 20), max_size=10),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_the_log_a_replay_gives_the_same_without_the_erased(
    models, steps, place, sizes
) -> None:
    stream = Stream(models)
    await stream.start()
    hours, newest = 0, 0
    for number, (customer, pause) in enumerate(steps):
        hours += pause
        newest = START_MS + hours * 3_600_000
        message = transaction(number, customer=f"c-{customer}", event_time=newest)
        stream.kafka.put(T, 0, message)
        if number == min(place, len(steps) - 1):
            await stream.run(sizes)
            erase(stream, "c-1", newest)
    await stream.run(sizes)
    again = await replayed(stream)
    assert others(again, "c-1") == others(stream, "c-1")
    ours, theirs = [await s.store.read("c-1") for s in (stream, again)]
    assert (ours.history if ours else None) == (theirs.history if theirs else None)


async def test_everything_waits_for_the_erasures_that_were_asked_for_before(stream: Stream) -> None:
    stream.transact(4)
    stream.kafka.put(C, 0, {"customer_id": "c-1", "updated_at": START_MS}, b"c-1")
    erase(stream, "c-1", START_MS + 10 * HOURS_3)
    await stream.start()
    chunks = [stream.consumer.fetch(topic, 0) for topic in (T, C)]
    handling = [asyncio.create_task(stream.worker.handle([chunk])) for chunk in chunks if chunk is not None]
    assert len(handling) == 2
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in handling)
    await stream.run(topics=[E])
    await asyncio.wait_for(asyncio.gather(*handling), 5)

    assert is_gone(stream, "c-1")
    assert sorted(stream.scored) == ["t-0", "t-2", "t-3"]


@pytest.mark.parametrize("point", ["before-commit", "after-commit"])
async def test_an_erasure_that_a_crash_stopped_is_done_after_the_next_start(
    stream: Stream, point: str
) -> None:
    stream.transact(12)
    await stream.start()
    await stream.run()
    erase(stream, "c-1", START_MS + 30 * HOURS_3)

    def die(reached: str) -> None:
        if reached == point:
            raise Crash

    stream.crash = die
    with pytest.raises(Crash):
        await stream.run(topics=[E])
    stream.crash = lambda reached: None
    await stream.start()
    await stream.run()

    assert is_gone(stream, "c-1")
    assert stream.store._partitions[0].next_offsets[E] == 1


async def test_the_sweep_does_not_find_an_erased_customer(stream: Stream) -> None:
    stream.transact(6)
    await stream.start()
    await stream.run()
    erase(stream, "c-1", START_MS + 30 * HOURS_3)
    await stream.run()
    churned = len(stream.kafka.messages(CHURN_SCORES.name))
    stream.kafka.put(
        T, 0, transaction(0, customer="c-9", transaction_id="later", event_time=START_MS + 40 * DAY_MS)
    )
    stream.kafka.put(
        T, 0, transaction(0, customer="c-9", transaction_id="last", event_time=START_MS + 41 * DAY_MS)
    )
    await stream.run()

    found = {m["customer_id"] for m in stream.kafka.messages(CHURN_SCORES.name)[churned:]}
    assert "c-0" in found
    assert "c-1" not in found


async def test_a_request_that_cannot_be_read_is_a_dead_letter(stream: Stream) -> None:
    stream.transact(3)
    stream.kafka.put(E, 0, {"customer_id": "c-1"})
    stream.kafka.put(E, 0, b"not json")
    await stream.start()
    await stream.run()

    assert stream.reasons == ["invalid_field", "not_json"]
    assert not is_gone(stream, "c-1")


async def test_a_request_in_the_wrong_partition_is_passed_on(models) -> None:
    stream = Stream(models, partitions=2, misplaced=True)

    customer = next(f"c-{n}" for n in range(20) if partition_for(f"c-{n}", 2) == 1)
    stream.kafka.put(T, 1, transaction(0, customer=customer))
    await stream.start()
    await stream.run()
    assert await stream.store.read(customer) is not None
    stream.kafka.put(E, 0, erasure(customer, START_MS + DAY_MS))
    await stream.run()

    assert await stream.store.read(customer) is None
    assert erased_name(customer) in stream.store._partitions[1].erased


async def test_contact_data_is_kept_sealed_or_not_at_all(models) -> None:
    sealed: list[tuple[str, dict[str, str]]] = []

    async def seal(customer_id: str, contact) -> SealedContact:
        sealed.append((customer_id, dict(contact)))
        return SealedContact(key="k", wrapped="w", fields=dict.fromkeys(contact, "sealed"))

    message = {"customer_id": "c-1", "country": "FR", "email": "someone@example.org", "phone": "+33 1"}
    for given_seal in (None, seal):
        stream = Stream(models)
        stream.kafka.put(C, 0, message, b"c-1")
        stream.kafka.put(C, 0, {"customer_id": "c-2", "country": "FR"}, b"c-2")
        await stream.start()
        stream.worker.steps.profiles._seal = given_seal
        await stream.run()
        stored = stream.store._partitions[0].profiles
        assert b"someone" not in stored["c-1"]
        assert b'"country":"FR"' in stored["c-1"]
        assert (b'"fields":{"email":"sealed","phone":"sealed"}' in stored["c-1"]) == (given_seal is not None)
        assert b"contact" not in stored["c-2"]
    assert sealed == [("c-1", {"email": "someone@example.org", "phone": "+33 1"})]
