"""The checker finds what it is there to find."""

import json
import struct

import pytest

from features.codec import History, Totals, encode
from features.record import to_records
from infra.score_packing import ScorePacker
from schemas.transaction import Transaction
from tests.faults.checker import Record, check

MESSAGES = [
    {
        "schema_version": 1,
        "transaction_id": f"t-{i}",
        "customer_id": "c-1",
        "event_time": f"2026-01-01T00:00:0{i}.5+00:00",
        "amount": "12.34",
        "currency": "EUR",
        "direction": "credit" if i == 2 else "debit",
        "merchant_id": "m-1",
        "card_present": False,
        "latitude": 1.5,
        "longitude": -2.25,
        "merchant_country": "FR",
    }
    for i in range(3)
]


class Stored:
    """As much of Redis as the checker asks."""

    def __init__(self, histories, newest="t-2"):
        self.histories = histories
        self.newest = newest

    def scan_iter(self, match, count):
        return list(self.histories)

    def get(self, key):
        return self.histories[key]

    def lindex(self, key, index):
        return ScorePacker().pack(json.dumps({"transaction_id": self.newest}).encode())


def score(offset, value=0.5, **more):
    message = MESSAGES[offset]
    said = {"transaction_id": message["transaction_id"], "customer_id": "c-1", "score": value}
    source = {"topic": "transactions", "partition": 0, "offset": offset}
    return {**said, "source": source, "scored_at": f"now {value}", **more}


def records(messages):
    return [Record(i, 0, b"c-1", json.dumps(message).encode()) for i, message in enumerate(messages)]


def log(scores, dead=(), transactions=MESSAGES):
    return {
        ("transactions", 0): records(transactions),
        ("scores.fraud", 0): records(scores),
        ("transactions.dlq", 0): records(dead),
    }


def state(messages=MESSAGES, count=None):
    parsed = [Transaction.model_validate(message) for message in messages]
    packed = to_records(parsed, [t.amount_minor for t in parsed])
    totals = Totals().plus(packed)
    stored = encode(History(totals, packed))
    if count is not None:
        stored = stored[:16] + struct.pack("<q", count) + stored[24:]
    return Stored({b"{tg:0}:h:c-1": stored})


RIGHT = [score(0), score(1), score(2)]


def test_what_is_right_is_clean():
    verdict = check(log(RIGHT), state())
    assert verdict.clean, verdict
    assert (verdict.events, verdict.refused, verdict.repeated) == (3, 0, 0)


def test_missing_score_is_lost():
    assert check(log(RIGHT[:2]), state()).lost == 1


def test_repeat_that_differs_only_by_its_time_is_a_repeat():
    verdict = check(log([*RIGHT, score(1, scored_at="later")]), state())
    assert verdict.clean
    assert verdict.repeated == 1


def test_second_score_that_differs_conflicts():
    assert check(log([*RIGHT, score(1, 0.6)]), state()).conflicting == 1


def test_refusal_of_a_good_message_conflicts_with_its_score():
    dead = [{"source": score(1)["source"], "reason": "duplicate_transaction"}]
    assert check(log(RIGHT, dead), state()).conflicting == 1
    assert check(log([RIGHT[0], RIGHT[2]], dead), state()).lost == 1


def test_same_transaction_again_must_be_refused():
    twice = [*MESSAGES, MESSAGES[1]]
    assert check(log(RIGHT, transactions=twice), state()).lost == 1
    dead = [{"source": {"topic": "transactions", "partition": 0, "offset": 3}, "reason": "duplicate"}]
    assert check(log(RIGHT, dead, twice), state()).clean


def test_score_of_nothing_conflicts():
    stray = score(1) | {"source": {"topic": "transactions", "partition": 0, "offset": 9}}
    assert check(log([*RIGHT, stray]), state()).conflicting == 1


@pytest.mark.parametrize(("stored", "lost", "doubled"), [(2, 1, 0), (4, 0, 1)])
def test_count_that_is_not_the_logs_is_lost_or_doubled(stored, lost, doubled):
    verdict = check(log(RIGHT), state(count=stored))
    assert (verdict.lost, verdict.doubled, verdict.wrong_states) == (lost, doubled, 1)


def test_record_that_is_there_twice_is_a_wrong_state():
    verdict = check(log(RIGHT), state([*MESSAGES, MESSAGES[0]]))
    assert verdict.doubled == 1
    assert verdict.wrong_states == 1


def test_customer_without_state_is_lost():
    assert check(log(RIGHT), Stored({})).lost == 3


def test_newest_score_for_lookups_is_looked_at():
    stored = state()
    stored.newest = "t-0"
    assert check(log(RIGHT), stored).wrong_states == 1


def test_state_in_another_partition_is_wrong():
    stored = state()
    stored.histories = {b"{tg:1}:h:c-1": stored.histories[b"{tg:0}:h:c-1"]}
    assert check(log(RIGHT), stored).wrong_states == 1
