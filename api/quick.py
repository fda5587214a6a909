"""The lookups that are asked for most, without all that is done for each request elsewhere.

Only their plainest form: a GET without parameters of an id without escapes. Whatever else is asked goes to
the documented route, which has the same answer made by the same function. Login, scopes, limits, audit,
metrics and headers are those of every route, by the same functions. Where there is no answer to give, the
request goes the way of all others, which is told what went wrong here and words it.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars

from api.deps import Services, services
from api.exchange import entity_tag, is_known, name_request
from api.gate import PRINCIPAL, Admission, authorise
from api.middleware import RequestMetrics
from api.tokens import InvalidToken
from schemas.card_number import is_card_number

_ID: Final = r"([A-Za-z0-9._:-]{1,64})"
_FAILED: Final = "tidegate.failed"
_JSON: Final = (b"content-type", b"application/json")
Answer = Callable[[Services, str], Awaitable[Any]]


class QuickLookup(BaseRoute):
    """A route of one customer.

    Args:
        path_format: As the documented route has it: metrics, scopes and limits go by it.
        answer: Makes what is to be JSON.
    """

    def __init__(self, path_format: str, answer: Answer) -> None:
        self.path_format = self.path = path_format
        self.methods = {"GET"}
        self._answer = answer
        before, after = path_format.split("{customer_id}")
        self._plain = re.compile(re.escape(before) + _ID + re.escape(after))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is of the plainest form."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
            return Match.NONE, {}
        found = self._plain.fullmatch(scope["path"])
        if found is None or scope.get("root_path") or is_card_number(found[1]):
            return Match.NONE, {}
        return Match.FULL, {"route": self, "endpoint": self._answer, "path_params": {"customer_id": found[1]}}

    async def answer(self, scope: Scope) -> bytes:
        """The JSON for a request that matches, if who sends it may have it."""
        connection = HTTPConnection(scope)
        await authorise(connection)
        found = await self._answer(await services(connection), scope["path_params"]["customer_id"])
        return orjson.dumps(found)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or fail as was found before."""
        failed: Exception | None = scope.get(_FAILED)
        if failed is not None:
            raise failed
        body = await self.answer(scope)
        headers = [(b"content-length", str(len(body)).encode()), _JSON]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class QuickLane:
    """Answers quick lookups before all middleware: a dozen layers cost more than the features.

    Args:
        app: For everything else.
        lookups: The routes, which are also among those of `app`.
        admission: As the gate has it.
        metrics: Of requests.
        headers: That every answer has.
        seconds: Limit of an answer.
        origins: Whether pages of other origins may ask: their answers get more headers from a middleware.
    """

    def __init__(
        self,
        app: ASGIApp,
        lookups: Sequence[QuickLookup],
        admission: Admission,
        metrics: RequestMetrics,
        headers: list[tuple[bytes, bytes]],
        seconds: float,
        *,
        origins: bool,
    ) -> None:
        self._app, self._lookups, self._admission, self._metrics = app, lookups, admission, metrics
        self._headers, self._seconds, self._origins = headers, seconds, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is plain; pass the rest on."""
        for lookup in self._lookups:
            match, found = lookup.matches(scope)
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
                body = await lookup.answer(scope)
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
        tag = entity_tag(body)
        headers = [*added, (b"etag", tag), *self._headers, (b"x-request-id", request_id.encode())]
        if is_known(tag, scope):
            body, answer = b"", _start(304, headers)
        else:
            answer = _start(200, [(b"content-length", str(len(body)).encode()), _JSON, *headers])
        try:
            await send(answer)
            await send({"type": "http.response.body", "body": body})
        finally:
            admission.write_down(scope, answer)
            metrics.note("GET", lookup.path_format, answer["status"], time.perf_counter() - started)


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}
