import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import HistoryError
from sink.join import PartitionJoin


def score(offset, topic="transactions"):
    return json.dumps({"source": {"topic": topic, "partition": 0, "offset": offset}}).encode()


def value(offset):
    return f"t{offset}".encode()


def join(**known):
    return PartitionJoin(0, "transactions", **known)


def offsets(found):
    return [joined.offset for joined in found]


def test_a_score_meets_its_transaction_and_what_has_no_score_is_passed_over():
    merge = join()
    for offset in range(6):
        merge.add_transaction(offset, value(offset))
    for number, offset in enumerate((1, 2, 5)):
        merge.add_score(number, score(offset))
    assert [(j.offset, j.transaction) for j in merge.take()] == [(1, b"t1"), (2, b"t2"), (5, b"t5")]
    assert (merge.next_score, merge.next_source) == (3, 6)
    assert merge.transactions_waiting == merge.scores_waiting == 0


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


@pytest.mark.parametrize("bad", [None, b"", b"{", b"[]", b"{}", b'{"source": null}', score(0, "another")])
def test_what_is_no_score_is_counted_and_left_out(bad):
    merge = join()
    merge.add_transaction(0, value(0))
    merge.add_score(0, bad)
    merge.add_score(1, score(0))
    assert offsets(merge.take()) == [0]
    assert (merge.unreadable, merge.next_score) == (1, 2)


def test_a_transaction_that_the_broker_deleted_is_an_error_that_says_where():
    merge = join()
    merge.add_transaction(7, value(7))
    merge.add_score(0, score(3))
    with pytest.raises(HistoryError, match="offset 3 of transactions 0"):
        list(merge.take())


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), scored=st.lists(st.booleans(), max_size=40))
def test_whatever_the_fetches_and_restarts_each_scored_transaction_is_taken_once_in_order(data, scored):
    """Both logs are read in pieces; at any moment the reader starts again from what it has stored."""
    wanted = [offset for offset, has in enumerate(scored) if has]
    merge, found = join(), []
    at = {"transactions": 0, "scores": 0}
    while len(found) < len(wanted):
        step = data.draw(st.sampled_from(["transactions", "scores", "restart"]))
        if step == "restart":
            merge = join(next_score=merge.next_score, next_source=merge.next_source)
            at = {"transactions": merge.next_source, "scores": merge.next_score}
        elif step == "transactions" and at[step] < len(scored):
            merge.add_transaction(at[step], value(at[step]))
            at[step] += 1
        elif step == "scores" and at[step] < len(wanted):
            merge.add_score(at[step], score(wanted[at[step]]))
            at[step] += 1
        found += offsets(merge.take())
    assert found == wanted
