"""Labels in a backlog of months: what they are about must not have left the history when their turn comes."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.codec import decode
from features.entities import kept_tiles
from features.entity_features import ENTITY_FEATURES
from features.record import LABEL_KIND
from infra.partitioning import partition_for
from models.differences import retained
from models.model_set import Models
from schemas.errors import HistoryError
from schemas.parse import dump
from schemas.topics import DEAD_LETTERS, ERASURES, FRAUD_SCORES, LABELS, TRANSACTIONS
from stream_app import backlog
from stream_app.labels import AHEAD, LabelProcessor
from stream_app.partition import Partition
from stream_app.transport import Chunk
from tests.streaming import DAY_MS, START_MS, Crash, Stream, label, transaction
from tests.verifying import histories, verified

T, L = TRANSACTIONS.name, LABELS.name
DAYS, DELAY_DAYS = 300, 9
POINTS = ("before-publish", "after-publish", "before-commit", "after-commit")
CUSTOMERS = ("c-1", "c-2")


def happened(told_days: int = DAYS + DELAY_DAYS) -> list[tuple[int, str, dict[str, Any]]]:
    """A payment a day at one shop; every fourth is a fraud, reported nine days later and for so many days."""
    found = []
    for day in range(DAYS):
        at_ms, customer = START_MS + day * DAY_MS, CUSTOMERS[day % 2]
        payment = transaction(day, customer=customer, event_time=at_ms, merchant_id="m-1")
        found.append((at_ms, T, payment))
        if day % 4 == 0 and day + DELAY_DAYS < told_days:
            told_ms = at_ms + DELAY_DAYS * DAY_MS + 1
            found.append((told_ms, L, label(f"t-{day}", customer=customer, at_ms=told_ms)))
    return sorted(found, key=lambda each: each[0])


def stream_of(
    models: Models,
    patience_s: float = 3600.0,
    chunk_records: int = 2000,
    labels_held: int = 20_000,
    partitions: int = 1,
) -> Stream:
    # Patience without end: whoever waits for what does not come fails by the test's own limit.
    return Stream(
        models,
        partitions,
        score_features=True,
        label_patience_s=patience_s,
        chunk_records=chunk_records,
        labels_held=labels_held,
        misplaced=partitions > 1,
    )


def put(stream: Stream, at_ms: int, topic: str, message: dict[str, Any], published_ms: int) -> None:
    stream.kafka.put(topic, 0, message, message["customer_id"].encode(), timestamp=published_ms)


async def as_it_came(models: Models) -> Stream:
    stream = stream_of(models)
    await stream.start()
    for at_ms, topic, message in happened():
        put(stream, at_ms, topic, message, at_ms)
        await stream.run()
    return stream


async def state(stream: Stream) -> Any:
    """What histories keep of labels, and all tiles; the same whatever was packed when."""
    labels = {}
    for customer in CUSTOMERS:
        found = await stream.store.read(customer)
        assert found is not None
        records = retained(decode(found.history).records)
        labels[customer] = records[records["kind"] == LABEL_KIND].tobytes()
    (tiles,) = stream.store.tiles().values()
    newest = max(row[0] for rows in tiles.values() for row in rows)
    oldest = newest - kept_tiles([f for f in ENTITY_FEATURES if f.entity == "merchant"])[0]
    # Transactions that no window reaches are let go when tiles are put together, whenever that is.
    return labels, {key: [r for r in rows if r[1] or r[0] >= oldest] for key, rows in tiles.items()}


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_backlog_of_months_ends_with_the_labels_and_frauds_that_a_worker_counted_as_they_came(
    entity_models: Models, size: int
) -> None:
    live = await as_it_came(entity_models)
    late = stream_of(entity_models)
    for at_ms, topic, message in happened():
        put(late, at_ms, topic, message, at_ms)
    await late.start()
    async with asyncio.timeout(60):
        await late.run_side_by_side(T, L, sizes=[size] * 1000)
    assert not late.worker.failed.done()
    assert late.dead == live.dead == []
    frauds = late.observer.outcomes["labelled"]
    assert frauds == live.observer.outcomes["labelled"] == len(late.kafka.logs[L, 0]) == DAYS // 4
    assert await state(late) == await state(live)
    # And what was scored on the way knew of them, but for those of its own day.
    name = "merchant_fraud_count_365d"
    (as_it_was, now) = (
        {m["transaction_id"]: m["features"][name] for m in s.kafka.messages(FRAUD_SCORES.name)}
        for s in (live, late)
    )
    assert now.keys() == as_it_was.keys()
    assert all(as_it_was[t] - 1 <= now[t] <= as_it_was[t] for t in now)
    assert now[f"t-{DAYS - 1}"] > 50


async def test_labels_that_were_published_behind_all_transactions_come_behind_them(
    entity_models: Models,
) -> None:
    stream = stream_of(entity_models)
    for at_ms, topic, message in happened():
        put(stream, at_ms, topic, message, START_MS + (DAYS + DELAY_DAYS) * DAY_MS + (topic == L))
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    scored = [m["features"]["merchant_fraud_count_365d"] for m in stream.kafka.messages(FRAUD_SCORES.name)]
    assert len(scored) == DAYS
    assert set(scored) == {0}
    assert stream.observer.outcomes["labelled"] + len(stream.dead) == DAYS // 4
    assert set(stream.reasons) == {"unknown_transaction"}


async def test_labels_published_with_times_of_their_own_still_wait_for_what_they_are_about(
    entity_models: Models,
) -> None:
    """Transactions carry the time at which the log was filled, labels that at which they were told."""
    filled_ms = START_MS + DAYS * DAY_MS
    stream = stream_of(entity_models)
    for at_ms, topic, message in happened():
        put(stream, at_ms, topic, message, at_ms if topic == L else filled_ms)
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.dead == []
    assert stream.observer.outcomes["labelled"] == DAYS // 4


async def test_a_label_whose_transaction_comes_later_in_the_log_is_left_for_its_turn_and_not_refused(
    entity_models: Models,
) -> None:
    """An export: labels first, then the payments of one customer after those of another."""
    stream = stream_of(entity_models)
    days = 100
    for customer in reversed(CUSTOMERS):
        for day in range(0, days, 4):
            told_ms = START_MS + (day + DELAY_DAYS) * DAY_MS
            message = label(f"t-{customer}-{day}", customer=customer, at_ms=told_ms)
            put(stream, told_ms, L, message, START_MS + 200 * DAY_MS)
    for customer in CUSTOMERS:
        for day in range(days):
            message = transaction(day, customer=customer, event_time=START_MS + day * DAY_MS)
            message["transaction_id"] = f"t-{customer}-{day}"
            put(stream, 0, T, message, START_MS + 201 * DAY_MS)
    labels = len(stream.kafka.logs[L, 0])
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.dead == []
    assert stream.observer.outcomes["labelled"] == labels
    ahead = [commit for _, commit in stream.store.applied if commit.source == AHEAD]
    # Of the customer whose payments come first, behind labels of whom nothing was there.
    assert ahead
    assert [c.next_offset for c in ahead] == list(range(1, len(ahead) + 1))


@pytest.mark.parametrize("told_ms", [0, START_MS + 30 * DAY_MS])
async def test_verify_finds_no_difference_in_a_backlog_and_behind_it(
    entity_models: Models, told_ms: int
) -> None:
    """Labels first, behind one of nothing; told at the same moment, too, so that they stand as they came."""
    stream, first_ms = stream_of(entity_models), START_MS + 200 * DAY_MS
    put(stream, 0, L, label("nobody-knows", customer="c-1", at_ms=START_MS), first_ms)
    for day in (44, 40, 20, 24):
        at_ms = told_ms or START_MS + (day + DELAY_DAYS) * DAY_MS
        put(stream, 0, L, label(f"t-{day}", customer="c-1", at_ms=at_ms), first_ms)
    for day in range(100):
        message = transaction(day, event_time=START_MS + day * DAY_MS)
        put(stream, 0, T, message, first_ms + (1 + day) * DAY_MS)
    in_turn, seen = asyncio.Event(), list[int]()
    process = LabelProcessor.process

    async def looked_at(self: LabelProcessor, partition: Partition, chunk: Chunk) -> None:
        if not in_turn.is_set():
            in_turn.set()
            tally, rebuild = verified(stream, entity_models, size=7)
            await histories(stream, rebuild)
            seen.append(tally.differences)
            assert stream.store.next_offset(L) == 0
            assert stream.observer.outcomes["labelled"] > 0
        await process(self, partition, chunk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelProcessor, "process", looked_at)
        await stream.start()
        async with asyncio.timeout(60):
            await stream.run_side_by_side(T, L)
    tally, rebuild = verified(stream, entity_models, size=7)
    await histories(stream, rebuild)
    assert tally.first is None
    assert [*seen, tally.differences] == [0, 0]
    assert stream.reasons == ["unknown_transaction"]


async def chargebacks(stream: Stream) -> None:
    """A payment a day, and on one day the labels of a hundred days before it."""
    for day in range(DAYS):
        at_ms = START_MS + day * DAY_MS
        put(stream, at_ms, T, transaction(day, event_time=at_ms), at_ms)
        if day == 100:
            for about in range(day):
                put(stream, at_ms, L, label(f"t-{about}", customer="c-1", at_ms=at_ms + 1), at_ms + 1)
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.dead == []


async def test_more_labels_than_may_wait_are_fetched_while_they_are_put_in(entity_models: Models) -> None:
    """In chunks of which two fit."""
    stream = stream_of(entity_models, chunk_records=8, labels_held=16)
    await chargebacks(stream)
    assert stream.observer.outcomes["labelled"] == 100


async def test_many_labels_of_one_day_are_put_in_in_several_steps(
    entity_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_AT_ONCE", 30)
    stream = stream_of(entity_models)
    await chargebacks(stream)
    assert [c.next_offset for _, c in stream.store.applied if c.source == L] == [30, 60, 90, 100]


async def test_labels_are_put_in_once_a_day_of_event_time(entity_models: Models) -> None:
    stream, days, hours = stream_of(entity_models), 10, 24
    for hour in range(days * hours):
        at_ms = START_MS + hour * DAY_MS // hours
        put(stream, at_ms, T, transaction(hour, event_time=at_ms), at_ms)
        put(stream, at_ms, L, label(f"t-{hour}", customer="c-1", at_ms=at_ms + 1), at_ms + 1)
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L, sizes=[1] * 1000)
    assert stream.observer.outcomes["labelled"] == days * hours
    commits = [commit for _, commit in stream.store.applied if commit.source == L]
    # What is left behind the last day may come in pieces.
    assert len(commits) < days + hours


async def test_a_label_of_nothing_is_refused_once_and_holds_up_none_behind_it(entity_models: Models) -> None:
    """Where producers' clocks are ahead of the broker's, too, so that it seems older than what it follows."""
    stream, ahead_ms = stream_of(entity_models), 1000 * DAY_MS
    for at_ms, topic, message in happened(told_days=DAYS // 2):
        put(stream, at_ms, topic, message, at_ms + ahead_ms)
        if topic == T and message["transaction_id"] == "t-20":
            for wrong in (label("nobody-knows", customer="c-1", at_ms=at_ms), {"label": "fraud"}):
                stream.kafka.put(L, 0, wrong, b"c-1", timestamp=at_ms + ahead_ms)
    labels = len(stream.kafka.logs[L, 0]) - 2
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert sorted(stream.reasons) == ["invalid_field", "unknown_transaction"]
    assert stream.observer.outcomes["labelled"] == labels
    assert len(stream.kafka.logs[L, 0]) == labels + 2


async def test_a_log_of_labels_that_ends_with_what_is_no_record_is_not_waited_for(
    entity_models: Models,
) -> None:
    stream = stream_of(entity_models)
    for at_ms, topic, message in happened(told_days=DAYS // 2):
        put(stream, at_ms, topic, message, at_ms)
    labels = len(stream.kafka.logs[L, 0])
    stream.kafka.logs[L, 0].append(None)
    await stream.start()
    stream.consumer.end = lambda topic, partition: len(stream.kafka.logs[topic, partition]) - (topic == L)  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.dead == []
    assert stream.observer.outcomes["labelled"] == labels


async def test_ends_of_transactions_between_labels_are_asked_about_seldom(
    entity_models: Models,
) -> None:
    live, stream, asked = await as_it_came(entity_models), stream_of(entity_models), 0
    for at_ms, topic, message in happened():
        put(stream, at_ms, topic, message, at_ms)
        if topic == L:
            stream.kafka.logs[L, 0].append(None)
    stream.kafka.logs[L, 0].pop()
    await stream.start()
    bounds = stream.consumer.bounds

    async def counted(partitions: Any) -> Any:
        nonlocal asked
        asked += (L, 0) in partitions
        return await bounds(partitions)

    stream.consumer.bounds = counted  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.dead == []
    assert await state(stream) == await state(live)
    # Far fewer than there are days.
    assert asked < 20


async def test_labels_that_retention_let_go_before_their_turn_are_never_gone_past(
    entity_models: Models,
) -> None:
    stream = stream_of(entity_models)
    for at_ms, topic, message in happened():
        put(stream, at_ms, topic, message, at_ms)
    await stream.start()
    for offset in range(5, 9):
        stream.kafka.logs[L, 0][offset] = None
    stream.kafka.starts[L, 0] = 9
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert isinstance(stream.worker.failed.result(), HistoryError)
    assert stream.store.next_offset(L) <= 5


async def test_labels_that_were_fetched_before_a_seek_are_gone_past(entity_models: Models) -> None:
    """As many as fill the lane, too."""
    stream = stream_of(entity_models, chunk_records=10, labels_held=10)
    for at_ms, topic, message in happened():
        put(stream, at_ms, topic, message, at_ms)
    await stream.start()
    records = [r for r in stream.kafka.logs[L, 0] if r is not None]
    for first in (50, 60):
        stale = Chunk(L, 0, records[first : first + 10], first, stream.consumer.seeks(L, 0) - 1)
        stream.worker.submit(stale)
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.dead == []
    assert stream.observer.outcomes["labelled"] == DAYS // 4


async def test_labels_that_the_log_names_and_never_gives_hold_nothing_up_for_long(
    entity_models: Models,
) -> None:
    stream = stream_of(entity_models, patience_s=0.05)
    for at_ms, topic, message in happened():
        put(stream, at_ms, topic, message, at_ms)
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T)
    assert len(stream.scored) == DAYS
    assert not stream.worker.failed.done()
    # Later they come after all.
    await stream.run_side_by_side(T, L)
    assert stream.observer.outcomes["labelled"] > 0
    assert stream.observer.outcomes["labelled"] + len(stream.kafka.messages(DEAD_LETTERS.name)) == DAYS // 4


async def test_more_labels_than_are_held_behind_one_of_nothing_come_in_their_turn(
    entity_models: Models,
) -> None:
    stream = stream_of(entity_models, chunk_records=4, labels_held=8)
    stream.kafka.put(L, 0, label("nobody-knows", customer="c-1", at_ms=START_MS), b"c-1", timestamp=START_MS)
    for at_ms, topic, message in happened(told_days=DAYS - 1):
        put(stream, at_ms, topic, message, at_ms)
    labels = len(stream.kafka.logs[L, 0])
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.observer.outcomes["labelled"] + len(stream.dead) == labels
    assert set(stream.reasons) == {"unknown_transaction"}
    # A label of nothing, and those that were not held and whose transactions have left the history.
    assert 1 < len(stream.dead) < labels - 8


async def test_a_label_told_of_a_time_to_come_holds_up_none_behind_it(entity_models: Models) -> None:
    stream = stream_of(entity_models)
    for at_ms, topic, message in happened(told_days=DAYS // 2):
        if topic == L and message["transaction_id"] == "t-20":
            message["label_time"] = at_ms + 3000 * DAY_MS
        put(stream, at_ms, topic, message, at_ms)
    labels = len(stream.kafka.logs[L, 0])
    await stream.start()
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
    assert stream.reasons == ["event_from_the_future"]
    assert stream.observer.outcomes["labelled"] == labels - 1


async def test_what_is_misplaced_or_of_an_erased_customer_is_decided_in_its_turn(
    entity_models: Models,
) -> None:
    """Labels first, in a partition in which not every customer belongs; one came back after an erasure."""
    stream = stream_of(entity_models, partitions=2)
    at_ms = START_MS + 100 * DAY_MS
    customers = [f"c-{number}" for number in range(6)]
    stream.kafka.put(
        ERASURES.name,
        partition_for("c-0", 2),
        {"erasure_id": "e-1", "customer_id": "c-0", "requested_at": START_MS - DAY_MS},
        b"c-0",
    )
    for customer in customers:
        put(stream, 0, L, label(f"t-{customer}", customer=customer, at_ms=START_MS), at_ms)
    for customer in customers:
        message = transaction(0, customer=customer) | {"transaction_id": f"t-{customer}"}
        put(stream, 0, T, message, at_ms + DAY_MS)
        put(
            stream,
            0,
            T,
            transaction(9, customer=customer) | {"transaction_id": f"x-{customer}"},
            at_ms + DAY_MS,
        )
    await stream.start()
    await stream.run([], [ERASURES.name])
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T, L)
        await stream.run()
    assert stream.dead == []
    assert stream.observer.outcomes["labelled"] == len(customers)
    for number in range(2):
        there = {c for c in customers if (await stream.store.load(number, [c]))[0] is not None}
        assert there == {c for c in customers if partition_for(c, 2) == number}


@pytest.mark.parametrize("scores", range(3 * DAYS - 18, 3 * DAYS, 3))
async def test_what_was_published_before_a_crash_is_scored_again_as_it_was(
    entity_models: Models, scores: int
) -> None:
    """Three payments a day, between which labels come; behind a crash each is a chunk of its own."""
    stream, hour_ms, dead = stream_of(entity_models), DAY_MS // 24, False
    log = happened()
    for at_ms, _, message in [entry for entry in log if entry[1] == T]:
        for hours in (8, 16):
            again = {
                "transaction_id": f"{message['transaction_id']}-{hours}",
                "event_time": at_ms + hours * hour_ms,
            }
            log.append((at_ms + hours * hour_ms, T, message | again))
    for at_ms, topic, message in sorted(log, key=lambda entry: entry[0]):
        put(stream, at_ms, topic, message, at_ms)

    def die(reached: str) -> None:
        nonlocal dead
        if not dead and reached == "after-publish":
            dead = len(stream.kafka.messages(FRAUD_SCORES.name)) >= scores
            if dead:
                raise Crash

    stream.crash = die
    await stream.start()
    async with asyncio.timeout(60):
        with suppress(Crash):
            await stream.run_side_by_side(T, L)
        stream.chunk_records = 1
        await stream.start()
        await stream.run_side_by_side(T, L, sizes=[1] * 3000)
    known = {m["transaction_id"]: m for m in stream.kafka.messages(FRAUD_SCORES.name)}
    assert len(known) == len(stream.kafka.messages(FRAUD_SCORES.name)) == 3 * DAYS
    for customer in CUSTOMERS:
        found = await stream.store.read(customer)
        assert found is not None
        for kept in map(json.loads, found.scores):
            assert kept["features"] == known[kept["transaction_id"]]["features"]


@settings(max_examples=15, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 60), max_size=20),
    st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 200)), min_size=1, max_size=5),
)
def test_crashes_in_a_backlog_change_nothing_of_it(
    entity_models: Models, sizes: list[int], crashes: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        live, late = await as_it_came(entity_models), stream_of(entity_models)
        left, dead = [list(crash) for crash in crashes], False

        def die(reached: str) -> None:
            nonlocal dead
            if not dead and left and reached == left[0][0]:
                left[0][1] -= 1
                dead = left[0][1] <= 0
            if dead:
                raise Crash

        late.crash = die
        for at_ms, topic, message in happened():
            put(late, at_ms, topic, message, at_ms)
        async with asyncio.timeout(120):
            for _ in range(len(crashes) + 1):
                dead = False
                await late.start()
                with suppress(Crash):
                    await late.run_side_by_side(T, L, sizes=sizes)
                    break
                left.pop(0)
        assert not late.worker.failed.done()
        assert late.dead == []
        assert await state(late) == await state(live)
        scores = {dump(m) for m in late.kafka.messages(FRAUD_SCORES.name)}
        assert len(scores) == DAYS

    asyncio.run(run())
