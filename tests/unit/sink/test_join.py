import json
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import HistoryError
from sink.join import PartitionJoin
from tests.scoring import at

TRANSACTIONS, SCORES = "transactions", "scores.fraud"


def score(offset, topic="transactions", log="this", customer="c-1"):
    ids = {"transaction_id": f"{log}-{offset}", "customer_id": customer}
    source = {"topic": topic, "partition": 0, "offset": offset}
    return json.dumps({**SAID, **ids, "source": source}).encode()


SAID = {
    "score": 0.1,
    "decision": "allow",
    "reasons": [],
    "flags": ["of a newer version"],
    "model": {"name": "fraud", "version": "v1"},
    "scored_at": "2026-01-01T00:00:00.000Z",
}


def without(name):
    return json.dumps({k: v for k, v in json.loads(score(0)).items() if k != name}).encode()


@cache
def value(offset, log="this"):
    transaction = at(1.0, transaction_id=f"{log}-{offset}", customer_id="c-1")
    return transaction.model_dump_json(exclude_unset=True).encode()


def join(**known):
    return PartitionJoin(0, TRANSACTIONS, **known)


def offsets(found):
    return [joined.offset for joined in found]


def test_a_score_meets_its_transaction_and_what_has_no_score_is_passed_over():
    merge = join()
    for offset in range(6):
        merge.add_transaction(offset, value(offset))
    for number, offset in enumerate((1, 2, 5)):
        merge.add_score(number, score(offset))
    found = [(j.offset, j.transaction.transaction_id) for j in merge.take()]
    assert found == [(1, "this-1"), (2, "this-2"), (5, "this-5")]
    assert (merge.next_score, merge.next_source) == (3, 6)
    assert merge.waiting() == [((TRANSACTIONS, 0), 0), ((SCORES, 0), 0)]


def test_a_score_that_came_first_waits_for_its_transaction():
    merge = join()
    merge.add_score(0, score(2))
    assert list(merge.take()) == []
    assert merge.next_score == 0
    for offset in range(3):
        merge.add_transaction(offset, value(offset))
    assert offsets(merge.take()) == [2]


def test_a_repeated_score_is_counted_and_left_out():
    merge = join()
    for offset in range(3):
        merge.add_transaction(offset, value(offset))
    for number, offset in enumerate((0, 1, 0, 1, 2)):
        merge.add_score(number, score(offset))
    assert offsets(merge.take()) == [0, 1, 2]
    assert (merge.repeated, merge.unreadable, merge.next_score) == (2, 0, 5)


@pytest.mark.parametrize(
    "bad",
    [
        *(None, b"", b"{", b"[]", b"{}", b'{"source": null}', score(0, "another"), score(-1), score(10**30)),
        *(without(name) for name in ("score", "decision", "reasons", "flags", "model", "scored_at")),
        *(score(0).replace(b"0.1", odd) for odd in (b"7", b"NaN", b'"much"')),
        score(0).replace(b"2026-01-01T", b"yesterday"),
        score(0).replace(b'"allow"', b'"perhaps"'),
    ],
)
def test_what_is_no_score_is_counted_and_left_out(bad):
    merge = join()
    merge.add_transaction(0, value(0))
    merge.add_score(0, bad)
    merge.add_score(1, score(0))
    assert offsets(merge.take()) == [0]
    assert (merge.unreadable, merge.next_score) == (1, 2)


def test_a_transaction_that_the_broker_deleted_is_an_error_that_says_where():
    merge = join(first=7)
    merge.add_transaction(7, value(7))
    merge.add_score(0, score(3))
    with pytest.raises(HistoryError, match="offset 3 of transactions 0"):
        list(merge.take())


def test_a_transaction_that_was_deleted_after_others_were_stored_is_an_error_only_if_it_has_a_score():
    cut = {"next_source": 3, "next_score": 3, "first": 7}
    merge = join(**cut)
    merge.add_transaction(7, value(7))
    merge.add_score(3, score(7))
    assert offsets(merge.take()) == [7]
    merge = join(**cut)
    merge.add_score(3, score(5))
    with pytest.raises(HistoryError, match="offset 5 of transactions 0"):
        list(merge.take())


def test_the_next_score_is_the_oldest_that_waits_or_behind_all_that_was_read():
    """Offsets 1 and 3 are markers: they go with what is before them."""
    merge = join()
    merge.add_score(0, score(0))
    merge.add_score(2, score(1))
    merge.reach(dict.fromkeys([(TRANSACTIONS, 0), (SCORES, 0)], 4))
    assert merge.next_score == 0
    merge.add_transaction(0, value(0))
    assert offsets(merge.take()) == [0]
    merge.reach(dict.fromkeys([(TRANSACTIONS, 0), (SCORES, 0)], 4))
    assert merge.next_score == 2
    merge.add_transaction(1, value(1))
    assert offsets(merge.take()) == [1]
    merge.reach(dict.fromkeys([(TRANSACTIONS, 0), (SCORES, 0)], 4))
    assert (merge.next_score, merge.next_source) == (4, 2)


def fill(merge, transactions=(), scores=(), log="this"):
    for offset in transactions:
        merge.add_transaction(offset, value(offset))
    for number, offset in enumerate(scores, merge.scores_waiting + merge.next_score):
        merge.add_score(number, score(offset, log=log))


def test_a_score_of_an_older_log_is_counted_and_takes_no_transaction():
    merge = join()
    fill(merge, range(3), range(3), log="older")
    assert offsets(merge.take()) == []
    assert (merge.foreign, merge.next_score, merge.next_source) == (3, 3, 0)
    fill(merge, scores=range(3))
    assert offsets(merge.take()) == [0, 1, 2]
    assert merge.newest == (2, 5, "this-2")


def test_a_score_of_another_customer_is_not_the_transactions():
    merge = join()
    merge.add_transaction(0, value(0))
    merge.add_score(0, score(0, customer="c-2"))
    assert (offsets(merge.take()), merge.foreign) == ([], 1)


def test_scores_of_a_long_older_log_let_transactions_go_that_are_read_again():
    merge, log = join(most_held=10), 40
    fill(merge, scores=range(log), log="older")
    for offset in range(log):
        merge.add_transaction(offset, value(offset))
        assert offsets(merge.take()) == []
    fill(merge, scores=range(log))
    assert (offsets(merge.take()), merge.rewind) == ([], True)
    assert merge.begin() == 0
    found = []
    for offset in range(log):
        merge.add_transaction(offset, value(offset))
        found += offsets(merge.take())
    assert (found, merge.rewind, merge.foreign) == (list(range(log)), False, log)


def test_a_score_behind_the_end_of_the_log_drops_no_transaction_and_waits_only_until_the_end_is_known():
    merge = join()
    fill(merge, range(3), [10**9, 0, 1, 2])
    assert offsets(merge.take()) == []
    assert (merge.waits_for, merge.waiting()[0]) == (10**9, ((TRANSACTIONS, 0), 3))
    assert merge.drop_unfound(3, 3) == 1
    assert offsets(merge.take()) == [0, 1, 2]
    assert (merge.foreign, merge.next_score) == (1, 4)


def test_a_score_whose_transaction_is_still_to_come_goes_on_waiting():
    merge = join()
    fill(merge, range(3), [4])
    assert offsets(merge.take()) == []
    assert merge.drop_unfound(3, 5) == 0
    fill(merge, [3, 4])
    assert offsets(merge.take()) == [4]


def test_a_score_of_an_offset_that_was_read_and_has_no_record_is_passed_over():
    merge = join()
    fill(merge, range(3), [3])
    assert offsets(merge.take()) == []
    assert (merge.drop_unfound(5, 5), merge.next_score) == (1, 1)
    fill(merge, [4], [3, 4])
    assert (offsets(merge.take()), merge.foreign) == ([4], 2)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    scored=st.lists(st.booleans(), max_size=20),
    older=st.integers(0, 30),
    most_held=st.integers(1, 25),
)
def test_whatever_the_fetches_and_restarts_each_scored_transaction_is_taken_once_in_order(
    data, scored, older, most_held
):
    """Both logs are read in pieces; at any moment the reader starts again from what it has stored.

    Before the scores there may be those of an older log, which name the same offsets and later ones.
    """
    wanted = [offset for offset, has in enumerate(scored) if has]
    scores = [score(offset, log="older") for offset in range(older)] + [score(offset) for offset in wanted]
    merge, found = join(most_held=most_held), []
    at = {"transactions": 0, "scores": 0}
    while len(found) < len(wanted):
        step = data.draw(st.sampled_from(["transactions", "scores", "restart", "look"]))
        if step == "restart":
            known = {"next_score": merge.next_score, "next_source": merge.next_source}
            merge = join(most_held=most_held, **known)
            at = {"transactions": merge.begin(), "scores": merge.next_score}
        elif step == "look" and not merge.rewind:
            merge.drop_unfound(at["transactions"], len(scored))
        elif step == "transactions" and at[step] < len(scored):
            for _ in range(data.draw(st.integers(1, 10))):
                if at[step] < len(scored):
                    merge.add_transaction(at[step], value(at[step]))
                    at[step] += 1
        elif step == "scores" and at[step] < len(scores):
            for _ in range(data.draw(st.integers(1, 10))):
                if at[step] < len(scores):
                    merge.add_score(at[step], scores[at[step]])
                    at[step] += 1
        found += offsets(merge.take())
        if merge.rewind:
            at["transactions"] = merge.begin()
    assert found == wanted
    assert merge.foreign <= older
