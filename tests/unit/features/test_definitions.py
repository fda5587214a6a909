from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalogue import FEATURES
from features.definitions import (
    DAY_MS,
    EVENT,
    MAX_WINDOW_MS,
    RETENTION_MS,
    Feature,
    Op,
    Where,
    check,
    declaration_hash,
    parse_duration_ms,
)
from schemas.errors import ConfigError

COUNT = Feature("txn_count_1h", "velocity", Op.COUNT, "events", "Transactions in the last hour.", window="1h")
SPENT = Feature(
    "spent_7d",
    "amount",
    Op.SUM,
    "currency",
    "Spent in the last 7 days.",
    field="amount",
    window="7d",
    where=(Where("direction", "==", "debit"),),
)
AMOUNT = Feature("amount", "transaction", Op.EVENT_VALUE, "currency", "Amount.", field="amount")
RATIO = Feature("ratio", "trend", Op.RATIO, "ratio", "One over the other.", of=("amount", "spent_7d"))


def problem(*features: Feature) -> str:
    with pytest.raises(ConfigError) as refused:
        check(features)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "time_ms"), [("30s", 30_000), ("5m", 300_000), ("6h", 21_600_000), ("90d", 90 * DAY_MS)]
)
def test_duration_is_a_number_and_a_unit(text, time_ms):
    assert parse_duration_ms(text) == time_ms


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5h", "7 d", "7w", "7D", "7d\n", "d7"])
def test_other_text_is_no_duration(text):
    with pytest.raises(ConfigError, match="is not a duration"):
        parse_duration_ms(text)


def test_declarations_that_work_are_accepted():
    check((COUNT, SPENT, AMOUNT, RATIO))
    check(FEATURES)
    check(())


def test_feature_without_a_window_has_a_window_of_zero():
    assert (AMOUNT.window_ms, SPENT.window_ms) == (0, 7 * DAY_MS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "TxnCount"}, "a name is lower-case letters, digits and underscores"),
        ({"name": "1h_count"}, "a name is lower-case letters, digits and underscores"),
        ({"name": ""}, "a name is lower-case letters, digits and underscores"),
        ({"name": "txn-count"}, "a name is lower-case letters, digits and underscores"),
        ({"window": None}, "needs a window, like 30d"),
        ({"window": "soon"}, "'soon' is not a duration; write a number and s, m, h or d, like 90d"),
        ({"window": "91d"}, "the window reaches further back than the history kept (90d)"),
        ({"window": "60d", "ends": "31d"}, "the window reaches further back than the history kept (90d)"),
        ({"ends": "0d"}, "'0d' is not a duration"),
        ({"field": "amount"}, "count takes no field"),
        ({"op": Op.TIME_SINCE, "field": "merchant"}, "time_since takes no field"),
        ({"op": Op.LAST, "field": "merchant"}, "field must be one of amount, hour, weekday, category"),
        ({"scale": float("nan")}, "scale must be a number"),
        ({"scale": float("inf")}, "scale must be a number"),
        ({"op": Op.DISTINCT}, "field must be one of merchant, device, counterparty, country"),
        ({"op": Op.DISTINCT, "field": "hour"}, "field must be one of merchant, device"),
        ({"op": Op.IS_NEW, "field": "hour"}, "field must be one of merchant, device"),
        ({"op": Op.SUM, "field": "merchant"}, "sum is of amounts; field must be amount"),
        ({"op": Op.ZSCORE, "field": "hour"}, "zscore is of amounts; field must be amount"),
        ({"op": Op.EVENT_VALUE, "field": "amount"}, "event_value takes no window and no conditions"),
        ({"op": Op.EVENT_VALUE, "window": None}, "field must be one of amount, hour, weekday, is_night"),
        ({"op": Op.EVENT_VALUE, "window": None, "field": "merchant"}, "field must be one of amount, hour"),
        ({"op": Op.RATIO, "of": ("amount", "spent_7d")}, "ratio takes no window and no conditions"),
        ({"op": Op.RATIO, "window": None}, "a ratio needs two features declared above it, not ()"),
        ({"op": Op.RATIO, "window": None, "of": ("amount",)}, "a ratio needs two features declared above it"),
        (
            {"op": Op.RATIO, "window": None, "of": ("amount", "later")},
            "a ratio needs two features declared above it",
        ),
        (
            {"op": Op.RATIO, "window": None, "of": ("txn_count_1h", "amount")},
            "a ratio needs two features declared above it",
        ),
    ],
)
def test_declaration_that_cannot_work_is_refused_by_name_and_reason(change, reason):
    broken = replace(COUNT, **change)
    said = problem(SPENT, AMOUNT, broken)

    assert said.startswith(f"feature {broken.name!r}: ")
    assert reason in said


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (Where("hour", "==", "noon"), "hour == noon: compare with a number by ==, !=, < or >="),
        (Where("weekday", ">", 4), "weekday > 4: compare with a number by ==, !=, < or >="),
        (Where("hour", "==", EVENT), "hour == event: compare with a number"),
        (Where("category", "<", "fuel"), "category < fuel: only == and != work on category"),
        (Where("merchant", ">=", EVENT), "merchant >= event: only == and != work on merchant"),
        (Where("merchant", "==", 17), "merchant == 17: write an id in quotes"),
        (Where("merchant", "==", ""), "merchant == : write an id in quotes"),
        (Where("hour", "==", 24), "hour == 24: hour is 0 to 23"),
        (Where("weekday", "<", -1), "weekday < -1: weekday is 0 to 6"),
        (Where("country", "==", "France"), "country == France: write 2 capital letters"),
        (Where("currency", "!=", "eur"), "currency != eur: write 3 capital letters"),
        (Where("card_present", "==", "maybe"), "card_present == maybe: the values are no, yes"),
        (Where("channel", "==", "fax"), "channel == fax: the values are pos, ecommerce, atm"),
        (Where("channel", "==", 1), "channel == 1: the values are pos, ecommerce, atm"),
        (Where("direction", "==", "out"), "direction == out: the values are debit, credit"),
        (Where("transaction_type", "!=", "gift"), "transaction_type != gift: the values are purchase"),
        (Where("amount", "==", 10), "amount == 10: compare with a number by < or >=, or with event"),
        (Where("amount", "<", EVENT), "amount < event: only == and != compare with the event's"),
        (Where("amount", "<", "ten"), "amount < ten: compare with a number by < or >="),
        (Where("amount", "<", float("inf")), "amount < inf: compare with a number by < or >="),
        (Where("amount", ">=", True), "amount >= True: compare with a number by < or >="),
        (Where("ip_address", "==", EVENT), "ip_address == event: the history keeps no field 'ip_address'"),
    ],
)
def test_condition_that_cannot_work_is_refused_by_name_and_reason(where, reason):
    fine = Where("direction", "==", "debit")

    assert problem(replace(COUNT, where=(fine, where))).startswith(f"feature 'txn_count_1h': {reason}")


@pytest.mark.parametrize(
    "where",
    [
        Where("hour", "<", 6),
        Where("weekday", ">=", 5),
        Where("hour", "!=", 12),
        Where("device", "!=", EVENT),
        Where("country", "==", EVENT),
        Where("channel", "==", EVENT),
        Where("category", "!=", "fuel"),
        Where("direction", "==", EVENT),
        Where("merchant", "==", "m-1"),
        Where("country", "!=", "FR"),
        Where("currency", "==", "EUR"),
        Where("currency", "!=", EVENT),
        Where("amount", ">=", 99.5),
        Where("amount", "==", EVENT),
        Where("amount", "<", 10),
        Where("card_present", "==", "no"),
    ],
)
def test_condition_that_works_is_accepted(where):
    check((replace(COUNT, where=(where,)),))


def test_name_declared_twice_is_refused():
    assert problem(COUNT, SPENT, COUNT) == "feature 'txn_count_1h': declared twice"


@pytest.mark.parametrize(
    "change", [{"meaning": "Other words."}, {"phrase": "{value}"}, {"unit": "pieces"}, {"category": "other"}]
)
def test_hash_does_not_change_with_the_wording(change):
    assert declaration_hash((replace(COUNT, **change), SPENT)) == declaration_hash((COUNT, SPENT))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "txn_count_60m"},
        {"op": Op.SHARE},
        {"field": "amount"},
        {"window": "2h"},
        {"ends": "2h"},
        {"where": (Where("hour", "<", 6),)},
        {"of": ("a", "b")},
        {"scale": 2.0},
    ],
)
def test_hash_changes_with_what_is_computed(change):
    assert declaration_hash((replace(COUNT, **change), SPENT)) != declaration_hash((COUNT, SPENT))


def test_hash_test_knows_every_part_of_a_declaration():
    computed = {"name", "op", "field", "window", "ends", "where", "of", "scale"}

    assert {f.name for f in fields(Feature)} == computed | {"meaning", "phrase", "unit", "category"}


def test_hash_changes_with_order_and_number():
    assert len({declaration_hash(d) for d in [(COUNT, SPENT), (SPENT, COUNT), (COUNT,), ()]}) == 4


@given(st.permutations(FEATURES))
def test_hash_depends_on_the_declarations_alone(features):
    assert declaration_hash(features) == declaration_hash(tuple(features))


def test_history_is_kept_for_the_longest_window_of_an_event_that_is_late():
    assert RETENTION_MS == MAX_WINDOW_MS + 30 * DAY_MS
