"""W3C trace context of messages: what comes with a transaction goes out with its score."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from schemas.card_number import mask_card_numbers
from schemas.trace import TRACEPARENT, is_traceparent, sampled_trace_id
from stream_app.ports import Headers

_NAMES: Final = frozenset({TRACEPARENT, "tracestate"})
_LONGEST = 512


def trace_context(headers: Iterable[tuple[str, Any]] | None) -> Headers:
    """The trace context among a record's headers; nothing else of them leaves, and no card number in it.

    >>> parent = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    >>> trace_context([parent, ("tracestate", b"vendor=1"), ("cookie", b"secret")]) == (
    ...     parent, ("tracestate", b"vendor=1"))
    True
    >>> trace_context([("traceparent", b"a name"), ("tracestate", b"vendor=1")])
    ()
    """
    if not headers:
        return ()
    found = tuple(
        (name, bytes(value))
        for name, value in headers
        if name in _NAMES and value is not None and len(value) <= _LONGEST and _may_leave(name, value)
    )
    # A state says something of the trace alone that is named with it.
    return found if any(name == TRACEPARENT for name, _ in found) else ()


def _may_leave(name: str, value: bytes) -> bool:
    return is_traceparent(value) if name == TRACEPARENT else mask_card_numbers(value) == value


def first_traced(records: Sequence[Any]) -> tuple[int, str] | None:
    """Row of the first record that is part of a sampled trace, and the id of that; `None` for none."""
    for row, record in enumerate(records):
        for name, value in trace_context(record.headers) if record.headers else ():
            if name == TRACEPARENT and (trace_id := sampled_trace_id(value)) is not None:
                return row, trace_id
    return None
