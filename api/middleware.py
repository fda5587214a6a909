"""What happens around every request: its body is bounded, its time is measured.

Plain ASGI: Starlette's own base class costs more than a lookup does.
"""

import time

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.trace import TRACEPARENT, sampled_trace_id

MAX_BODY_BYTES = 1 << 20
# No route reads a body of these.
_BODILESS = frozenset({"GET", "HEAD"})
_TRACEPARENT = TRACEPARENT.encode()
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class BodyLimit:
    """Refuses a body that is too long before it is in memory: HTTP 413."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body counted."""
        if scope["type"] != "http" or scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        received = int(declared) if declared.isdigit() and int(declared) > MAX_BODY_BYTES else 0

        async def bounded() -> Message:
            nonlocal received
            if received <= MAX_BODY_BYTES:
                message = await receive()
                received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                # Raised where the route reads, so that it is answered like every other error.
                raise HTTPException(
                    413, f"the body is longer than {MAX_BODY_BYTES} bytes", {"Connection": "close"}
                )
            return message

        await self._app(scope, bounded, send)


class RequestMetrics:
    """Counts and times requests.

    Args:
        registry: Where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "tidegate_http_requests_total",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tidegate_http_request_seconds",
            "Time to answer a request.",
            ["route"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
            registry=registry,
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.under_way = 0
        Gauge(
            "tidegate_http_requests_in_progress", "Requests that are being answered.", registry=registry
        ).set_function(lambda: self.under_way)

    def note(self, method: str, route: str, status: int, seconds: float, trace_id: str | None = None) -> None:
        """A request was answered; `trace_id` where it is part of a sampled trace."""
        # Prometheus' own look-up by labels takes as long as all the rest here.
        if (known := self._known.get((method, route, status))) is None:
            known = self._requests.labels(method, route, str(status)), self._seconds.labels(route)
            self._known[method, route, status] = known
        known[0].inc()
        known[1].observe(seconds, None if trace_id is None else {"trace_id": trace_id})


class Measured:
    """Counts and times requests.

    Args:
        app: The application.
        metrics: What is counted.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500  # what becomes of an error that nobody foresaw

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.under_way += 1
        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.under_way -= 1
            # The route's pattern, never the path: paths name customers. Methods are the sender's words too.
            route = getattr(scope.get("route"), "path_format", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.note(method, route, status, time.perf_counter() - started, trace_of(scope))


def trace_of(scope: Scope) -> str | None:
    """The sampled trace that a request is part of."""
    return next((sampled_trace_id(v) for name, v in scope["headers"] if name == _TRACEPARENT), None)
