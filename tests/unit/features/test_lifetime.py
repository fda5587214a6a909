from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from features import lifetime
from features.arena import HistoryArena
from features.codec import History, Totals, decode, encode, encode_header, read_headers
from features.codes import MINOR_UNITS
from features.engine import Engine
from features.lifetime import (
    LIFETIME_NAMES,
    customer_names,
    customer_vector,
    customer_vectors,
    lifetime_vector,
    totals_before,
)
from features.record import RECORD, Records
from features.totals import update_totals
from tests.scoring import DAY_MS, START, at, corrected, events

START_MS = int(START.timestamp() * 1000)


def records(*days: float, **fields: object) -> Records:
    return events([at(day, **fields) for day in days]).records


def known(of: Records, as_of_day: float) -> dict[str, float]:
    """By name, of a customer whose whole life is in the history."""
    as_of = START_MS + int(as_of_day * DAY_MS)
    totals = totals_before(Totals().plus(of), of, as_of)
    return dict(zip(LIFETIME_NAMES, lifetime_vector(of, totals, as_of).tolist(), strict=True))


#   day 0         10     20                    150
#       xx---------x------x---------------------|   two on the first day, then silence
def test_silence_and_lifetime_reach_beyond_every_window():
    found = known(records(0.1, 0.2, 10.5, 20.5), 150.5)
    assert found["silence_s"] == 130 * 86_400
    assert found["tenure_s"] == pytest.approx(150.4 * 86_400)
    assert (found["txn_count_ever"], found["active_days_ever"]) == (4, 3)
    assert found["amount_sum_ever"] == 50.0
    assert found["interval_ever_s"] == 10 * 86_400
    assert found["silence_to_interval"] == pytest.approx(13.0)
    assert found["txn_per_active_day"] == pytest.approx(4 / 3)
    assert [found[f"active_days_{n}d"] for n in (30, 60, 90)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("date", "cosine", "sine"),
    [
        ((2026, 1, 1), 1, 0),
        ((2026, 4, 2), 0, 1),
        ((2026, 7, 2), -1, 0),
        ((2026, 10, 1), 0, -1),
        ((2027, 1, 1), 1, 0),
    ],
)
def test_the_time_of_year_is_a_place_on_a_circle(date, cosine, sine):
    later = (datetime(*date, tzinfo=UTC) - START).days
    found = known(records(0.5), later)
    assert found["year_cosine"] == pytest.approx(cosine, abs=0.02)
    assert found["year_sine"] == pytest.approx(sine, abs=0.02)


def test_active_days_of_windows_count_days_and_not_events():
    found = known(records(0.1, 0.2, 40.1, 40.2, 40.3, 70.5, 71.5), 80.0)
    assert [found[f"active_days_{n}d"] for n in (30, 60, 90)] == [2, 3, 4]


def test_money_in_is_not_spent():
    came = records(0.5, direction="credit", amount="99.00")
    found = known(np.concatenate([came, records(1.5)]), 3)
    assert (found["amount_sum_ever"], found["credit_sum_ever"]) == (12.5, 99.0)


def test_one_active_day_has_no_interval():
    found = known(records(0.1, 0.2), 5)
    assert np.isnan(found["interval_ever_s"])
    assert np.isnan(found["silence_to_interval"])


def test_who_has_no_transaction_yet_is_unknown():
    assert np.isnan(lifetime_vector(np.zeros(0, dtype=RECORD), Totals(), START_MS)).all()
    assert all(np.isnan(v) for v in known(records(5.0), 4.0).values())


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30, unique=True), st.floats(0, 101))
def test_what_came_later_is_not_known(days, as_of):
    """As of a moment in the past the vector is the one that was computed then."""
    days = sorted(round(day, 4) for day in set(days))
    whole, moment = records(*days), START_MS + int(as_of * DAY_MS)
    then = whole[whole["time_ms"] < moment]
    expected = lifetime_vector(then, Totals().plus(then), moment)
    found = lifetime_vector(whole, totals_before(Totals().plus(whole), whole, moment), moment)
    np.testing.assert_array_equal(found, expected)


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(0, 30))
def test_totals_depend_on_no_chunk_and_survive_storing(days, cut):
    whole = records(*days) if days else np.zeros(0, dtype=RECORD)
    totals = Totals().plus(whole[:cut]).plus(whole[cut:])
    assert totals == Totals().plus(whole)
    assert decode(encode(History(totals, whole))).totals == totals


def test_warming_up_compiles_what_the_first_churn_score_needs():
    lifetime.warm_up()
    assert lifetime._lifetimes.signatures


def test_vector_is_the_engines_and_lifetime_behind_it(engine: Engine):
    of = records(0.5, 1.5)
    as_of = START_MS + 5 * DAY_MS
    vector = customer_vector(engine, of, Totals().plus(of), as_of)
    named = dict(zip(customer_names(engine), vector.tolist(), strict=True))
    np.testing.assert_array_equal(vector[: len(engine.names)], engine.compute(of, None, as_of))
    assert named["silence_s"] == named["time_since_last_s"] == 3.5 * 86_400


@given(st.lists(st.floats(0, 200), max_size=20), st.floats(0, 200))
def test_compiled_look_back_does_what_its_text_says(days, as_of_day):
    past, as_of = records(*sorted(days)), START_MS + int(as_of_day * DAY_MS)
    plain = lifetime._look_back.py_func(past.view(np.recarray), 0, len(past), as_of)
    assert tuple(map(int, plain)) == tuple(map(int, lifetime._look_back(past, 0, len(past), as_of)))


@given(st.lists(st.floats(0, 200), max_size=20), st.floats(0, 201))
def test_compiled_lifetime_does_what_its_text_says(days, as_of_day):
    of, moment = records(*sorted(days)), START_MS + int(as_of_day * DAY_MS)
    totals = totals_before(Totals().plus(of), of, moment)
    header = read_headers(encode_header(totals)).view(np.recarray)
    place, plain = np.array([[0], [len(of)], [moment]]), np.empty((1, len(LIFETIME_NAMES)))
    lifetime._lifetimes.py_func(
        of.view(np.recarray), place[0], place[1], header, place[2], MINOR_UNITS, plain
    )
    np.testing.assert_array_equal(plain[0], lifetime_vector(of, totals, moment))


@example(of_each=[[60.0]], as_of_day=30.0)
@given(st.lists(st.lists(st.floats(0, 100), max_size=8), min_size=1, max_size=4), st.floats(0, 101))
def test_many_in_an_arena_are_each_alone(engine: Engine, of_each, as_of_day):
    arena, moment = HistoryArena(), START_MS + int(as_of_day * DAY_MS)
    histories = [records(*sorted(days)) if days else np.zeros(0, dtype=RECORD) for days in of_each]
    slots = [arena.put(str(i), History(Totals().plus(of), of)) for i, of in enumerate(histories)]
    found = customer_vectors(engine, arena, np.array(slots), np.full(len(slots), moment))
    alone = [customer_vector(engine, of, Totals().plus(of), moment) for of in histories]
    np.testing.assert_array_equal(found, alone)


#   day 0 ... 10                  200       as of 208
#       xxxxxxxx   y <------------ y          a correction moves the newest event to day 11, which is not kept
@pytest.mark.parametrize("as_of_day", [5.0, 100.0, 208.0])
def test_when_a_history_was_last_cut_down_changes_no_value(engine: Engine, as_of_day):
    found = []
    for cut in (False, True):
        arena = HistoryArena()
        slots = np.array([arena.put("c-1", History.empty())])
        wrong = at(200, transaction_id="y")
        moved = corrected(wrong, 1, event_time=at(11).event_time)
        for transaction in [*(at(day) for day in range(11)), wrong, moved]:
            event = events([transaction]).records
            update_totals(arena, event, slots, engine.compute_chunk(arena, event, slots))
        assert len(arena.records(int(slots[0]))) == 12
        if cut:
            arena.prune(int(slots[0]))
            assert len(arena.records(int(slots[0]))) == 1
        moment = START_MS + int(as_of_day * DAY_MS)
        found.append(customer_vectors(engine, arena, slots, np.array([moment])))
    np.testing.assert_array_equal(*found)


#   day 0  2  4 ... 18 | 20 ... 28 ... 148   what is before day 28 is kept no more
@pytest.mark.parametrize("as_of_day", [20.0, 60.0])
def test_a_moment_of_the_past_is_told_from_what_a_history_keeps(engine: Engine, as_of_day):
    whole = records(*range(0, 150, 2))
    kept = whole[whole["time_ms"] >= START_MS + 28 * DAY_MS]
    totals, moment = Totals().plus(whole), START_MS + int(as_of_day * DAY_MS)
    np.testing.assert_array_equal(
        customer_vector(engine, whole, totals, moment), customer_vector(engine, kept, totals, moment)
    )
