from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.cells import Refusal, duration_ms, key, moment, number, plain, pseudonym, shown, time_reader, zone
from schemas.errors import ConfigError

PRAGUE = ZoneInfo("Europe/Prague")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**15), max_value=10**15))
def test_a_number_survives_being_text(value: Decimal) -> None:
    assert Decimal(plain(number(str(value)))) == value


@pytest.mark.parametrize(
    "cell", ["", "abc", "12,5", "1.2.3", "NaN", "inf", "-Infinity", "1e999999", "1e-999999"]
)
def test_what_is_no_usable_number_is_refused(cell: str) -> None:
    with pytest.raises(Refusal):
        number(cell)


def test_decimal_comma_is_read_only_where_told() -> None:
    assert number("1234,5", decimal=",") == Decimal("1234.5")
    assert number(1234.5, decimal=",") == Decimal("1234.5")


@pytest.mark.parametrize(
    ("form", "cell", "expected"),
    [
        ("iso", "2020-03-01T10:00:00+02:00", "2020-03-01T08:00:00.000Z"),
        ("iso", "2020-03-01T10:00:00Z", "2020-03-01T10:00:00.000Z"),
        ("iso", "2020-03-01 10:00:00.123456", "2020-03-01T09:00:00.123Z"),
        ("iso", "2020-07-01", "2020-06-30T22:00:00.000Z"),
        ("iso", datetime.fromisoformat("2020-07-01T12:00"), "2020-07-01T10:00:00.000Z"),
        ("iso", datetime(2020, 7, 1, 12, tzinfo=UTC), "2020-07-01T12:00:00.000Z"),
        ("iso", datetime(2020, 7, 1, 12, tzinfo=timezone(timedelta(hours=-5))), "2020-07-01T17:00:00.000Z"),
        ("iso", date(2020, 7, 1), "2020-06-30T22:00:00.000Z"),
        ("epoch_s", 1583056800, "2020-03-01T10:00:00.000Z"),
        ("epoch_s", "1583056800.5", "2020-03-01T10:00:00.500Z"),
        ("epoch_ms", "1583056800001", "2020-03-01T10:00:00.001Z"),
        ("epoch_us", 1583056800001000, "2020-03-01T10:00:00.001Z"),
        ("epoch_ns", 1583056800001000000, "2020-03-01T10:00:00.001Z"),
        ("%Y-%m-%d %H:%M:%S", "2020-03-01 10:00:00", "2020-03-01T09:00:00.000Z"),
        ("%d.%m.%Y %H:%M", "1.3.2020  10:05", "2020-03-01T09:05:00.000Z"),
        ("%m/%d/%Y %I:%M:%S %p", "03/01/2020 02:05:06 PM", "2020-03-01T13:05:06.000Z"),
        ("%Y-%m-%d %H:%M:%S.%f", "2020-03-01 10:00:00.25", "2020-03-01T09:00:00.250Z"),
        ("%Y-%m-%dT%H:%M:%S%z", "2020-03-01T10:00:00-0500", "2020-03-01T15:00:00.000Z"),
        ("%b %d %Y", "Mar 01 2020", "2020-02-29T23:00:00.000Z"),
        ("%y%m%d", 930101, "1992-12-31T23:00:00.000Z"),
        # A file that was CSV and is Parquet now: its times need no format any more.
        ("%d.%m.%Y", datetime.fromisoformat("2020-03-01"), "2020-02-29T23:00:00.000Z"),
    ],
)
def test_every_way_to_write_a_time(form: str, cell: object, expected: str) -> None:
    assert time_reader(form, PRAGUE, None)(cell) == expected


@pytest.mark.parametrize(
    ("form", "cell"),
    [
        ("iso", "yesterday"),
        ("iso", "31.12.2020"),
        ("iso", 1583056800),
        ("epoch_s", "ten"),
        ("epoch_s", 10**30),
        ("%Y-%m-%d %H:%M:%S", "2020-03-01"),
        ("%Y-%m-%d %H:%M:%S", "2020-W09-7 10:00:00"),
        ("%Y-%m-%d %H:%M:%S", "2020-02-30 10:00:00"),
        ("%d.%m.%Y", "1.3.2020 10:00"),
        ("iso", datetime.fromisoformat("0001-01-01")),
    ],
)
def test_what_is_no_time_is_refused(form: str, cell: object) -> None:
    with pytest.raises(Refusal, match=r"is not a time of the format|number"):
        time_reader(form, PRAGUE, None)(cell)


def test_a_number_where_a_date_was_expected_asks_for_its_format() -> None:
    with pytest.raises(Refusal, match="give its format: epoch_s"):
        time_reader("iso", UTC, None)("1583056800")


def test_hours_are_counted_from_a_day() -> None:
    read = time_reader("hours", UTC, datetime(2020, 1, 1, tzinfo=UTC))
    assert read(25) == "2020-01-02T01:00:00.000Z"
    assert read("1.5") == "2020-01-01T01:30:00.000Z"


def test_months_are_those_of_the_calendar() -> None:
    read = time_reader("months", UTC, datetime(2020, 11, 1, tzinfo=UTC))
    assert [read(cell)[:10] for cell in (0, "2", 14, -11)] == [
        "2020-11-01", "2021-01-01", "2022-01-01", "2019-12-01",
    ]  # fmt: skip
    with pytest.raises(Refusal, match="is not a whole number of months"):
        read(1.5)
    with pytest.raises(Refusal, match="is not a time of the format 'months'"):
        read(10**6)
    assert time_reader("weeks", UTC, datetime(2020, 11, 1, tzinfo=UTC))(2) == "2020-11-15T00:00:00.000Z"


def test_clock_changes_have_one_reading() -> None:
    read = time_reader("iso", PRAGUE, None)
    # 02:30 happened twice in October, and not at all in March.
    assert read("2020-10-25 02:30:00") == "2020-10-25T00:30:00.000Z"
    assert read("2020-03-29 02:30:00") == "2020-03-29T01:30:00.000Z"


@pytest.mark.parametrize("written", ["7", "7 days", "-1d", "d", ""])
def test_what_is_no_length_of_time_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="7d, 12h"):
        duration_ms(written)


def test_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone is called 'Europe/Prag'"):
        zone("Europe/Prag")


def test_bounds_typed_by_a_person_are_times_or_refused() -> None:
    assert moment("2020-06-21T12:14") == datetime(2020, 6, 21, 12, 14, tzinfo=UTC)
    with pytest.raises(ConfigError, match="'soon' is not a time"):
        moment("soon")


def test_keys_of_one_meaning_are_one() -> None:
    assert {key(cell) for cell in (1, 1.0, "1", " 1 ", "1.00", Decimal(1))} == {"1"}
    assert key("01") != key("1")


def test_pseudonyms_depend_on_the_salt_and_are_no_card_numbers() -> None:
    first, second = pseudonym("4111111111111111", "a"), pseudonym("4111111111111111", "b")
    assert first != second
    assert len(first) == 32
    assert not {"4111", "1111"} & {first[:4], first[-4:]}


def test_a_shown_cell_is_short_and_has_no_card_number() -> None:
    assert len(shown("x" * 1000)) < 40
    assert "4111111111111111" not in shown("card 4111111111111111")


@pytest.mark.parametrize("cell", ["1.234", "12.000", "1.234,50", "."])
def test_a_point_beside_a_decimal_comma_is_refused_and_not_taken_for_one(cell: str) -> None:
    with pytest.raises(
        Refusal, match=r'has a point beside the decimal sign \',\': for thousands, remove: "\."'
    ):
        number(cell, decimal=",")
