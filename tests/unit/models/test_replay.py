import numpy as np
import pytest

from features.arena import HistoryArena
from features.engine import Engine
from features.entity_features import entity_features
from features.lifetime import customer_names
from models.replay import replay_chunks, replay_for_training
from schemas.label import Label
from schemas.transaction import Transaction
from tests.scoring import DAY_MS, START, at, score_in_chunks, transactions_of

START_MS = int(START.timestamp() * 1000)
HOUR_MS = 3_600_000


def label(day, transaction_id, value="fraud", customer_id="c-1"):
    return Label(
        customer_id=customer_id,
        transaction_id=transaction_id,
        label=value,
        label_time=START_MS + int(day * DAY_MS),
    )


def daily(customer_id, first, last, every=1.0):
    return [at(day, customer_id=customer_id) for day in np.arange(first, last, every)]


def in_order(*parts):
    return sorted((t for part in parts for t in part), key=lambda t: t.event_time_ms)


def test_vectors_are_those_of_the_stream(bank_messages, models):
    stream = transactions_of(bank_messages, 12)[:2500]
    data = replay_for_training(stream, models.engine)
    served = np.array(score_in_chunks(stream, [640], models).vectors)
    np.testing.assert_array_equal(data.X, served.astype(np.float32))
    assert data.X.dtype == np.float32
    assert data.transaction_ids == [t.transaction_id for t in stream]
    assert data.time_ms.tolist() == [t.event_time_ms for t in stream]
    assert data.end_ms == stream[-1].event_time_ms


def test_a_duplicate_is_no_row(engine):
    stream = [at(1), at(2), at(2), at(3)]
    data = replay_for_training(stream, engine)
    assert data.transaction_ids == [t.transaction_id for t in (stream[0], stream[1], stream[3])]
    assert len(data.X) == len(data.time_ms) == 3


def test_fraud_is_known_from_its_first_label_and_a_genuine_label_is_none(engine):
    stream = [
        at(1, transaction_id="t-1"),
        at(2, transaction_id="t-2"),
        label(3, "t-1"),
        label(4, "t-1"),
        label(5, "t-2", "genuine"),
        Label(customer_id="c-1", label="account_closed", label_time=START_MS + 6 * DAY_MS),
        at(7),
        # Behind the last transaction, and of one that never came.
        label(8, "t-3"),
    ]
    data = replay_for_training(stream, engine)
    assert data.fraud_known_ms == {"t-1": START_MS + 3 * DAY_MS, "t-3": START_MS + 8 * DAY_MS}
    assert data.end_ms == START_MS + 7 * DAY_MS


#            day 0      10        20        30        40        50        60
#  stays      |---------------------------------------------------------->|
#  leaves     |-----------]    9.5 is the last
#  returns    |-----]                             [--------------------->|  5.5 to 32
#  joins                        [-------------->]                            20 to 35.5
#  cut-offs             ^10      ^20       ^30       ^40       ^50
CAST = {
    "stays": daily("stays", 0, 60.5),
    "leaves": daily("leaves", 0.5, 10),
    "returns": daily("returns", 0.5, 6) + daily("returns", 32, 60),
    "joins": daily("joins", 20, 36, 0.5),
}


def outcomes(data, engine):
    """Of each snapshot: day, seconds since the last transaction, whether churned."""
    since = data.churn_X[:, engine.names.index("time_since_last_s")]
    days = (data.churn_as_of_ms - START_MS) // DAY_MS
    return {
        (int(day), round(float(s) / 86_400, 2), bool(gone))
        for day, s, gone in zip(days, since, data.churned, strict=True)
    }


def test_churn_labels_say_whether_nothing_follows_within_the_horizon(engine):
    data = replay_for_training(in_order(*CAST.values()), engine, horizon_days=10, snapshot_days=10)
    assert outcomes(data, engine) == {
        (10, 1.0, False),  # stays
        (10, 0.5, True),  # leaves
        (10, 4.5, True),  # returns, but only after more than the horizon
        (20, 1.0, False),
        (20, 10.5, True),  # leaves: silent, not yet long enough to be left out
        (20, 14.5, True),  # returns
        (30, 1.0, False),
        (30, 0.5, False),  # joins
        (40, 1.0, False),
        (40, 4.5, True),  # joins left
        (50, 1.0, False),
        (50, 14.5, True),
    }
    # On days 40 and 50 two look alike, stays and returns; leaves is left out from day 30 on.
    days = ((data.churn_as_of_ms - START_MS) // DAY_MS).tolist()
    assert [days.count(day) for day in (10, 20, 30, 40, 50)] == [3, 3, 2, 3, 3]
    assert len(days) == 14


def test_silence_up_to_the_horizon_exactly_is_churn_and_a_moment_less_is_not(engine):
    # Cut-off on day 10, horizon to day 20: an event at day 20 is outside of [10, 20).
    clock = daily("clock", 0, 21)
    for day, churned in ((20.0, True), (20.0 - 1 / DAY_MS, False), (10.0, False)):
        stream = in_order(clock, daily("c-1", 0.5, 10), [at(day, customer_id="c-1")])
        data = replay_for_training(stream, engine, horizon_days=10, snapshot_days=50)
        assert data.churned.tolist() == [False, churned]


def test_a_horizon_that_is_not_over_makes_no_row(engine):
    # The last cut-off is day 50; the end, day 59.9, is less than a horizon later.
    data = replay_for_training(daily("c-1", 0, 59.9), engine, horizon_days=10, snapshot_days=10)
    assert data.churn_as_of_ms.max() == START_MS + 40 * DAY_MS


@pytest.mark.parametrize("every", [0.3, 1.7, 9.0])
def test_a_snapshot_knows_nothing_of_what_came_after_it(engine, every):
    """However few and far between: a chunk of a sparse stream spans months."""
    stream = in_order(daily("c-1", 0, 300, every), daily("c-2", 1, 20), daily("c-2", 200, 300))
    data = replay_for_training(stream, engine)
    found = {}
    for row, as_of in zip(data.churn_X, data.churn_as_of_ms.tolist(), strict=True):
        found.setdefault(as_of, []).append(row)
    for as_of, rows in found.items():
        known = replay_for_training([t for t in stream if t.event_time_ms < as_of], engine)
        expected = [
            engine.compute(records, None, as_of).astype(np.float32)
            for records in histories(known, stream, engine, as_of)
        ]
        of_engine = {row[: len(engine.names)].tobytes() for row in rows}
        assert of_engine <= {row.tobytes() for row in expected}


def histories(known, stream, engine, as_of):
    arena = HistoryArena()
    before = [t for t in stream if t.event_time_ms < as_of]
    assert len(known.transaction_ids) == len(before)
    for _ in replay_chunks(before, engine, arena):
        pass
    return [arena.records(arena.slot(c)) for c in dict.fromkeys(t.customer_id for t in before)]


def test_chunks_are_bounded_and_lose_nothing(engine):
    stream = [at(n / 1000) for n in range(4001)]
    sizes = [len(chunk) for chunk, _ in replay_chunks(iter(stream), engine, HistoryArena())]
    assert sizes == [2000, 2000, 1]


def test_nothing_to_replay_is_no_data(engine):
    data = replay_for_training([], engine)
    assert data.X.shape == (0, len(engine.names))
    assert data.churn_X.shape == (0, len(customer_names(engine)))
    assert (len(data.time_ms), len(data.churned), data.transaction_ids, data.end_ms) == (0, 0, [], 0)


def entity_log():
    """Frauds at one shop, their labels in between, and later customers of the same shop."""
    sent: list[Transaction | Label] = []
    for n in range(20):
        sent.append(at(n / 4, transaction_id=f"t-{n}", customer_id=f"c-{n % 4}", merchant_id="m-1"))
        if n % 5 == 0:
            known = sent[-1].event_time_ms + HOUR_MS
            about = {"customer_id": f"c-{n % 4}", "transaction_id": f"t-{n}", "label": "fraud"}
            sent += [Label.model_validate({**about, "label_time": known})] * 2
    return [*sent, *(at(12, transaction_id=f"u-{n}", customer_id="c-9", merchant_id="m-1") for n in range(3))]


def test_training_vectors_hold_what_other_customers_did_at_the_merchant():
    engine = Engine(entities=entity_features("merchant"))
    data = replay_for_training(entity_log(), engine)
    last = dict(zip(engine.names, data.X[-1].tolist(), strict=True))
    # All twenty are over by the hour a week before, with the frauds 0, 5, 10 and 15; each is said twice.
    assert last["merchant_txn_count_30d"] == 20
    assert last["merchant_fraud_count_30d"] == 4
    assert last["merchant_fraud_share_30d"] == pytest.approx(0.2)
    assert data.X.shape[1] == len(engine.names)


def test_replay_of_an_engine_with_entities_needs_them():
    engine = Engine(entities=entity_features("device"))
    with pytest.raises(ValueError, match="none are given"):
        next(replay_chunks(iter([at(0)]), engine, HistoryArena()))
