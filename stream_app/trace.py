"""W3C trace context of messages: what comes with a transaction goes out with its score."""

from collections.abc import Iterable
from typing import Any, Final

from stream_app.ports import Headers

_NAMES: Final = frozenset({"traceparent", "tracestate"})
_LONGEST = 512


def trace_context(headers: Iterable[tuple[str, Any]] | None) -> Headers:
    """The trace context among a record's headers; nothing else of them leaves.

    >>> trace_context([("tracestate", b"vendor=1"), ("cookie", b"secret")])
    (('tracestate', b'vendor=1'),)
    >>> trace_context(())
    ()
    """
    if not headers:
        return ()
    return tuple(
        (name, bytes(value))
        for name, value in headers
        if name in _NAMES and value is not None and len(value) <= _LONGEST
    )
