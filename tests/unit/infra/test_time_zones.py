from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.clock import SPAN_BITS, Clock, table
from infra.time_zones import clock_of
from schemas.errors import ConfigError
from schemas.fields import EARLIEST, LATEST

ZONES = (
    "Europe/Prague",
    "America/Recife",
    "America/Sao_Paulo",
    "America/New_York",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)
LOWEST, HIGHEST = (int(limit.timestamp() * 1000) for limit in (EARLIEST, LATEST))


def offset_of(tables, time_ms):
    """As the kernel looks it up."""
    before, turn, after = tables
    span = min(max(time_ms >> SPAN_BITS, 0), len(turn) - 1)
    return int(after[span] if time_ms >= turn[span] else before[span])


@pytest.mark.parametrize("name", ZONES)
def test_offsets_are_those_of_the_database_at_every_time_and_at_every_change(name):
    clock = clock_of(name)
    tables, zone = table(clock), ZoneInfo(name)
    changes = [since + more for since in clock.since_ms[1:] for more in (-1, 0)]

    @settings(max_examples=300)
    @given(st.integers(LOWEST, HIGHEST))
    def equal(time_ms):
        for each in (time_ms, *changes):
            wanted = datetime.fromtimestamp(each // 1000, zone).utcoffset()
            assert offset_of(tables, each) == wanted.total_seconds() * 1000
        changes.clear()

    equal()


def test_utc_has_no_table():
    assert clock_of("UTC") == Clock()
    assert datetime.fromtimestamp(0, UTC).utcoffset().total_seconds() == 0


def test_a_zone_that_does_not_exist_is_refused_by_its_name():
    with pytest.raises(ConfigError, match="no time zone is called 'Europe/Prag'"):
        clock_of("Europe/Prag")


def test_clocks_that_change_twice_within_a_span_are_refused():
    with pytest.raises(ConfigError, match="time zone X: its clocks change twice within six days"):
        Clock("X", (5, 6), (0, 1))
