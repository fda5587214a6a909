"""A worker in memory is run, and what it wrote is verified; then something is changed."""

from typing import Any

import numpy as np
import pytest

from features.arena import HistoryArena
from features.codec import History, decode, encode
from features.engine import ChunkFeatures
from features.labels import put_labels
from features.record import LABEL_CODES, LABEL_KIND, label_record, to_records
from models.differences import Tally
from models.model_set import Models
from models.published_scores import Published, read_score
from models.verification import PartitionRebuild
from schemas.erasure import erased_name
from schemas.label import Label
from schemas.parse import dump, parse_message
from schemas.topics import ERASURES, FRAUD_SCORES, LABELS, TRANSACTIONS
from schemas.transaction import Transaction
from tests.scoring import arena_of
from tests.streaming import DAY_MS, START_MS, Kafka, Stream, label, transaction
from tests.verifying import histories, verified

T, L = TRANSACTIONS.name, LABELS.name


@pytest.mark.parametrize("size", [1, 13, 1000])
async def test_what_a_worker_wrote_is_equal_however_it_is_read(
    written: Stream, models: Models, size: int
) -> None:
    tally, rebuild = verified(written, models, size=size)
    await histories(written, rebuild)
    assert tally.first is None
    assert (tally.differences, tally.not_compared) == (0, {})
    assert tally.scores == tally.transactions == len(written.scored) == 71
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


async def test_no_number_of_labels_explains_a_wrong_score_and_all_else_stays_equal(
    written: Stream, models: Models
) -> None:
    def wrong(score: Published) -> Published:
        if score.transaction_id != "t-10":
            return score
        return Published(score.offset, "t-10", score.version, score.score / 3)

    tally, rebuild = verified(written, models, change=wrong)
    await histories(written, rebuild)
    assert (tally.differences, tally.histories) == (1, 3)
    assert tally.first is not None
    assert (tally.first.customer_id, tally.first.values.keys()) == ("c-1", {"score"})


async def test_what_is_kept_of_an_erased_customer_from_before_the_request_is_a_difference(
    written: Stream, models: Models
) -> None:
    before = await written.store.read("c-1")
    assert before is not None
    tally, rebuild = verified(written, models, erased={erased_name("c-1"): START_MS + 100 * DAY_MS})
    rebuild.compare_history("c-1", before.history, None)
    assert tally.first is not None
    kept = sum(m["customer_id"] == "c-1" for m in written.kafka.messages(FRAUD_SCORES.name))
    assert tally.first.values == {"records of an erased customer": (kept, 0)}


async def test_an_erased_customer_is_neither_missing_nor_shown_and_others_are_compared(
    written: Stream, models: Models
) -> None:
    erasure = {"erasure_id": "e-1", "customer_id": "c-1", "requested_at": START_MS + 100 * DAY_MS}
    written.kafka.put(ERASURES.name, 0, erasure, b"c-1")
    # What was on its way then gets no score.
    written.kafka.put(T, 0, transaction(90, customer="c-1"))
    await written.run()
    assert "t-90" not in written.scored
    tally, rebuild = verified(written, models, erased=(await written.store.acquire(0)).erased)
    assert "c-1" not in rebuild.customers()
    await histories(written, rebuild)
    rebuild.compare_history("c-1", None, None)
    assert tally.first is None
    assert (tally.differences, tally.histories) == (0, 2)
    of_others = sum(m["customer_id"] != "c-1" for m in written.kafka.messages(FRAUD_SCORES.name))
    assert (tally.scores, tally.transactions) == (of_others, of_others)
    assert tally.not_compared.keys() == {"of an erased customer"}


async def test_who_is_erased_while_it_is_verified_is_not_compared_either(
    written: Stream, models: Models
) -> None:
    tally, rebuild = verified(written, models)
    rebuild.add_erased({erased_name("c-1"): START_MS})
    rebuild.compare_history("c-1", None, None)
    assert (tally.differences, tally.histories) == (0, 0)


async def test_a_score_from_before_partitions_were_added_is_no_difference_where_its_customer_moved(
    written: Stream, models: Models
) -> None:
    tally, rebuild = verified(written, models, belongs_here=lambda customer: customer != "c-1")
    await histories(written, rebuild)
    assert (tally.first, tally.differences, tally.histories) == (None, 0, 2)
    moved = tally.not_compared.pop("of a customer who belongs to another partition now")
    assert moved + tally.scores == 71

    def forged(score: Published) -> Published:
        return Published(score.offset, "t-none", score.version, score.score)

    tally, _ = verified(written, models, belongs_here=lambda customer: customer != "c-1", change=forged)
    assert tally.first is not None


GONE = 130 * 8  # number of a transaction 130 days behind the first, which no history keeps then


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("before", [True, False])
async def test_a_label_that_no_score_shows_may_be_put_in_before_its_transaction_left_or_refused_behind_it(
    models: Models, size: int, before: bool
) -> None:
    stream = Stream(models)
    stream.transact(20)
    await stream.start()
    await stream.run()
    if not before:
        stream.transact(20, first=GONE)
        await stream.run()
    # Told late: the label is still in the history when what it is about is not.
    stream.kafka.put(L, 0, label("t-3", customer="c-0", at_ms=START_MS + 40 * DAY_MS))
    await stream.run()
    if before:
        stream.transact(20, first=GONE)
        await stream.run()
    state = await stream.store.read("c-0")
    assert state is not None
    labels = decode(state.history).records["kind"] == LABEL_KIND
    assert labels.sum() == before
    tally, rebuild = verified(stream, models, size=size)
    await histories(stream, rebuild)
    assert tally.first is None
    assert (tally.scores, tally.histories, tally.differences) == (40, 3, 0)
    if before:
        # A label that the log does not have is no such label.
        history = decode(state.history)
        history.records["label"][labels] = LABEL_CODES["genuine"]
        await histories(stream, rebuild, c_0=encode(history))
        assert tally.differences == 1


async def test_a_label_that_was_read_before_its_transaction_and_refused_is_in_no_history(
    models: Models,
) -> None:
    stream = Stream(models)
    await stream.start()
    stream.transact(6)
    await stream.run()
    stream.kafka.put(L, 0, label("t-7", customer="c-1", at_ms=START_MS + DAY_MS))
    stream.kafka.put(L, 0, label("t-4", customer="c-1", at_ms=START_MS + DAY_MS))
    await stream.run()
    stream.transact(6, first=6)
    await stream.run()
    assert stream.reasons == ["unknown_transaction"]
    tally, rebuild = verified(stream, models)
    await histories(stream, rebuild)
    assert tally.first is None
    assert (tally.scores, tally.histories, tally.differences) == (12, 3, 0)
    # One that was not refused is missed.
    state = await stream.store.read("c-1")
    assert state is not None
    history = decode(state.history)
    without = History(history.totals, history.records[history.records["kind"] != LABEL_KIND])
    await histories(stream, rebuild, c_1=encode(without))
    assert tally.differences == 1


@pytest.mark.parametrize("days", [(100, 200), (100, 225)])
async def test_an_account_that_is_closed_twice_is_equal_whether_the_first_was_there_still_or_not(
    models: Models, days: tuple[int, int]
) -> None:
    """The second time is 90 or 115 days behind the first; the transaction at the end pushes the first out."""
    stream = Stream(models)
    await stream.start()
    closed = {"customer_id": "c-1", "label": "account_closed"}
    stream.kafka.put(T, 0, transaction(0))
    await stream.run()
    stream.kafka.put(L, 0, closed | {"label_time": START_MS + 10 * DAY_MS})
    stream.kafka.put(T, 0, transaction(days[0] * 8))
    await stream.run()
    stream.kafka.put(L, 0, closed | {"label_time": START_MS + days[0] * DAY_MS})
    await stream.run()
    stream.kafka.put(T, 0, transaction(days[1] * 8))
    await stream.run()
    tally, rebuild = verified(stream, models)
    await histories(stream, rebuild)
    assert stream.observer.outcomes["labelled"] == 1
    assert tally.first is None
    assert (tally.scores, tally.histories, tally.differences) == (3, 1, 0)


class _CountsLabels:
    """The engine, but its first feature is the number of labels in the history: labels must be in place.

    Args:
        shown_ms: Only transactions from here on show it.
    """

    def __init__(self, models: Models, shown_ms: int = 0) -> None:
        self._engine = models.engine
        self._shown_ms = shown_ms
        self.names = models.engine.names
        self.entities = ()
        self.attributes = ()

    def compute_chunk(
        self, arena: HistoryArena, events: Any, slots: Any, attributes: Any = None
    ) -> ChunkFeatures:
        features = self._engine.compute_chunk(arena, events, slots, attributes)
        for row, slot in enumerate(slots):
            labels = (arena.records(slot)["kind"] == LABEL_KIND).sum()
            features.X[row, 0] = labels if events["time_ms"][row] >= self._shown_ms else 0
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


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_score_may_need_a_label_whose_transaction_left_the_history_before_it(
    models: Models, size: int
) -> None:
    """The transaction of day 130 pushes the labelled one out, and only the one behind it shows the label."""
    numbers = (0, 1, 2, GONE, GONE + 1)
    engine: Any = _CountsLabels(models, START_MS + (GONE + 1) * 3 * 3_600_000)
    for put_in, fits in ((0, 1), (None, 0)):
        kafka, arena, scores = Kafka(), arena_of("c-1"), {}
        told = label("t-0", customer="c-1", at_ms=START_MS + 40 * DAY_MS)
        kafka.put(L, 0, told)
        slots = np.array([arena.slot("c-1")])
        for offset, number in enumerate(numbers):
            message = parse_message(Transaction, kafka.put(T, 0, transaction(number)).value)
            X = engine.compute_chunk(arena, to_records([message], [message.amount_minor]), slots).X[0]
            vector = dict(zip(engine.names, X.tolist(), strict=True))
            scores[offset] = [Published(offset, message.transaction_id, "gone", 0.5, vector)]
            if offset == put_in:
                put_labels(arena, slots, label_record(parse_message(Label, dump(told))))
        log = [r for r in kafka.logs[T, 0] if r is not None]
        tally = Tally()
        rebuild = PartitionRebuild(0, engine, lambda v: None, lambda c: True, log_complete=True, tally=tally)
        rebuild.add_labels([r for r in kafka.logs[L, 0] if r is not None])
        for start in range(0, len(log), size):
            chunk = log[start : start + size]
            rebuild.add_transactions(chunk, {r.offset: scores[r.offset] for r in chunk}, scored_from=0)
        assert scores[4][0].features[engine.names[0]] == fits  # type: ignore[index]
        assert (tally.vectors, tally.differences) == (5, 0)


async def test_missing_scores_and_scores_of_nothing_are_found(written: Stream, models: Models) -> None:
    tally, _ = verified(written, models, change=lambda s: None if s.offset == 40 else s)
    assert tally.differences == 1
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset) == ("missing score", 40)

    bad = next(r.offset for r in written.kafka.logs[T, 0] if r is not None and r.value == b"not json")
    log = [r for r in written.kafka.logs[T, 0] if r is not None]
    tally, rebuild = verified(written, models)
    rebuild.add_transactions([log[bad]], {bad: [Published(bad, "t-2", "v1", 0.5)]}, scored_from=0)
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset) == ("unexpected score", bad)


async def test_scores_let_go_by_retention_are_not_missing(written: Stream, models: Models) -> None:
    tally, _ = verified(written, models, change=lambda s: None if s.offset < 25 else s, scored_from=25)
    assert tally.differences == 0
    assert tally.not_compared == {"score not in the topic": 25}


async def test_a_score_published_again_must_be_the_same(written: Stream, models: Models) -> None:
    tally, rebuild = verified(written, models)
    score = read_score(written.kafka.logs[FRAUD_SCORES.name, 0][5].value, T, 0)  # type: ignore[union-attr]
    assert score is not None
    rebuild.add_repeat(score)
    assert (tally.repeats, tally.differences) == (1, 0)
    rebuild.add_repeat(Published(score.offset, score.transaction_id, score.version, score.score / 2))
    assert (tally.repeats, tally.differences) == (2, 1)


async def test_a_log_whose_start_is_gone_is_compared_where_histories_are_whole(
    written: Stream, models: Models
) -> None:
    tally, rebuild = verified(written, models, complete=False)
    await histories(written, rebuild)
    assert (tally.scores, tally.histories, tally.differences) == (0, 0, 0)
    assert tally.not_compared == {"log cut off": 71 + 3}
