"""Cursors: where a page ended, in a form that means nothing to those who pass it back."""

import base64
import binascii
from typing import Any

import orjson
import xxhash

from api.ports import InvalidCursor


def _question(asked: Any) -> str:
    return xxhash.xxh64_hexdigest(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS))


def encode_cursor(position: tuple[Any, ...] | None, asked: Any) -> str | None:
    """A cursor for the next page of this question; `None` behind the last.

    >>> decode_cursor(encode_cursor((1.5, "c"), {"sort": "score"}), {"sort": "score"})
    (1.5, 'c')
    """
    if position is None:
        return None
    text = orjson.dumps([_question(asked), *position])
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def decode_cursor(
    cursor: str | None, asked: Any, kinds: tuple[type, ...] | None = None
) -> tuple[Any, ...] | None:
    """Where the page before ended.

    Args:
        cursor: As it was given out.
        asked: The question: its filter and order.
        kinds: Types of the position's parts, where they are known.

    Raises:
        InvalidCursor: It was not given out for this question.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        question, *position = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidCursor("cursor: not one that was given out") from None
    if question != _question(asked):
        raise InvalidCursor("cursor: given out for another filter or order; begin again without it")
    # A number that no column holds would be an error of the database.
    if any(isinstance(part, int) and not -(2**63) <= part < 2**63 for part in position):
        raise InvalidCursor("cursor: not one that was given out")
    if kinds is not None and [type(part) for part in position] != list(kinds):
        raise InvalidCursor("cursor: not one that was given out")
    return tuple(position)
