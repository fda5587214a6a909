import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features import kernels
from features.arena import HistoryArena
from features.codec import Totals
from models.pipeline import DECISIONS, decide, flag_names, score_chunk, score_fraud
from models.tree import TreeModel
from tests.scoring import DAY_MS, START_DAY, arena_of, at, corrected, events, score_in_chunks

CORRECTIONS = st.lists(st.tuples(st.integers(0, 119), st.integers(0, 119), st.integers(0, 3)), max_size=20)


def same_churn(found, expected):
    # The slot is a place in the cache, nothing of the result.
    return {c: [r._replace(slot=0) for r in results] for c, results in found.churn.items()} == {
        c: [r._replace(slot=0) for r in results] for c, results in expected.churn.items()
    }


def assert_same(found, expected):
    assert found.rows == expected.rows
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.reasons == expected.reasons
    assert same_churn(found, expected)
    assert found.histories == expected.histories


def test_the_stream_shows_every_decision_and_churn_on_many_days(whole):
    assert {decision for _, _, decision, _, _ in whole.rows} == {0, 1, 2}
    assert any(len(results) > 10 for results in whole.churn.values())


def test_one_event_at_a_time_gives_what_one_chunk_gives(stream, whole, eager):
    assert_same(score_in_chunks(stream, [1] * len(stream), eager), whole)


@settings(max_examples=40)
@given(data=st.data())
def test_chunk_size_changes_nothing_with_late_events_and_duplicates(stream, eager, data):
    shuffled = list(stream[:120])
    for place, of, revision in data.draw(CORRECTIONS, label="is a correction"):
        ids = {"transaction_id": shuffled[of].transaction_id, "customer_id": shuffled[of].customer_id}
        shuffled[place] = shuffled[place].model_copy(update=ids | {"revision": revision})
    moves = st.lists(st.tuples(st.integers(0, 119), st.integers(0, 119)), max_size=8)
    for place, other in data.draw(moves, label="arrives elsewhere"):
        shuffled.insert(other, shuffled.pop(place))
    for place, other in data.draw(moves, label="arrives again"):
        shuffled.insert(other, shuffled[place])
    sizes = st.lists(st.integers(0, 60), max_size=20)
    one = data.draw(sizes, label="sizes")
    other = data.draw(sizes, label="other sizes")
    assert_same(score_in_chunks(shuffled, one, eager), score_in_chunks(shuffled, other, eager))


def test_a_late_event_of_the_same_chunk_is_not_seen_by_an_earlier_churn_score(eager):
    # 0.0            0.4   0.5
    #  |--------------L-----A     L arrives after A: A's churn score cannot know of it
    late = [at(0.0), at(1.5), at(1.4, amount="900")]
    assert same_churn(score_in_chunks(late, [], eager), score_in_chunks(late, [1, 1], eager))


def test_duplicates_get_no_score_no_decision_and_change_nothing(stream, whole, eager):
    twice = [t for transaction in stream for t in (transaction, transaction)]
    found = score_in_chunks(twice, [7] * 20, eager)
    repeats = found.rows[1::2]
    assert all(proba is None for _, proba, *_ in repeats)
    assert all(decision == 0 for _, _, decision, _, _ in repeats)
    assert {status for _, _, _, status, _ in repeats} == {kernels.DUPLICATE}
    assert found.reasons[1::2] == [None] * len(stream)
    assert found.rows[::2] == whole.rows
    assert found.histories == whole.histories
    assert same_churn(found, whole)


def test_an_empty_chunk_is_an_empty_result(eager):
    scored = score_chunk(HistoryArena(), events([]), eager)
    assert scored.fraud.shape == (0,)
    assert scored.churn == []
    assert scored.reasons == {}


def test_the_synchronous_part_scores_the_same_and_leaves_totals_alone(stream, whole, eager):
    arena = arena_of(*{t.customer_id for t in stream})
    scored = score_fraud(arena, events(stream), eager)
    assert scored.fraud.tolist() == [proba for _, proba, *_ in whole.rows]
    assert [scored.reasons.get(row) for row in range(len(stream))] == whole.reasons
    assert scored.churn == []
    assert arena.totals(arena.slot(stream[0].customer_id)) == Totals()


def test_scores_are_probabilities_of_the_vectors(whole, eager):
    expected = eager.fraud.predict_proba(np.array(whole.vectors))
    assert [proba for _, proba, *_ in whole.rows] == expected.tolist()
    assert not np.isinf(whole.vectors).any()


def test_decisions_begin_at_their_thresholds(eager):
    card = replace(eager.fraud.card, thresholds={"review": 0.25, "block": 0.75})
    model = TreeModel(card, eager.fraud.trees, eager.engine.names)
    below = math.nextafter
    proba = np.array([0.0, below(0.25, 0), 0.25, below(0.75, 0), 0.75, 1.0, np.nan])
    words = [DECISIONS[d] for d in decide(model, proba)]
    assert words == ["allow", "allow", "review", "review", "block", "block", "allow"]


def test_what_is_not_allowed_has_reasons_and_nothing_else_has(whole):
    for (_, _, decision, _, _), reasons in zip(whole.rows, whole.reasons, strict=True):
        assert bool(reasons) == (decision > 0)
        assert all(reason["contribution"] > 0 for reason in reasons or ())


def test_first_event_is_a_cold_start_and_an_old_one_is_late(eager):
    found = score_in_chunks([at(1), at(2), at(1.5)], [], eager)
    assert [flag_names(flags) for *_, flags in found.rows] == [["cold_start"], [], ["late"]]
    assert flag_names(15) == ["late", "cold_start", "history_cut", "corrected"]


def test_correction_takes_the_place_of_what_it_corrects(eager):
    first, second, third = at(0.1, amount="10.00"), at(0.2, amount="900.00"), at(0.3, amount="5.00")
    right = corrected(second, 1, amount=Decimal("90.00"))
    found = score_in_chunks([first, second, right, third], [], eager)
    meant = score_in_chunks([first, right, third], [], eager)
    assert [flag_names(flags) for *_, flags in found.rows] == [["cold_start"], [], ["corrected"], []]
    np.testing.assert_array_equal(np.array(found.vectors)[[0, 2, 3]], np.array(meant.vectors))


def test_older_and_equal_revisions_are_duplicates(eager):
    first = at(0.1)
    chunk = [first, corrected(first, 2), corrected(first, 1), corrected(first, 2), first, corrected(first, 3)]
    found = score_in_chunks(chunk, [], eager)
    assert [status for _, _, _, status, _ in found.rows] == [0, 0, 1, 1, 1, 0]


def test_correction_of_what_never_came_is_an_event(eager):
    found = score_in_chunks([corrected(at(0.1), 1)], [], eager)
    assert [flag_names(flags) for *_, flags in found.rows] == [["cold_start"]]


def test_what_is_corrected_later_in_a_chunk_was_there_for_the_churn_score_before(eager):
    # 0.0      1.1    1.5
    #  |--------A------B    then A moves to 1.9: B's churn score knew A where it was
    first, other = at(1.1, amount="700"), at(1.5)
    moved = corrected(first, 1, event_time=at(1.9).event_time, amount=Decimal("1.00"))
    stream = [at(0.0), first, other, moved, corrected(moved, 2, amount=Decimal("3.00"))]
    assert same_churn(score_in_chunks(stream, [], eager), score_in_chunks(stream, [1] * 5, eager))
    assert score_in_chunks(stream, [], eager).histories == score_in_chunks(stream, [2, 2], eager).histories


def test_churn_is_due_once_a_customer_and_day(stream, whole):
    for customer, results in whole.churn.items():
        own = [t.event_time_ms for t in stream if t.customer_id == customer]
        firsts = {}
        for time_ms in own:
            firsts.setdefault(time_ms // DAY_MS, time_ms)
        assert [r.as_of_ms for r in results] == [ms + 1 for ms in firsts.values()]


def test_a_late_event_of_a_past_day_asks_for_no_churn_score(eager):
    found = score_in_chunks([at(3.2), at(1.1), at(3.3), at(4.0)], [2], eager)
    assert [r.as_of_ms // DAY_MS - START_DAY for r in found.churn["c-1"]] == [3, 4]
