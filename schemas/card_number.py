"""Raw card numbers: found before anything is stored, masked wherever bytes are kept."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

_MIN_DIGITS, _MAX_DIGITS = 13, 19
# A longer run of digits is masked unread: trying all its parts would take seconds.
_LONGEST_READ = 64
_LONGEST_NAME = 128
# Text of 16 or 32 bits a character, which some exporters write, has zeros around each digit.
_RUN = re.compile(rb"(?<!\d)\d(?:[ -]?\d|\0{1,3}(?:[ -]\0{1,3})?\d){12,}(?!\d)")
# A JSON number as 4.111111111111111e15, which is refused like the same one written out. Not in quotes: ids
# in hexadecimal are full of an e between digits.
_EXPONENT = re.compile(rb"(?<![^\s:,\[])\d{1,20}(?:\.\d{1,20})?[eE][+-]?\d{1,2}(?![^\s,}\]])")
# JSON may write any character as an escape: 4 as \u0034, a space as \u0020, a dash as \u002d.
_ESCAPE = re.compile(rb"\\u00(3[0-9]|20|2[dD])")
# Every digit becomes 0 and everything else 1, without what may separate digits: a search for 13 digits in
# a row then costs a tenth of the regular expression, which only sees the few messages that have them.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 49 for byte in range(256))
_THIRTEEN = b"0" * _MIN_DIGITS
_DIGIT = re.compile(rb"\d")
_WHOLE = re.compile(r"\d(?:[ -]?\d){12,18}")
# Times and amounts are numbers in their own right: 1767225600000 is a moment, not a card.
_NUMERIC_FIELDS = frozenset(
    {"event_time", "label_time", "updated_at", "amount", "balance_before", "balance_after", "income"}
)


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others.

    Source:
        ISO/IEC 7812-1, annex B.

    >>> passes_luhn("4111111111111111"), passes_luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for position, character in enumerate(reversed(digits)):
        digit = ord(character) - 48
        if position % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0


def is_card_number(value: str) -> bool:
    """Whether the whole value is a card number, with or without spaces and dashes.

    >>> is_card_number("4111 1111 1111 1111"), is_card_number("tx-4111111111111111")
    (True, False)
    """
    value = value.strip()
    if not _WHOLE.fullmatch(value) or not value.isascii():
        return False
    digits = value.replace(" ", "").replace("-", "")
    return _MIN_DIGITS <= len(digits) <= _MAX_DIGITS and passes_luhn(digits)


def may_hold_card_number(raw: bytes) -> bool:
    """Whether a closer look is needed: no message with a card number is without 13 digits or an escape."""
    # One byte is found many times faster than four, and hardly any message has an escape.
    return _THIRTEEN in raw.translate(_DIGITS, b" -") or (b"\\" in raw and b"\\u00" in raw)


def card_number_field(raw: bytes) -> str | None:
    """Name of the first field of a JSON object that holds a raw card number.

    A run of 13 digits is looked for first: most messages have none and cost one scan.
    Text that is not a JSON object has no fields; its own validation refuses it.
    """
    if not may_hold_card_number(raw) or (_RUN.search(raw) is None and _ESCAPE.search(raw) is None):
        return None
    try:
        # The parser that will validate it, so that both read the same document.
        document = from_json(raw)
    except ValueError:
        return None
    return next(_card_fields(document), None)


def _card_fields(document: Any) -> Iterator[str]:
    # A stack, not recursion: depth is the sender's to choose.
    stack: list[tuple[str, Any]] = [("", document)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if is_card_number(key):
                    yield f"{_shown(path)}, in a field's name" if path else "a field's name"
                elif path or not (key in _NUMERIC_FIELDS and isinstance(inner, int | float)):
                    stack.append((f"{path}.{key}" if path else key, inner))
        elif isinstance(value, list):
            stack.extend((path, inner) for inner in value)
        elif is_card_number(_text(value)):
            yield _shown(path) if path else "the message"


def _text(value: Any) -> str:
    # A number column with gaps becomes floats in some exporters: 4111111111111111.0 is the same card.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _shown(path: str) -> str:
    # Names of fields are the sender's text too.
    return mask_card_numbers(path.encode()).decode()[:_LONGEST_NAME]


def mask_card_numbers(raw: bytes) -> bytes:
    """The same bytes with every run of 13-19 digits that passes Luhn cut to its last four.

    Masks more than `card_number_field` refuses (numbers inside text as well, and in UTF-16 and UTF-32): a
    mask costs nothing.

    >>> mask_card_numbers(b'{"note": "card 4111-1111-1111-1111 lost"}')
    b'{"note": "card ************1111 lost"}'
    """
    raw = _EXPONENT.sub(_mask_number, raw)
    if _ESCAPE.search(raw) is not None:
        plain = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw)
        masked = _RUN.sub(_mask, plain)
        if masked != plain:
            return masked
    return _RUN.sub(_mask, raw)


def _mask(match: re.Match[bytes]) -> bytes:
    found = match.group()
    digits = found.translate(None, b" -\0").decode()
    if len(digits) <= _LONGEST_READ and not _holds_card_number(digits):
        return found
    if b"\0" in found:
        # Byte for byte, so that the rest can still be read.
        return _DIGIT.sub(b"*", found, count=len(digits) - 4)
    return _last_four(digits)


def _holds_card_number(digits: str) -> bool:
    return any(
        passes_luhn(digits[start : start + length])
        for length in range(_MAX_DIGITS, _MIN_DIGITS - 1, -1)
        for start in range(len(digits) - length + 1)
    )


def _mask_number(match: re.Match[bytes]) -> bytes:
    text = _text(float(match.group()))
    return _last_four(text) if is_card_number(text) else match.group()


def _last_four(digits: str) -> bytes:
    return b"*" * (len(digits) - 4) + digits[-4:].encode()
