"""Cells of a table as people write them: text, numbers and times, and what to do where they are none."""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from zoneinfo import ZoneInfo

from schemas.card_number import mask_card_numbers
from schemas.errors import ConfigError
from schemas.fields import to_rfc3339

Cell = str | int | float | bool | Decimal | datetime | date | time | None

_WHOLE_FLOAT = re.compile(r"-?\d+\.0+")
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d|w)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
EPOCH_UNITS_MS = {
    "epoch_s": Decimal(1000),
    "epoch_ms": Decimal(1),
    "epoch_us": Decimal("0.001"),
    "epoch_ns": Decimal("0.000001"),
}
COUNT_UNITS_MS = {
    "seconds": Decimal(1000),
    "minutes": Decimal(60_000),
    "hours": Decimal(3_600_000),
    "days": Decimal(86_400_000),
    "weeks": Decimal(7 * 86_400_000),
}
MONTHS = "months"
COUNTS = (*COUNT_UNITS_MS, MONTHS)
"""Formats that count from some time."""
_MAX_MAGNITUDE = 64
_SHOWN_CHARACTERS = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_DIRECTIVES = frozenset("aAbBdjmuUVwWyYGx%")
_CLOCK_DIRECTIVES = frozenset("fHIMpSTX%")


class Refusal(ValueError):
    """A cell cannot become what its field needs. Its text never repeats the cell: it may be personal."""


def is_missing(cell: object) -> bool:
    """Whether a cell holds nothing: null, no text, or not-a-number."""
    return cell is None or cell == "" or cell != cell


def text(cell: object) -> str:
    """A cell as the text of an identifier.

    Whole numbers lose their point: a column of integers with gaps comes out of data frames as floats.

    >>> text(17850.0), text(12), text(True), text(" C1 "), text(Decimal("5.50"))
    ('17850', '12', 'true', 'C1', '5.50')
    """
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, Decimal):
        return format(cell, "f")
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    return str(cell)


@lru_cache(maxsize=65536, typed=True)
def key(cell: object) -> str:
    """What a cell is compared by, the same for a CSV file, a Parquet file and the mapping.

    >>> [key(cell) for cell in (1, 1.0, "1", "1.0", True, "TRUE", "007")]
    ['1', '1', '1', '1', 'true', 'true', '007']
    """
    written = text(cell)
    if _WHOLE_FLOAT.fullmatch(written):
        return written.partition(".")[0]
    return written.lower() if written.lower() in {"true", "false"} else written


def number(cell: object, decimal: str = ".") -> Decimal:
    """A cell as an exact number. Floats are read by their shortest text: 2.55 is 2.55.

    Raises:
        Refusal: It is not a finite number.

    >>> number("12,50", decimal=","), number(2.55)
    (Decimal('12.50'), Decimal('2.55'))
    """
    written = text(cell) if not isinstance(cell, float) else repr(cell)
    if decimal != "." and isinstance(cell, str):
        if "." in written:
            # 1.234 would be a thousandth of what it is.
            raise Refusal(f'has a point beside the decimal sign {decimal!r}: for thousands, remove: "."')
        written = written.replace(decimal, ".")
    try:
        value = Decimal(written)
    except InvalidOperation:
        raise Refusal("is not a number") from None
    if not value.is_finite():
        raise Refusal("is not a finite number")
    if abs(value.adjusted()) > _MAX_MAGNITUDE:
        # Beyond any amount, and 1e999999 would be written with a million digits.
        raise Refusal("is too large or too small a number")
    return value


def shown(written: str) -> str:
    """A cell's text for a report: cut, without card numbers. Only for columns of a few known words.

    >>> shown("4111111111111111 x")
    "'************1111 x'"
    """
    masked = mask_card_numbers(written.encode("utf-8", "replace")).decode("utf-8", "replace")
    return repr(masked if len(masked) <= _SHOWN_CHARACTERS else masked[: _SHOWN_CHARACTERS - 1] + "…")


def plain(value: Decimal) -> str:
    """A number as text without an exponent.

    >>> plain(Decimal("1E+3")), plain(Decimal("15.30"))
    ('1000', '15.30')
    """
    return format(value, "f")


def pseudonym(written: str, salt: str) -> str:
    """A stable stand-in for an identifier that must not be sent: 32 hexadecimal digits.

    Without a secret salt it can be found again by trying: card numbers are few.

    >>> pseudonym("4111111111111111", "a secret") == pseudonym("4111111111111111", "a secret")
    True
    """
    return hashlib.blake2b(
        written.encode("utf-8", "surrogateescape"), key=salt.encode()[:64], digest_size=16
    ).hexdigest()


def duration_ms(written: str) -> int:
    """Milliseconds of a length of time.

    Raises:
        ValueError: It is not a number with a unit.

    >>> duration_ms("7d"), duration_ms("1.5h"), duration_ms("0s")
    (604800000, 5400000, 0)
    """
    match = _DURATION.fullmatch(written.strip())
    if match is None:
        raise ValueError("is not a length of time; write 7d, 12h, 30m, 10s or 500ms")
    return int(Decimal(match[1]) * _UNIT_MS[match[2]])


def moment(written: str) -> datetime:
    """Aware time of an ISO 8601 date or time a person typed; without an offset it is UTC.

    Raises:
        ConfigError: It is neither.

    >>> moment("2020-06-21"), moment("2020-06-21T12:14+02:00").hour
    (datetime.datetime(2020, 6, 21, 0, 0, tzinfo=datetime.timezone.utc), 10)
    """
    try:
        parsed = datetime.fromisoformat(written)
    except ValueError:
        raise ConfigError(f"{written!r} is not a time; write 2020-06-21 or 2020-06-21T12:14+02:00") from None
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name.

    Raises:
        ValueError: There is none of that name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no time zone is called {name!r}; use a name such as Europe/Prague") from None


def time_reader(form: str, timezone: tzinfo, since: datetime | None) -> Callable[[object], str]:
    """A function from a cell to RFC 3339 text in UTC.

    Args:
        form: `iso`, one of `EPOCH_UNITS_MS`, one of `COUNTS`, or a `strptime` format.
        timezone: Of times without an offset. A time that the clocks showed twice is the first of
            the two; one that they left out is read with the offset before the change.
        since: Where `COUNTS` begin.

    Returns:
        The function; it raises `Refusal`.
    """
    parse = _parser(form)
    unit_ms = EPOCH_UNITS_MS.get(form) or COUNT_UNITS_MS.get(form)
    start = since or _EPOCH

    def read(cell: object) -> str:
        try:
            if isinstance(cell, datetime):
                parsed = cell
            elif isinstance(cell, date):
                parsed = datetime.combine(cell, time())
            elif unit_ms is not None:
                parsed = start + timedelta(milliseconds=int(number(cell) * unit_ms))
            elif form == MONTHS:
                parsed = _months_later(start, number(cell))
            else:
                parsed = parse(text(cell))
            if parsed.tzinfo is None:
                parsed = parsed.replace(tzinfo=timezone)
            return to_rfc3339(parsed)
        except Refusal:
            raise
        except (ValueError, OverflowError, InvalidOperation):
            hint = " (give its format: epoch_s, epoch_ms ...)" if form == "iso" and _is_number(cell) else ""
            raise Refusal(f"is not a time of the format {form!r}{hint}") from None

    return read


def _months_later(start: datetime, months: Decimal) -> datetime:
    if months != months.to_integral_value():
        raise Refusal("is not a whole number of months")
    years, month = divmod(start.month - 1 + int(months), 12)
    return start.replace(year=start.year + years, month=month + 1)


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) or text(cell).isdigit()


def _parser(form: str) -> Callable[[str], datetime]:
    """`strptime` costs 6 us; a date and a time of day repeat, so their halves are cached apart."""
    if form == "iso":
        return datetime.fromisoformat

    @lru_cache(maxsize=100_000)
    def parse(written: str, part: str) -> datetime:
        # The zone is the caller's business: most files have none.
        return datetime.strptime(written, part)  # noqa: DTZ007

    left, _, right = form.partition(" ")
    if not (_directives(left) <= _DATE_DIRECTIVES and right and _directives(right) <= _CLOCK_DIRECTIVES):
        return lambda written: parse(written, form)

    def parse_halves(written: str) -> datetime:
        day, _, clock = written.partition(" ")
        return datetime.combine(parse(day, left), parse(clock.strip(), right).time())

    return parse_halves


def _directives(form: str) -> set[str]:
    return set(re.findall("%(.)", form))
