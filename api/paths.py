"""Customers' ids in paths: an id may have anything in it that a key may, also slashes and line feeds.

The server decodes a path before it is split, so that the id `x/features`, however it is sent, would look
like a question for the features of `x`. And regular expressions end before a line feed, so that `x` would be
answered for, or erased, in the place of an id that is an `x` and a line feed.
"""

import re
from typing import Final
from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import Scope

ID: Final = "{customer_id:id}"
"""A customer at the end of a route's path."""
ID_BEFORE: Final = "{customer_id:id_before}"
"""A customer before the last word of a route's path."""
_BEFORE: Final = b"/customers/"
_ENCODED: Final = re.compile("%2F", re.IGNORECASE)
# Half of a pair, which no sender can write: what is sent is decoded as UTF-8.
_SLASH: Final = "\udc2f"


def keep_slashes(scope: Scope) -> None:
    """Have slashes that a sender has encoded be part of an id in `path`, where no others would know them."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2" in raw and raw.startswith(_BEFORE):
        scope["path"] = _SLASH.join(map(unquote, _ENCODED.split(raw.decode("latin-1"))))


class _Id(Convertor[str]):
    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value.replace(_SLASH, "/")

    def to_string(self, value: str) -> str:
        return value.replace("/", _SLASH)


class _IdBefore(_Id):
    # Really the last: `$` allows a line feed behind it.
    regex = r"(?s:.*)(?=/\w+\Z)"


register_url_convertor("id", _Id())
register_url_convertor("id_before", _IdBefore())
