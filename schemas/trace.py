"""W3C trace context, as far as Tidegate reads it: https://www.w3.org/TR/trace-context/#traceparent-header."""

import re
from typing import Final

TRACEPARENT: Final = "traceparent"
_FORM: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]([0-9a-f])(?:-.*)?")
_NONE: Final = b"0" * 32


def is_traceparent(value: bytes) -> bool:
    """Whether a value names a trace, so that it may go on; others are to be dropped, and their state too.

    >>> is_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    True
    >>> is_traceparent(b"a customer's name")
    False
    """
    return _trace_of(value) is not None


def sampled_trace_id(traceparent: bytes) -> str | None:
    """Id of a trace that is kept; `None` for one that is not, and for what is no `traceparent`.

    >>> sampled_trace_id(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    '4bf92f3577b34da6a3ce929d0e0e4736'
    >>> sampled_trace_id(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
    >>> sampled_trace_id(b"a customer's name")
    """
    found = _trace_of(traceparent)
    return found[1].decode() if found is not None and int(found[2], 16) & 1 else None


def _trace_of(traceparent: bytes) -> re.Match[bytes] | None:
    found = _FORM.fullmatch(traceparent)
    return None if found is None or found[1] == _NONE else found
