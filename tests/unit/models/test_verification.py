"""A worker in memory is run, and what it wrote is verified; then something is changed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.arena import HistoryArena
from features.codec import History, decode, encode
from features.engine import ChunkFeatures
from features.labels import put_labels
from features.record import LABEL_KIND, label_record, to_records
from models.model_set import Models
from models.replay import replay_chunks
from models.verification import PartitionRebuild, Published, Tally, read_score, retained
from schemas.label import Label
from schemas.parse import parse_message
from schemas.topics import FRAUD_SCORES, LABELS, TRANSACTIONS
from schemas.transaction import Transaction
from tests.scoring import arena_of
from tests.streaming import DAY_MS, START_MS, Kafka, Stream, label, transaction

T, L = TRANSACTIONS.name, LABELS.name


@pytest.fixture
async def stream(models: Models) -> Stream:
    """Sixty transactions of three customers, some twice, some bad, with labels among them."""
    stream = Stream(models)
    stream.transact(30)
    stream.kafka.put(T, 0, b"not json")
    stream.transact(1, first=4)
    stream.transact(29, first=30)
    await stream.start()
    await stream.run([7, 11, 5], topics=[T])
    for number in (1, 1, 4, 99, 7):
        stream.kafka.put(L, 0, label(f"t-{number}", customer="c-1", at_ms=START_MS + 5 * DAY_MS))
    stream.kafka.put(L, 0, b"bad")
    await stream.run()
    stream.transact(12, first=59)
    await stream.run()
    return stream


def verified(
    stream: Stream,
    models: Models,
    *,
    change: Callable[[Published], Published | None] = lambda score: score,
    scored_from: int = 0,
    complete: bool = True,
    size: int = 13,
) -> tuple[Tally, PartitionRebuild]:
    tally = Tally()
    known: dict[str, Any] = {models.fraud.card.version: models.fraud}
    unusual = {models.anomaly.card.version: models.anomaly} if models.anomaly else {}
    rebuild = PartitionRebuild(
        0,
        models.engine,
        known.get,
        lambda customer: True,
        log_complete=complete,
        tally=tally,
        anomaly_of=unusual.get,
    )
    rebuild.add_labels([r for r in stream.kafka.logs[L, 0] if r is not None])
    scores: dict[int, list[Published]] = {}
    for record in stream.kafka.logs[FRAUD_SCORES.name, 0]:
        assert record is not None
        score = read_score(record.value, T, 0)
        assert score is not None
        if (changed := change(score)) is not None:
            scores.setdefault(score.offset, []).append(changed)
    log = [r for r in stream.kafka.logs[T, 0] if r is not None]
    for start in range(0, len(log), size):
        chunk = log[start : start + size]
        mine = {r.offset: scores[r.offset] for r in chunk if r.offset in scores}
        rebuild.add_transactions(chunk, mine, scored_from=scored_from)
    rebuild.put_labels(len(stream.kafka.logs[L, 0]))
    return tally, rebuild


async def histories(stream: Stream, rebuild: PartitionRebuild, **stored: bytes) -> None:
    for customer_id in rebuild.customers():
        state = await stream.store.read(customer_id)
        assert state is not None
        history = stored.get(customer_id.replace("-", "_"), state.history)
        rebuild.compare_history(customer_id, history, state.churn)


@pytest.mark.parametrize("size", [1, 13, 1000])
async def test_what_a_worker_wrote_is_equal_however_it_is_read(
    stream: Stream, models: Models, size: int
) -> None:
    tally, rebuild = verified(stream, models, size=size)
    await histories(stream, rebuild)
    assert tally.first is None
    assert (tally.differences, tally.not_compared) == (0, {})
    assert tally.scores == tally.transactions == len(stream.scored) == 71
    assert tally.histories == 3


@pytest.mark.parametrize("size", [1, 4, 1000])
async def test_corrections_are_rebuilt_as_the_worker_took_them(models: Models, size: int) -> None:
    stream = Stream(models)
    stream.transact(20)
    for number, revision in ((3, 1), (7, 1), (3, 2), (3, 1)):
        moved = transaction(number + 1)["event_time"] + revision
        customer = f"c-{number % 3}"
        stream.kafka.put(T, 0, transaction(number, customer=customer, revision=revision, event_time=moved))
    stream.kafka.put(L, 0, label("t-3", customer="c-0", at_ms=START_MS + 5 * DAY_MS))
    stream.transact(10, first=20)
    await stream.start()
    await stream.run([7, 11, 5], topics=[T])
    await stream.run()
    tally, rebuild = verified(stream, models, size=size)
    await histories(stream, rebuild)
    assert tally.first is None
    assert (tally.scores, tally.histories, tally.differences) == (33, 3, 0)


async def test_a_score_off_by_one_bit_is_the_first_difference(stream: Stream, models: Models) -> None:
    def flip(score: Published) -> Published:
        if score.transaction_id != "t-20":
            return score
        return Published(score.offset, "t-20", score.version, float(np.nextafter(score.score, 1)))

    tally, rebuild = verified(stream, models, change=flip)
    # What follows is not compared with the wrong score's history but with the log's.
    await histories(stream, rebuild)
    assert tally.differences == 1
    first = tally.first
    assert first is not None
    assert (first.kind, first.customer_id, first.offset) == ("score", "c-2", 20)
    found, rebuilt = first.values["score"]
    assert found == np.nextafter(rebuilt, 1)
    assert [record["amount_minor"] for record in first.history] == [
        100 * (10 + n % 90) + 50 for n in range(2, 20, 3)
    ]


async def test_an_anomaly_score_that_is_another_is_found_and_of_a_model_that_is_gone_not_compared(
    stream: Stream, models: Models
) -> None:
    def change(score: Published) -> Published:
        assert score.anomaly is not None
        said = {"t-20": ("v1", score.anomaly[1] / 2 + 0.25), "t-21": ("v7", 0.5)}
        return replace(score, anomaly=said.get(score.transaction_id, score.anomaly))

    tally, _ = verified(stream, models, change=change)
    assert (tally.differences, tally.scores) == (1, 71)
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset, tally.first.values.keys()) == ("score", 20, {"anomaly"})
    assert tally.not_compared == {"anomaly model v7 not here": 1}


async def test_no_number_of_labels_explains_a_wrong_score_and_all_else_stays_equal(
    stream: Stream, models: Models
) -> None:
    def wrong(score: Published) -> Published:
        if score.transaction_id != "t-10":
            return score
        return Published(score.offset, "t-10", score.version, score.score / 3)

    tally, rebuild = verified(stream, models, change=wrong)
    await histories(stream, rebuild)
    assert (tally.differences, tally.histories) == (1, 3)
    assert tally.first is not None
    assert (tally.first.customer_id, tally.first.values.keys()) == ("c-1", {"score"})


class _CountsLabels:
    """The engine, but its first feature is the number of labels in the history: labels must be in place."""

    def __init__(self, models: Models) -> None:
        self._engine = models.engine
        self.names = models.engine.names
        self.entities = ()

    def compute_chunk(self, arena: HistoryArena, events: Any, slots: Any) -> ChunkFeatures:
        features = self._engine.compute_chunk(arena, events, slots)
        for row, slot in enumerate(slots):
            features.X[row, 0] = (arena.records(slot)["kind"] == LABEL_KIND).sum()
        return features


def test_a_score_that_needed_a_label_says_where_it_was_put_in(models: Models) -> None:
    engine: Any = _CountsLabels(models)
    kafka = Kafka()
    for number in range(12):
        kafka.put(T, 0, transaction(number))
    for number in (0, 2, 77, 5):
        kafka.put(L, 0, label(f"t-{number}", customer="c-1", at_ms=START_MS + number))
    log = [r for r in kafka.logs[T, 0] if r is not None]
    # What a worker did that put them in behind these offsets; the label of nothing in between is refused.
    put_in = {3: 1, 6: 1, 9: 2}
    arena, scores = arena_of("c-1"), {}
    sent = [parse_message(Transaction, r.value) for r in log]
    waiting = [parse_message(Label, r.value) for r in kafka.logs[L, 0] if r is not None]
    slots = np.array([arena.slot("c-1")])
    for record, message in zip(log, sent, strict=True):
        X = engine.compute_chunk(arena, to_records([message], [message.amount_minor]), slots).X[0]
        vector = dict(zip(engine.names, X.tolist(), strict=True))
        scores[record.offset] = [Published(record.offset, message.transaction_id, "gone", 0.5, vector)]
        for _ in range(put_in.get(record.offset, 0)):
            put_labels(arena, slots, label_record(waiting.pop(0)))
    tally = Tally()
    rebuild = PartitionRebuild(0, engine, lambda v: None, lambda c: True, log_complete=True, tally=tally)
    rebuild.add_labels([r for r in kafka.logs[L, 0] if r is not None])
    rebuild.add_transactions(log, scores, scored_from=0)
    assert [scores[offset][0].features[engine.names[0]] for offset in (3, 4, 7, 11)] == [0, 1, 2, 3]  # type: ignore[index]
    assert (tally.vectors, tally.differences) == (12, 0)

    # Labels that are never taken back: fewer than before is a difference.
    tally = Tally()
    rebuild = PartitionRebuild(0, engine, lambda v: None, lambda c: True, log_complete=True, tally=tally)
    rebuild.add_labels([r for r in kafka.logs[L, 0] if r is not None])
    fewer = {**(scores[8][0].features or {}), engine.names[0]: 0.0}
    rebuild.add_transactions(log, {**scores, 8: [Published(8, "t-8", "gone", 0.5, fewer)]}, scored_from=0)
    assert tally.differences == 1
    assert tally.first is not None
    assert tally.first.values == {engine.names[0]: (0.0, 2.0)}


async def test_a_wrong_feature_is_named_with_both_values(stream: Stream, models: Models) -> None:
    offsets = [r.offset for r in stream.kafka.logs[T, 0] if r is not None and r.value != b"not json"]
    sent = [
        parse_message(Transaction, r.value)
        for r in stream.kafka.logs[T, 0]
        if r is not None and r.value != b"not json"
    ]
    X = np.concatenate([c.X for _, c in replay_chunks(sent, models.engine, HistoryArena())])
    vectors = {
        offset: dict(zip(models.engine.names, row.tolist(), strict=True))
        for offset, row in zip(offsets, X, strict=True)
    }
    name = models.engine.names[3]

    def with_features(score: Published) -> Published:
        vector = vectors[score.offset]
        if score.offset == 50:
            vector = {**vector, name: 12345.5}
        return Published(score.offset, score.transaction_id, score.version, score.score, vector)

    tally, _ = verified(stream, models, change=with_features)
    assert (tally.vectors, tally.differences) == (71, 1)
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset) == ("feature", 50)
    assert tally.first.values == {name: (12345.5, vectors[50][name])}


async def test_missing_scores_and_scores_of_nothing_are_found(stream: Stream, models: Models) -> None:
    tally, _ = verified(stream, models, change=lambda s: None if s.offset == 40 else s)
    assert tally.differences == 1
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset) == ("missing score", 40)

    bad = next(r.offset for r in stream.kafka.logs[T, 0] if r is not None and r.value == b"not json")
    log = [r for r in stream.kafka.logs[T, 0] if r is not None]
    tally, rebuild = verified(stream, models)
    rebuild.add_transactions([log[bad]], {bad: [Published(bad, "t-2", "v1", 0.5)]}, scored_from=0)
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset) == ("unexpected score", bad)


async def test_scores_let_go_by_retention_are_not_missing(stream: Stream, models: Models) -> None:
    tally, _ = verified(stream, models, change=lambda s: None if s.offset < 25 else s, scored_from=25)
    assert tally.differences == 0
    assert tally.not_compared == {"score not in the topic": 25}


async def test_a_score_published_again_must_be_the_same(stream: Stream, models: Models) -> None:
    tally, rebuild = verified(stream, models)
    score = read_score(stream.kafka.logs[FRAUD_SCORES.name, 0][5].value, T, 0)  # type: ignore[union-attr]
    assert score is not None
    rebuild.add_repeat(score)
    assert (tally.repeats, tally.differences) == (1, 0)
    rebuild.add_repeat(Published(score.offset, score.transaction_id, score.version, score.score / 2))
    assert (tally.repeats, tally.differences) == (2, 1)


async def test_a_model_that_is_not_here_is_said_and_not_a_difference(stream: Stream, models: Models) -> None:
    other = lambda s: Published(s.offset, s.transaction_id, "v77", s.score)  # noqa: E731
    tally, _ = verified(stream, models, change=other)
    assert (tally.scores, tally.differences) == (0, 0)
    assert tally.not_compared == {"model v77 or its declarations not here": 71}


async def test_a_log_whose_start_is_gone_is_compared_where_histories_are_whole(
    stream: Stream, models: Models
) -> None:
    tally, rebuild = verified(stream, models, complete=False)
    await histories(stream, rebuild)
    assert (tally.scores, tally.histories, tally.differences) == (0, 0, 0)
    assert tally.not_compared == {"log cut off": 71 + 3}


@pytest.mark.parametrize("name", ["time_ms", "amount_minor", "merchant", "kind", "revision"])
async def test_one_flipped_bit_of_a_stored_record_is_found_and_named(
    stream: Stream, models: Models, name: str
) -> None:
    state = await stream.store.read("c-1")
    assert state is not None
    healthy = decode(state.history)
    records = healthy.records.copy()
    records[name][3] ^= 1
    tally, rebuild = verified(stream, models)
    await histories(stream, rebuild, c_1=encode(History(healthy.totals, records)))
    first = tally.first
    assert tally.differences == 1
    assert first is not None
    assert (first.kind, first.customer_id) == ("history", "c-1")
    assert first.values[f"record 3 {name}"] == (int(records[name][3]), int(healthy.records[name][3]))
    assert len(first.history) == len(retained(healthy.records))


async def test_lost_unreadable_and_foreign_histories_are_found(stream: Stream, models: Models) -> None:
    _, rebuild = verified(stream, models)
    tally = rebuild._tally
    state = await stream.store.read("c-1")
    assert state is not None
    rebuild.compare_history("c-1", None, state.churn)
    rebuild.compare_history("c-1", (state.history or b"")[:-3], state.churn)
    rebuild.compare_history("c-0", state.history, state.churn)
    rebuild.compare_history("c-unheard-of", state.history, state.churn)
    assert tally.differences == 4
    # And a churn score that is not the one the header speaks of.
    rebuild.compare_history("c-1", state.history, None)
    assert tally.differences == 5


@pytest.mark.parametrize(
    "value",
    [None, b"", b"x", b"[]", b"{}", b'{"source": {"topic": "transactions", "partition": 1, "offset": 1}}'],
)
def test_what_is_no_score_of_the_partition_is_left_out(value: bytes | None) -> None:
    assert read_score(value, T, 0) is None
