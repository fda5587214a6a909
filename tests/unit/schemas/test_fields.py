from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.fields import EARLIEST, LATEST, Moment, from_epoch_ms, to_epoch_ms, to_rfc3339

MOMENT = TypeAdapter(Moment)
FIRST_MS, LAST_MS = 315_532_800_000, 4_102_444_799_999


def problem(value: object) -> str:
    with pytest.raises(ValidationError) as refused:
        MOMENT.validate_python(value)
    return refused.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("value", "time_ms"),
    [
        ("2026-03-01T09:30:00Z", 1_772_357_400_000),
        ("2026-03-01T10:30:00+01:00", 1_772_357_400_000),
        ("2026-03-01T09:30Z", 1_772_357_400_000),
        ("2026-03-01T09:30:00.001999Z", 1_772_357_400_001),
        (1_772_357_400_001, 1_772_357_400_001),
        (1_772_357_400_001.0, 1_772_357_400_001),
        (datetime(2026, 3, 1, 9, 30, tzinfo=UTC), 1_772_357_400_000),
        # Half an hour before and after Europe's clocks go back: one hour apart in UTC.
        ("2025-10-26T02:30:00+02:00", 1_761_438_600_000),
        ("2025-10-26T02:30:00+01:00", 1_761_442_200_000),
        ("2024-02-29T23:59:59.999Z", 1_709_251_199_999),
        # A leap second counts as the one before it.
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("2017-01-01t05:29:60.5+05:30", 1_483_228_799_500),
        (FIRST_MS, FIRST_MS),
        (LAST_MS, LAST_MS),
    ],
)
def test_time_is_read_as_the_moment_it_names(value, time_ms):
    assert to_epoch_ms(MOMENT.validate_python(value)) == time_ms


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("2026-03-01T09:30:00", "a time needs an offset"),
        ("2026-03-01T09:30", "a time needs an offset"),
        (datetime(2026, 3, 1), "a time needs an offset"),  # noqa: DTZ001 - the point of the case
        ("2026-03-01", "a time is RFC 3339 text with an offset, or milliseconds"),
        ("1772357400001", "a time is RFC 3339 text with an offset, or milliseconds"),
        ("1772357400.000000", "a time is RFC 3339 text with an offset, or milliseconds"),
        ("0001772357400001", "a time is RFC 3339 text with an offset, or milliseconds"),
        ("", "a time is RFC 3339 text with an offset, or milliseconds"),
        (True, "a time is RFC 3339 text with an offset, or milliseconds"),
        ("yesterday at about noon", "a time is RFC 3339 text with an offset, or milliseconds"),
        ("2026-02-29T00:00:00Z", "valid datetime"),
        ("2026-03-01T25:00:00Z", "valid datetime"),
        # No second of a day's or month's middle is a leap second.
        ("2026-03-01T09:30:60Z", "valid datetime"),
        ("2026-03-01T23:59:60Z", "valid datetime"),
        ("2016-12-31T23:59:61Z", "valid datetime"),
        ("2016-12-31T23:59:60", "a time needs an offset"),
        ("9999-12-31T23:59:60-01:00", "valid datetime"),
        (None, "valid datetime"),
        ([], "valid datetime"),
        ({}, "valid datetime"),
        (1_772_357_400, "a time before 1980 is a mistake (seconds sent as milliseconds look like 1970)"),
        (0, "a time before 1980 is a mistake"),
        (-1, "a time before 1980 is a mistake"),
        (FIRST_MS - 1, "a time before 1980 is a mistake"),
        ("1970-01-01T00:00:00Z", "a time before 1980 is a mistake"),
        ("0001-01-01T00:00:00+23:59", "a time before 1980 is a mistake"),
        (LAST_MS + 1, "a time from 2100 on is a mistake"),
        ("2100-01-01T00:00:00Z", "a time from 2100 on is a mistake"),
        ("9999-12-31T23:59:59-23:59", "a time from 2100 on is a mistake"),
        (2**53, "out of range"),
        (2**53 - 1, "out of range"),
        (float("nan"), "out of range"),
        (float("inf"), "out of range"),
    ],
)
def test_time_that_could_be_meant_otherwise_is_refused(value, sentence):
    assert sentence in problem(value)


@given(st.integers(FIRST_MS, LAST_MS))
def test_every_millisecond_survives_the_round_trip(time_ms):
    moment = MOMENT.validate_python(time_ms)

    assert to_epoch_ms(moment) == time_ms
    assert to_epoch_ms(from_epoch_ms(time_ms)) == time_ms
    assert to_epoch_ms(MOMENT.validate_python(to_rfc3339(moment))) == time_ms


@given(
    st.datetimes(datetime(1980, 1, 2), datetime(2099, 12, 30)),  # noqa: DTZ001 - the offset comes next
    st.integers(-1439, 1439),
)
def test_written_time_is_utc_whatever_offset_came_in(local, minutes):
    moment = local.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    written = MOMENT.dump_json(moment).decode().strip('"')

    assert written.endswith("Z")
    assert to_epoch_ms(datetime.fromisoformat(written)) == to_epoch_ms(moment)


def test_accepted_years_are_1980_to_2099():
    assert (to_epoch_ms(EARLIEST), to_epoch_ms(LATEST)) == (FIRST_MS, LAST_MS + 1)
