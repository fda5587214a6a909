from collections.abc import Callable
from dataclasses import replace

import pytest

from features.codec import decode
from models.anomaly import AnomalyModel
from models.model_set import Models
from models.registry import ModelRegistry
from models.tree import TreeModel
from schemas.errors import DependencyError
from schemas.topics import ALERTS, CHURN_SCORES, DEAD_LETTERS, FRAUD_SCORES, TRANSACTIONS
from tests.streaming import PUBLISHED_MS, Crash, Stream, transaction

T = TRANSACTIONS.name
CRASH_POINTS = ("before-publish", "after-publish", "before-commit", "after-commit")


def crash_at(point: str, time: int = 1) -> Callable[[str], None]:
    """The process dies when it reaches a point for so many times."""
    left = [time]

    def crash(reached: str) -> None:
        left[0] -= reached == point
        if left[0] == 0:
            raise Crash

    return crash


async def test_each_transaction_has_one_score_in_the_order_of_the_log(stream: Stream) -> None:
    sent = stream.transact(40)
    await stream.start()
    await stream.run([7, 13])

    scores = stream.kafka.messages(FRAUD_SCORES.name)
    assert [s["transaction_id"] for s in scores] == [t["transaction_id"] for t in sent]
    assert [s["source"]["offset"] for s in scores] == list(range(40))
    assert stream.dead == []


async def test_state_counts_what_was_accepted(stream: Stream) -> None:
    stream.transact(40, customers=3)
    await stream.start()
    await stream.run([11])

    for customer in range(3):
        state = await stream.store.read(f"c-{customer}")
        assert state is not None
        history = decode(state.history)
        mine = [n for n in range(40) if n % 3 == customer]
        assert history.totals.count == len(mine) == len(history.records)
        assert history.totals.debit_minor == sum((10 + n % 90) * 100 + 50 for n in mine)


async def test_newest_scores_are_kept_for_lookups(stream: Stream) -> None:
    stream.transact(15, customers=1)
    await stream.start()
    await stream.run([4])

    state = await stream.store.read("c-0")
    assert state is not None
    kept = [b.decode() for b in state.scores]
    assert len(kept) == 10
    assert all(f'"t-{n}"' in text for n, text in zip(range(5, 15), kept, strict=True))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "not_json"),
        (b'["a list"]', "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"", "empty"),
        (None, "empty"),
        (b"\xff\xfe{}", "invalid_encoding"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "not_json"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "too_large"),
        (transaction(1, amount=0), "amount_not_positive"),
        (transaction(1, amount=-1), "amount_not_positive"),
        (
            b'{"transaction_id":"a","customer_id":"c","event_time":1767225600000,"amount":NaN,"currency":"EUR"}',
            None,
        ),
        (
            b'{"transaction_id":"a","customer_id":"c","event_time":1767225600000,"amount":1e308,"currency":"EUR"}',
            None,
        ),
        (transaction(1, event_time="2026-01-01T10:00:00"), "invalid_field"),
        (transaction(1, event_time="1970-01-01T10:00:00Z"), "invalid_field"),
        (transaction(1, event_time="2100-01-01T10:00:00Z"), "invalid_field"),
        (transaction(1, event_time="2099-01-01T10:00:00Z"), "event_from_the_future"),
        (transaction(1, note="4111 1111 1111 1111"), "card_number"),
        ({"transaction_id": "a"}, "invalid_field"),
    ],
)
async def test_bad_message_is_one_dead_letter_and_its_neighbours_are_scored(
    stream: Stream, value: object, reason: str | None
) -> None:
    stream.transact(2)
    stream.kafka.put(T, 0, value)
    stream.transact(2, first=2)
    await stream.start()
    await stream.run()

    assert stream.scored == ["t-0", "t-1", "t-2", "t-3"]
    assert len(stream.dead) == 1
    letter = stream.dead[0]
    assert letter["source"] == {"topic": T, "partition": 0, "offset": 2}
    assert reason is None or letter["reason"] == reason
    assert len(letter["detail"]) > 10
    assert "4111 1111" not in str(letter)
    assert stream.observer.outcomes[f"dead:{letter['reason']}"] == 1
    assert not stream.worker.failed.done()


async def test_chunk_of_bad_messages_only_moves_the_offset(stream: Stream) -> None:
    for _ in range(3):
        stream.kafka.put(T, 0, b"?")
    await stream.start()
    await stream.run()

    assert stream.reasons == ["not_json"] * 3
    assert stream.worker.processed(T, 0) == 3


async def test_duplicate_is_a_dead_letter_and_counts_once(stream: Stream) -> None:
    stream.transact(3, customers=1)
    stream.kafka.put(T, 0, transaction(1, customer="c-0"))
    await stream.start()
    await stream.run([2])
    stream.kafka.put(T, 0, transaction(2, customer="c-0"))
    await stream.run()

    assert stream.scored == ["t-0", "t-1", "t-2"]
    assert stream.reasons == ["duplicate_transaction"] * 2
    state = await stream.store.read("c-0")
    assert state is not None
    assert decode(state.history).totals.count == 3


async def test_same_id_of_another_customer_is_another_transaction(stream: Stream) -> None:
    stream.kafka.put(T, 0, transaction(1, customer="a"))
    stream.kafka.put(T, 0, transaction(1, customer="b"))
    await stream.start()
    await stream.run()

    assert stream.scored == ["t-1", "t-1"]
    assert stream.dead == []


async def test_misplaced_message_is_forwarded_and_scored_once_where_it_belongs(models: Models) -> None:
    stream = Stream(models, partitions=4, misplaced=True)
    for n in range(8):
        stream.kafka.put(T, 0, transaction(n, customer=f"customer-{n}"), None, timestamp=PUBLISHED_MS + n)
    await stream.start()
    await stream.run()

    assert sorted(stream.scored) == [f"t-{n}" for n in range(8)]
    assert stream.dead == []
    published = {r.value: r.timestamp for r in stream.kafka.logs[T, 0] if r is not None}
    for p in (1, 2, 3):
        assert all(r.timestamp == published[r.value] for r in stream.kafka.logs[T, p] if r is not None)
    forwarded = stream.observer.outcomes["forwarded"]
    assert forwarded == sum(len(stream.kafka.logs[T, p]) for p in (1, 2, 3)) > 0
    for p in range(4):
        for score in stream.kafka.messages(FRAUD_SCORES.name, p):
            assert score["source"]["partition"] == p
    keys = {r.key for p in (1, 2, 3) for r in stream.kafka.logs[T, p] if r is not None}
    assert all(key is not None and key.startswith(b"customer-") for key in keys)


@pytest.mark.parametrize("point", CRASH_POINTS)
@pytest.mark.parametrize("time", [1, 2, 4])
async def test_crash_repeats_the_same_messages_and_leaves_the_same_state(
    models: Models, point: str, time: int
) -> None:
    calm, broken = Stream(models), Stream(models)
    for stream in (calm, broken):
        stream.transact(30)
        stream.kafka.put(T, 0, b"?")
        stream.kafka.put(T, 0, transaction(3, customer="c-0"))
    await calm.start()
    await calm.run([12])
    broken.crash = crash_at(point, time)
    await broken.start()
    with pytest.raises(Crash):
        await broken.run([10, 12])
    broken.crash = lambda reached: None
    await broken.start()
    await broken.run([5, 3])

    assert broken.store.state() == calm.store.state()
    assert broken.kafka.messages(FRAUD_SCORES.name) == calm.kafka.messages(FRAUD_SCORES.name)
    for topic in (DEAD_LETTERS, ALERTS, CHURN_SCORES):
        repeated, once = (s.kafka.messages(topic.name) for s in (broken, calm))
        assert [m for i, m in enumerate(repeated) if m not in repeated[:i]] == once


async def test_what_is_unusual_and_allowed_is_alerted_however_often_the_process_dies(
    models: Models, registry: ModelRegistry
) -> None:
    card, tails = registry._read("anomaly", "v1")
    easily = AnomalyModel(replace(card, thresholds={"alert": 0.6}), tails, models.engine.names)
    calm = replace(models.fraud.card, thresholds={"review": 2.0, "block": 3.0})
    fraud = TreeModel(calm, models.fraud.trees, models.engine.names)
    stream = Stream(replace(models, fraud=fraud, anomaly=easily))
    stream.transact(30, customers=2)
    stream.crash = crash_at("after-publish")
    await stream.start()
    with pytest.raises(Crash):
        await stream.run()
    stream.crash = lambda point: None
    await stream.start()
    await stream.run([4, 9])

    scores = stream.kafka.messages(FRAUD_SCORES.name)
    assert [s["transaction_id"] for s in scores] == [f"t-{number}" for number in range(30)]
    unusual = [s["transaction_id"] for s in scores if s["anomaly"]["score"] >= 0.6]
    assert 0 < len(unusual) < 30
    alerts = [a for a in stream.kafka.messages(ALERTS.name) if a["kind"] == "anomaly"]
    assert {a["alert_id"] for a in alerts} == {f"anomaly:{name}" for name in unusual}
    assert {a["model"]["version"] for a in alerts} == {"v1"}


async def test_publishing_comes_before_the_commit(stream: Stream) -> None:
    order: list[str] = []
    stream.transact(1)
    await stream.start()
    stream.crash = order.append
    stream.publisher.before = lambda: order.append("publish")
    await stream.run()

    # Which models these are is part of the state before anything is published with them.
    assert order[:2] == ["before-models", "after-models"]
    assert order[2:7] == ["before-publish", "publish", "after-publish", "before-commit", "after-commit"]


async def test_a_failed_publish_commits_nothing_until_it_succeeds(stream: Stream) -> None:
    stream.transact(4)
    stream.publisher.failures = [(2, DependencyError("gone")), (0, DependencyError("gone"))]
    await stream.start()
    await stream.run([4])

    # The first day ends behind the first event: its part was repeated, and only that.
    assert stream.scored[-4:] == ["t-0", "t-1", "t-2", "t-3"]
    assert set(stream.scored) == {"t-0", "t-1", "t-2", "t-3"}
    assert stream.observer.retries["kafka"] == 2
    assert stream.worker.processed(T, 0) == 4


async def test_scores_already_published_are_not_published_again(stream: Stream) -> None:
    stream.transact(20)

    stream.crash = crash_at("before-commit", 3)
    await stream.start()
    with pytest.raises(Crash):
        await stream.run([20])
    before = len(stream.scored)
    stream.crash = lambda reached: None
    await stream.start()
    await stream.run()

    assert 1 < before < 20
    assert stream.scored == [f"t-{n}" for n in range(20)]
    state = await stream.store.read("c-0")
    assert state is not None
    assert decode(state.history).totals.count == 7


async def test_without_the_tail_repeats_are_identical(stream: Stream) -> None:
    stream.tail = False
    stream.transact(20)
    stream.crash = crash_at("after-publish", 2)
    await stream.start()
    with pytest.raises(Crash):
        await stream.run([20])
    stream.crash = lambda reached: None
    await stream.start()
    await stream.run()

    scores = stream.kafka.messages(FRAUD_SCORES.name)
    by_id = {s["transaction_id"]: s for s in scores}
    assert len(scores) > 20
    assert len(by_id) == 20
    assert all(s == by_id[s["transaction_id"]] for s in scores)


async def test_scores_of_another_log_do_not_silence_this_one(stream: Stream) -> None:
    stream.transact(3)
    stream.kafka.put(FRAUD_SCORES.name, 0, {"source": {"topic": T, "partition": 0, "offset": 5000}})
    await stream.start()
    await stream.run()

    assert stream.kafka.messages(FRAUD_SCORES.name)[1:][0]["transaction_id"] == "t-0"
    assert len(stream.kafka.messages(FRAUD_SCORES.name)) == 4


async def test_late_event_is_scored_and_counted(stream: Stream) -> None:
    stream.kafka.put(T, 0, transaction(40))
    stream.kafka.put(T, 0, transaction(1))
    await stream.start()
    await stream.run()

    assert stream.observer.outcomes["late"] == 1
    assert stream.kafka.messages(FRAUD_SCORES.name)[1]["flags"] == ["late", "cold_start"]


def corrections(stream: Stream) -> None:
    """Eight transactions of one customer; four come again, three of them corrected."""
    stream.transact(8, customers=1)
    for number, revision, fields in (
        (2, 1, {"amount": "500.00"}),
        (5, 2, {"amount": "7.00", "direction": "credit"}),
        (2, 1, {"amount": "9999.00"}),
        (5, 1, {"amount": "9999.00"}),
        (6, 3, {"event_time": transaction(1)["event_time"] + 1}),
    ):
        stream.kafka.put(T, 0, transaction(number, customer="c-0", revision=revision) | fields)
    stream.transact(2, customers=1, first=8)


async def test_corrections_are_scored_and_flagged_and_older_ones_are_duplicates(stream: Stream) -> None:
    corrections(stream)
    await stream.start()
    await stream.run([3, 4])

    scores = stream.kafka.messages(FRAUD_SCORES.name)
    corrected = [(s["transaction_id"], s["flags"]) for s in scores if "corrected" in s["flags"]]
    assert corrected == [
        ("t-2", ["late", "corrected"]),
        ("t-5", ["late", "corrected"]),
        ("t-6", ["late", "corrected"]),
    ]
    assert [letter["reason"] for letter in stream.dead] == ["duplicate_transaction"] * 2
    assert [letter["source"]["offset"] for letter in stream.dead] == [10, 11]


@pytest.mark.parametrize("time", [1, 2, 3])
@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_corrections_count_once_whenever_the_process_dies(
    stream: Stream, point: str, time: int
) -> None:
    corrections(stream)
    stream.crash = crash_at(point, time)
    await stream.start()
    with pytest.raises(Crash):
        await stream.run([9, 2])
    stream.crash = lambda reached: None
    await stream.start()
    await stream.run([1, 1])

    state = await stream.store.read("c-0")
    assert state is not None
    history = decode(state.history)
    cents = [(10 + n % 90) * 100 + 50 for n in range(10)]
    debits = sum(cents) - cents[2] + 50_000 - cents[5]
    totals = history.totals
    assert (totals.count, totals.debit_minor, totals.credit_minor) == (10, debits, 700)
    seen = history.records[history.records["kind"] == 0]
    assert len(seen) == 10
    assert sorted(seen["revision"].tolist()) == [0] * 7 + [1, 2, 3]
    # t-6 was moved behind t-1.
    assert seen["revision"].tolist()[2] == 3
