"""What is asked for most, without all that is done for each request elsewhere.

Only the plainest form: a GET without parameters of an id without escapes, a POST of one body of a declared
length. Whatever else is asked goes to the documented route, which has the same answer made by the same
function. Login, scopes, limits, audit, metrics and headers are those of every route, by the same functions.
Where there is no answer to give, the request goes the way of all others, which is told what went wrong here
and words it.
"""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from api.deps import Services, services
from api.exchange import entity_tag, is_known, name_request
from api.gate import PRINCIPAL, Admission, authorise
from api.middleware import MAX_BODY_BYTES, RequestMetrics, trace_of
from api.tokens import InvalidToken
from schemas.card_number import is_card_number

_ID: Final = r"([A-Za-z0-9._:-]{1,64})"
_FAILED: Final = "tidegate.failed"
_JSON: Final = (b"content-type", b"application/json")
Answer = Callable[[Services, str], Awaitable[Any]]
Score = Callable[[Services, bytes], Awaitable[Any]]


class QuickRoute(BaseRoute, ABC):
    """A route whose plainest requests are answered before all middleware.

    Args:
        method: The only one that is taken.
        path_format: As the documented route has it: metrics, scopes and limits go by it.
    """

    def __init__(self, method: str, path_format: str) -> None:
        self.path_format = self.path = path_format
        self.method, self.methods = method, {method}

    @abstractmethod
    def named(self, scope: Scope) -> dict[str, str] | None:
        """What the path of a request names; `None` where it is not of the plainest form."""

    @abstractmethod
    async def found(self, given: Services, scope: Scope, receive: Receive) -> Any:
        """What is to be JSON."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is of the plainest form."""
        if scope["type"] != "http" or scope["method"] != self.method or scope["query_string"]:
            return Match.NONE, {}
        named = self.named(scope)
        if named is None or scope.get("root_path"):
            return Match.NONE, {}
        return Match.FULL, {"route": self, "endpoint": self.found, "path_params": named}

    async def answer(self, scope: Scope, receive: Receive) -> bytes:
        """The JSON for a request that matches, if who sends it may have it."""
        connection = HTTPConnection(scope)
        await authorise(connection)
        return orjson.dumps(await self.found(await services(connection), scope, receive))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or fail as was found before."""
        failed: Exception | None = scope.get(_FAILED)
        if failed is not None:
            raise failed
        body = await self.answer(scope, receive)
        headers = [(b"content-length", str(len(body)).encode()), _JSON]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class QuickLookup(QuickRoute):
    """A lookup of one customer.

    Args:
        path_format: With `{customer_id}`.
        answer: Makes what is to be JSON of an id.
    """

    def __init__(self, path_format: str, answer: Answer) -> None:
        super().__init__("GET", path_format)
        self._answer = answer
        before, after = path_format.split("{customer_id}")
        self._plain = re.compile(re.escape(before) + _ID + re.escape(after))

    def named(self, scope: Scope) -> dict[str, str] | None:
        """The customer."""
        found = self._plain.fullmatch(scope["path"])
        return None if found is None or is_card_number(found[1]) else {"customer_id": found[1]}

    async def found(self, given: Services, scope: Scope, receive: Receive) -> Any:
        """The customer's answer."""
        return await self._answer(given, scope["path_params"]["customer_id"])


class QuickScore(QuickRoute):
    """A score of what is sent.

    Args:
        path: Of the route.
        answer: Makes what is to be JSON of a body.
    """

    def __init__(self, path: str, answer: Score) -> None:
        super().__init__("POST", path)
        self._answer = answer

    def named(self, scope: Scope) -> dict[str, str] | None:
        """Nothing, where the body has a length that any request may have."""
        if scope["path"] != self.path:
            return None
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if len(lengths) != 1 or not lengths[0].isdigit() or int(lengths[0]) > MAX_BODY_BYTES:
            return None
        return {}

    async def found(self, given: Services, scope: Scope, receive: Receive) -> Any:
        """The body's answer."""
        return await self._answer(given, await Request(scope, receive).body())


class QuickLane:
    """Answers quick routes before all middleware: a dozen layers cost more than the features.

    Args:
        app: For everything else.
        routes: Those that it answers, which are also among those of `app`.
        admission: As the gate has it.
        metrics: Of requests.
        headers: That every answer has.
        seconds: Limit of an answer.
        origins: Whether pages of other origins may ask: their answers get more headers from a middleware.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[QuickRoute],
        admission: Admission,
        metrics: RequestMetrics,
        headers: list[tuple[bytes, bytes]],
        seconds: float,
        *,
        origins: bool,
    ) -> None:
        self._app, self._routes, self._admission, self._metrics = app, routes, admission, metrics
        self._headers, self._seconds, self._origins = headers, seconds, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is plain; pass the rest on."""
        for route in self._routes:
            match, found = route.matches(scope)
            if match is not Match.NONE:
                break
        else:
            await self._app(scope, receive, send)
            return
        if self._origins and any(name == b"origin" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        admission, metrics = self._admission, self._metrics
        request_id = name_request(scope)
        bound = bind_contextvars(request_id=request_id)
        added = admission.begin(scope)
        failed: Exception | None = None
        metrics.under_way += 1
        try:
            scope[PRINCIPAL] = await admission.principal(scope)
            scope.update(found)
            async with asyncio.timeout(self._seconds):
                body = await route.answer(scope, receive)
        except Exception as error:
            failed = error
        finally:
            metrics.under_way -= 1
            reset_contextvars(**bound)
        if failed is not None:
            # Who was let in is not looked at twice; who was not will be refused.
            if not isinstance(failed, InvalidToken):
                scope[_FAILED] = failed
            await self._app(scope, receive, send)
            return
        headers = [*added, *self._headers, (b"x-request-id", request_id.encode())]
        tag = entity_tag(body) if route.method == "GET" else None
        if tag is not None:
            headers.append((b"etag", tag))
        if tag is not None and is_known(tag, scope):
            body, answer = b"", _start(304, headers)
        else:
            answer = _start(200, [(b"content-length", str(len(body)).encode()), _JSON, *headers])
        try:
            await send(answer)
            await send({"type": "http.response.body", "body": body})
        finally:
            admission.write_down(scope, answer)
            seconds = time.perf_counter() - started
            metrics.note(route.method, route.path_format, answer["status"], seconds, trace_of(scope))


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}
