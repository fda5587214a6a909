"""What holds for every rule, and times: what is made of cells, and which are refused."""

from datetime import datetime

import pytest

from tests.unit.infra.mappings import map_row, mapping, problem, value


def test_words_for_nothing_are_nothing_everywhere() -> None:
    rules = mapping(empty="[NA, '-', 9999]", account_id="a", latitude="b", balance_after="c")
    row = map_row(rules, a="NA", b="-", c=9999)
    assert row.message is not None
    assert {"account_id", "latitude", "balance_after"}.isdisjoint(row.message)


def test_decimal_comma_holds_for_cells_and_not_for_the_mapping() -> None:
    rules = mapping(decimal="','", amount="{column: amount, remove: '.'}", balance_after="{constant: 1.5}")
    row = map_row(rules, amount="1.234,50")
    assert row.message is not None
    assert (row.message["amount"], row.message["balance_after"]) == ("1234.50", "1.5")


@pytest.mark.parametrize(
    ("rule", "cells", "expected"),
    [
        ("{columns: [year, month, day, clock], format: '%Y %m %d %H:%M', timezone: America/New_York}",
         {"year": 2020, "month": 3, "day": 1, "clock": "06:21"}, "2020-03-01T11:21:00.000Z"),
        ("{column: step, format: hours, since: '2020-01-01T00:00:00Z'}", {"step": 25},
         "2020-01-02T01:00:00.000Z"),
        ("{column: step, format: days, since: 2020-01-01, timezone: Europe/Prague}", {"step": 1},
         "2020-01-01T23:00:00.000Z"),
        ("{column: t, format: epoch_s}", {"t": 1583056800}, "2020-03-01T10:00:00.000Z"),
        ("t", {"t": datetime.fromisoformat("2020-03-01")}, "2020-03-01T00:00:00.000Z"),
    ],
)  # fmt: skip
def test_times_from_one_column_or_several(rule: str, cells: dict[str, object], expected: str) -> None:
    assert value("event_time", rule, **cells) == expected


@pytest.mark.parametrize(
    ("rule", "cell", "expected"),
    [
        ("{column: a, format: '%d.%m.%Y'}", "2020-01-01",
         "event_time: column a is not a time of the format '%d.%m.%Y'"),
        ("a", "1970-01-01T00:00:00Z", "event_time: a time before 1980 is a mistake"),
    ],
)  # fmt: skip
def test_times_that_cannot_be_are_refused_with_field_and_column(rule: str, cell: str, expected: str) -> None:
    assert problem("event_time", rule, a=cell).startswith(expected)


def test_a_rule_without_a_zone_takes_the_mapping_s() -> None:
    row = map_row(mapping(timezone="Europe/Prague"), ts="2020-03-01 10:00:00")
    assert row.message is not None
    assert row.message["event_time"] == "2020-03-01T09:00:00.000Z"
