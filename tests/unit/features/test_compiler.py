"""Declarations that the catalogue does not have, compiled, against the oracle."""

from dataclasses import replace
from unittest import mock
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given

from features import compiler, kernels
from features.arena import HistoryArena
from features.catalogue import FEATURES
from features.codec import History
from features.compiler import generate
from features.definitions import EVENT, NAME_FIELDS, Feature, Op, Where, check
from features.engine import Engine
from features.record import to_records
from infra.time_zones import clock_of
from schemas.transaction import Transaction
from tests.examples import examples
from tests.parity import oracle
from tests.parity.oracle import is_duplicate, naive_features
from tests.parity.streams import streams
from tests.parity.values import differences

DEBIT = Where("direction", "==", "debit")
GROCERIES = Where("category", "==", "groceries")


def feature(name: str, op: Op, window: str | None = None, *where: Where, **more) -> Feature:
    unit = {Op.COUNT: "events", Op.DISTANCE: "km", Op.SPEED: "km/h", Op.ZSCORE: "std"}.get(op, "any")
    return Feature(name, "custom", op, unit, "A test.", window=window, where=where, **more)


CUSTOM = (
    feature("count_odd_window", Op.COUNT, "45s"),
    feature("count_channel_of_event", Op.COUNT, "2h", Where("channel", "==", EVENT)),
    feature("count_other_device", Op.COUNT, "45d", Where("device", "!=", EVENT)),
    feature("count_direction_of_event", Op.COUNT, "45d", Where("direction", "==", EVENT)),
    feature("sum_of_everything", Op.SUM, "3h"),
    feature("sum_groceries_here", Op.SUM, "45d", GROCERIES, Where("merchant", "==", EVENT)),
    feature("sum_groceries_twice", Op.SUM, "45d", GROCERIES, Where("category", "==", "dining")),
    feature("sum_not_groceries", Op.SUM, "45d", Where("category", "!=", "groceries")),
    feature("sum_groceries_other_window", Op.SUM, "2d", GROCERIES),
    feature("sum_category_of_event", Op.SUM, "2d", Where("category", "==", EVENT)),
    feature("mean_by_day", Op.MEAN, "45d", Where("hour", ">=", 6), Where("hour", "<", 22)),
    feature("mean_here", Op.MEAN, "2d", Where("merchant", "==", EVENT)),
    feature("std_mondays", Op.STD, "45d", Where("weekday", "==", 0)),
    feature("std_not_noon", Op.STD, "2d", Where("hour", "!=", 12), field="amount"),
    feature("min_credit", Op.MIN, "45d", Where("direction", "==", "credit")),
    feature("min_at_weekends", Op.MIN, "2d", Where("weekday", ">=", 5)),
    feature("max_type_of_event", Op.MAX, "45d", Where("transaction_type", "==", EVENT)),
    feature("max_abroad", Op.MAX, "2d", Where("country", "!=", EVENT), DEBIT),
    feature("distinct_merchants_debit", Op.DISTINCT, "45d", DEBIT, field="merchant"),
    feature("distinct_devices_debit", Op.DISTINCT, "2d", DEBIT, field="device"),
    feature("distinct_devices_here", Op.DISTINCT, "45d", Where("merchant", "==", EVENT), field="device"),
    feature("share_debit", Op.SHARE, "2d", DEBIT),
    feature("share_channel_of_event", Op.SHARE, "45d", Where("channel", "==", EVENT)),
    feature("since_atm", Op.TIME_SINCE, "45d", Where("channel", "==", "atm")),
    feature("since_other_country", Op.TIME_SINCE, "2d", Where("country", "!=", EVENT)),
    feature("first_debit", Op.SINCE_FIRST, "45d", DEBIT),
    feature("first_here", Op.SINCE_FIRST, "2d", Where("merchant", "==", EVENT)),
    feature("new_payee_by_transfer", Op.IS_NEW, "45d", DEBIT, field="counterparty"),
    feature("new_country_for_device", Op.IS_NEW, "2d", Where("device", "==", EVENT), field="country"),
    feature("km_from_debit", Op.DISTANCE, "2d", DEBIT),
    feature("km_on_this_device", Op.DISTANCE, "45d", Where("device", "==", EVENT)),
    feature("kmh_from_debit", Op.SPEED, "45d", DEBIT),
    feature("kmh_short", Op.SPEED, "2h"),
    feature("zscore_all", Op.ZSCORE, "45d"),
    feature("zscore_here", Op.ZSCORE, "2d", Where("merchant", "==", EVENT)),
    feature("event_amount", Op.EVENT_VALUE, field="amount"),
    feature("event_hour", Op.EVENT_VALUE, field="hour"),
    feature("amount_to_largest", Op.RATIO, of=("event_amount", "min_credit"), scale=0.1),
    feature("amount_to_zscore", Op.RATIO, of=("event_amount", "zscore_all")),
    feature("last_amount", Op.LAST, "45d", DEBIT),
    feature("last_channel", Op.LAST, "2d", field="channel"),
    feature("last_card_present", Op.LAST, "45d", field="card_present"),
    feature("last_category_before", Op.LAST, "30d", field="category", ends="2h"),
    feature("first_amount", Op.FIRST, "2h", field="amount"),
    feature("first_hour", Op.FIRST, "45d", DEBIT, field="hour"),
    feature("first_weekday_here", Op.FIRST, "45d", Where("merchant", "==", EVENT), field="weekday"),
    feature("count_month_before", Op.COUNT, "30d", ends="30d"),
    feature("count_just_before", Op.COUNT, "1h", ends="2h"),
    feature("sum_month_before", Op.SUM, "30d", DEBIT, ends="30d"),
    feature("sum_groceries_month_before", Op.SUM, "30d", GROCERIES, ends="30d"),
    feature("mean_before", Op.MEAN, "30d", ends="2h"),
    feature("std_before", Op.STD, "30d", ends="30d"),
    feature("zscore_before", Op.ZSCORE, "30d", ends="30d"),
    feature("min_before", Op.MIN, "2d", ends="1s"),
    feature("share_before", Op.SHARE, "30d", DEBIT, ends="30d"),
    feature("distinct_before", Op.DISTINCT, "30d", field="merchant", ends="30d"),
    feature("since_before", Op.TIME_SINCE, "30d", DEBIT, ends="30d"),
    feature("first_before", Op.SINCE_FIRST, "30d", ends="2h"),
    feature("new_but_for_today", Op.IS_NEW, "30d", field="merchant", ends="2h"),
    feature("km_from_yesterday", Op.DISTANCE, "30d", ends="2h"),
    feature("distinct_categories", Op.DISTINCT, "45d", field="category"),
    feature("distinct_currencies", Op.DISTINCT, "2d", field="currency"),
    feature("new_channel", Op.IS_NEW, "45d", field="channel"),
    feature("count_large", Op.COUNT, "45d", Where("amount", ">=", 10.0)),
    feature("count_small", Op.COUNT, "2d", Where("amount", "<", 0.11)),
    feature("count_amount_of_event", Op.COUNT, "45d", Where("amount", "==", EVENT)),
    feature(
        "since_other_amount_here",
        Op.TIME_SINCE,
        "2d",
        Where("merchant", "==", EVENT),
        Where("amount", "!=", EVENT),
    ),
    feature("count_at_m_1", Op.COUNT, "45d", Where("merchant", "==", "m-1")),
    feature("count_not_at_m_1", Op.COUNT, "2d", Where("merchant", "!=", "m-1")),
    feature("sum_in_france", Op.SUM, "45d", Where("country", "==", "FR")),
    feature("count_in_euros", Op.COUNT, "45d", Where("currency", "==", "EUR")),
    feature("count_other_currency", Op.COUNT, "45d", Where("currency", "!=", EVENT)),
    feature("share_card_present", Op.SHARE, "45d", Where("card_present", "==", "yes")),
    feature("count_present_as_event", Op.COUNT, "45d", Where("card_present", "==", EVENT)),
    feature("ratio_of_ratio", Op.RATIO, of=("amount_to_largest", "event_hour")),
)


@pytest.fixture(scope="module")
def custom() -> Engine:
    # So few that long windows are gone through by columns, in several parts, and by records.
    with mock.patch.object(compiler, "FEW", 3), mock.patch.object(compiler, "TILE", 4):
        return Engine(CUSTOM)


def test_custom_declarations_have_two_features_of_every_operation():
    check(CUSTOM)
    for op in Op:
        assert sum(f.op is op for f in CUSTOM) >= 2, op


@pytest.mark.slow
@examples(60)
@given(stream=streams())
def test_any_declaration_compiles_to_what_it_says(custom, stream):
    events = [message for message in stream if isinstance(message, Transaction)]
    arena = HistoryArena()
    slots = np.full(len(events), arena.put("c-1", History.empty()))

    found = custom.compute_chunk(arena, to_records(events, [e.amount_minor for e in events]), slots)

    for number, event in enumerate(events):
        past = events[:number]
        if is_duplicate(past, event):
            assert found.status[number] == kernels.DUPLICATE
        else:
            expected = naive_features(CUSTOM, past, event, event.event_time_ms)
            assert differences(CUSTOM, found.X[number], expected) == []


CLOCKED = (
    feature("hour_now", Op.EVENT_VALUE, field="hour"),
    feature("weekday_now", Op.EVENT_VALUE, field="weekday"),
    feature("night_now", Op.EVENT_VALUE, field="is_night"),
    feature("hour_before", Op.LAST, "45d", field="hour"),
    feature("evenings", Op.COUNT, "2d", Where("hour", ">=", 18)),
    feature("night_share", Op.SHARE, "45d", Where("hour", "<", 6)),
    feature("weekend_sum", Op.SUM, "90d", Where("weekday", ">=", 5)),
)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu"])
def test_hours_and_weekdays_are_those_of_the_zone(zone):
    """New York's clocks change twice within the streams; Kathmandu's hours begin at quarter past."""
    with mock.patch.object(compiler, "FEW", 3), mock.patch.object(compiler, "TILE", 4):
        engine = Engine(CLOCKED, clock=clock_of(zone))

    @examples(30)
    @given(stream=streams())
    def equal(stream):
        events = [message for message in stream if isinstance(message, Transaction)]
        arena = HistoryArena()
        slots = np.full(len(events), arena.put("c-1", History.empty()))
        found = engine.compute_chunk(arena, to_records(events, [e.amount_minor for e in events]), slots)
        with mock.patch.object(oracle, "ZONE", ZoneInfo(zone)):
            for number, event in enumerate(events):
                if found.status[number] == kernels.ACCEPTED:
                    expected = naive_features(CLOCKED, events[:number], event, event.event_time_ms)
                    assert differences(CLOCKED, found.X[number], expected) == []

    equal()


def test_a_zone_is_part_of_the_identity_and_of_the_words_and_utc_is_not():
    plain, there = Engine(FEATURES[:2]), Engine(FEATURES[:2], clock=clock_of("Europe/Prague"))
    assert there.hash == plain.hash + "-Europe/Prague"
    assert Engine(FEATURES[:2], clock=clock_of("UTC")).hash == plain.hash
    (hour,) = (f for f in FEATURES if f.name == "hour_of_day")
    said = clock_of("Europe/Prague").say(hour)
    assert (said.meaning, said.phrase) == (
        "Hour of the day, Europe/Prague.",
        "at {value:.0f} h Europe/Prague",
    )
    assert clock_of("UTC").say(hour) == hour


def test_each_declaration_compiles_alone_to_the_same_columns():
    for one in FEATURES:
        if one.op is not Op.RATIO:
            source = generate([one])
            compile(source, one.name, "exec")
            assert "out[0] = " in source
            assert "out[1]" not in source


def test_no_declarations_are_a_kernel_too():
    compile(generate([]), "none", "exec")
    assert "N_FEATURES = 0" in generate([])


def test_source_depends_on_the_computation_alone():
    reworded = [replace(f, meaning="Other.", phrase=None, unit="other", category="x") for f in FEATURES]

    assert generate(reworded) == generate(FEATURES)


def test_features_of_one_group_share_one_scan():
    counts = [feature(f"n_{w}", Op.COUNT, w, DEBIT) for w in ("1h", "2h", "3h")]

    assert generate(counts).count("g0_n += 1") == 1


def test_every_field_that_can_be_compared_is_one_of_a_record():
    source = generate(
        [feature(f"n_{name}", Op.COUNT, "1h", Where(name, "==", EVENT)) for name in NAME_FIELDS]
    )

    assert all(f"r.{name} == event_{name}" in source for name in NAME_FIELDS)
    assert all(f"event_{name} = event.{name}" in source for name in NAME_FIELDS)
