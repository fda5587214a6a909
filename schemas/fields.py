"""Field types that several messages share."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

SCHEMA_VERSION: Final = 1
NAMESPACE_PATTERN: Final = r"^[^{}\s]+$"
Namespace = Annotated[str, StringConstraints(pattern=NAMESPACE_PATTERN)]
"""First part of Redis keys: what stands in braces decides where a key is."""
EARLIEST = datetime(1980, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


def _parse_moment(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a time is RFC 3339 text with an offset, or milliseconds since 1970")
    if isinstance(value, int | float):
        # Pydantic guesses seconds or milliseconds by size; the contract says milliseconds.
        if not -(2**53) < value < 2**53:
            raise ValueError("a time in milliseconds since 1970 is out of range")
        try:
            return datetime.fromtimestamp(value / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            raise ValueError("a time in milliseconds since 1970 is out of range") from None
    if isinstance(value, str) and (len(value) < 16 or value[4] != "-"):
        # A bare date or a number in quotes, however long: pydantic would take both.
        raise ValueError("a time is RFC 3339 text with an offset, or milliseconds since 1970")
    if isinstance(value, str) and value[16:19] == ":60":
        return _leap_second(value) or value
    return value


def _leap_second(text: str) -> datetime | None:
    """The second before a leap second, which no other clock has; `None` where there can be none.

    Source:
        RFC 3339, sections 5.7 and D.
    """
    try:
        moment = datetime.fromisoformat(f"{text[:17]}59{text[19:]}".upper())
        at = moment.astimezone(UTC) if moment.tzinfo is not None else moment
        ends_month = (at + timedelta(days=1)).day == 1
    except (ValueError, OverflowError):
        return None
    return moment if ends_month and (at.hour, at.minute) == (23, 59) else None


def _check_moment(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs an offset, for example 2026-03-01T09:30:00+01:00 or ...Z")
    if value < EARLIEST:
        raise ValueError(
            f"a time before {EARLIEST.year} is a mistake (seconds sent as milliseconds look like 1970)"
        )
    if value >= LATEST:
        raise ValueError(f"a time from {LATEST.year} on is a mistake")
    return value


def to_rfc3339(moment: datetime) -> str:
    """UTC text with milliseconds, the one form this project writes.

    >>> to_rfc3339(datetime(2026, 3, 1, 9, 30, tzinfo=UTC))
    '2026-03-01T09:30:00.000Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_epoch_ms(time_ms: int) -> datetime:
    """Aware UTC datetime of milliseconds since 1970."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def epoch_ms_to_rfc3339(time_ms: int) -> str:
    """The text of `to_rfc3339`, from milliseconds since 1970 and in a third of the time.

    >>> epoch_ms_to_rfc3339(1772357400001)
    '2026-03-01T09:30:00.001Z'
    """
    day, rest = divmod(time_ms, 86_400_000)
    seconds, milliseconds = divmod(rest, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{_date(day)}T{minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{milliseconds:03}Z"


@lru_cache(maxsize=1024)
def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def to_epoch_ms(moment: datetime) -> int:
    """Whole milliseconds since 1970, cut down.

    Integer arithmetic: a float of seconds is off by one millisecond now and then.

    >>> to_epoch_ms(datetime(2026, 3, 1, 9, 30, 0, 1999, tzinfo=UTC))
    1772357400001
    """
    return (moment - _EPOCH) // _MILLISECOND


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Moment = Annotated[
    datetime,
    BeforeValidator(_parse_moment, json_schema_input_type=str | int),
    AfterValidator(_check_moment),
    PlainSerializer(to_rfc3339, when_used="json"),
]
"""RFC 3339 text with an offset, or integer milliseconds since 1970; UTC on the way out."""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=64)]
CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Proba = Annotated[float, Field(ge=0, le=1)]
Version = Annotated[
    Literal[1], Field(default=SCHEMA_VERSION, description="Version of this message's schema.")
]


class Part(BaseModel):
    """Base of what stands inside messages: immutable; unknown fields are accepted and kept out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Message(Part):
    """Base of every message."""

    schema_version: Version = SCHEMA_VERSION
