"""Clocks of time zones, from the IANA database."""

from datetime import datetime, tzinfo
from typing import Final

from features.clock import UTC, Clock
from infra.cells import zone
from schemas.errors import ConfigError
from schemas.fields import EARLIEST, LATEST

_STEP_S: Final = 2 * 86_400


def clock_of(name: str) -> Clock:
    """The clocks of a zone, for all times that an event may have.

    Raises:
        ConfigError: There is no zone of that name.
    """
    if name == "UTC":
        return UTC
    try:
        place = zone(name)
    except ValueError as unknown:
        raise ConfigError(str(unknown)) from None
    start_s, end_s = int(EARLIEST.timestamp()), int(LATEST.timestamp())
    since, offsets = [start_s], [_offset_s(place, start_s)]
    for time_s in range(start_s + _STEP_S, end_s + _STEP_S, _STEP_S):
        offset = _offset_s(place, time_s)
        if offset != offsets[-1]:
            since.append(_turn_s(place, time_s - _STEP_S, time_s))
            offsets.append(offset)
    return Clock(name, tuple(1000 * s for s in since), tuple(1000 * s for s in offsets))


def _offset_s(place: tzinfo, time_s: int) -> int:
    offset = datetime.fromtimestamp(time_s, place).utcoffset()
    return int(offset.total_seconds()) if offset else 0


def _turn_s(place: tzinfo, before_s: int, after_s: int) -> int:
    """The first second of the offset after."""
    offset = _offset_s(place, after_s)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_s(place, middle_s) == offset:
            after_s = middle_s
        else:
            before_s = middle_s
    return after_s
