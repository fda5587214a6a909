"""W3C trace context of messages: what comes with a transaction goes out with its score."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from schemas.trace import TRACEPARENT, sampled_trace_id
from stream_app.ports import Headers

_NAMES: Final = frozenset({TRACEPARENT, "tracestate"})
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


def first_traced(records: Sequence[Any]) -> tuple[int, str] | None:
    """Row of the first record that is part of a sampled trace, and the id of that; `None` for none."""
    for row, record in enumerate(records):
        for name, value in trace_context(record.headers) if record.headers else ():
            if name == TRACEPARENT and (trace_id := sampled_trace_id(value)) is not None:
                return row, trace_id
    return None
