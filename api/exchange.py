"""What happens around every request besides its measuring: an id, a time limit, ETags, HEAD.

Plain ASGI, as `api.middleware`.
"""

import asyncio
import re
import secrets
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
import xxhash
from fastapi_problem.error import Problem
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import REQUEST_ID, problem_response
from schemas.card_number import is_card_number

_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_STREAM: Final = b"text/event-stream"


class RequestIds:
    """Gives every request an id: the sender's own where it is one. Answers and log lines have it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its id."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = name_request(scope)

        async def tagged(message: Message) -> None:
            if message["type"] in (
                "http.response.start",
                "websocket.accept",
                "websocket.http.response.start",
            ):
                add_request_id(scope, message)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._app(scope, receive, tagged)


def name_request(scope: Scope) -> str:
    """Note a request's id in its scope: the sender's own, or one made now."""
    if (known := scope.get(REQUEST_ID)) is not None:
        return str(known)
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    # It goes into logs and the audit trail: not a card number, whoever sends one.
    named = sent.decode() if _ID.fullmatch(sent) else ""
    request_id = secrets.token_hex(16) if not named or is_card_number(named) else named
    scope[REQUEST_ID] = request_id
    return request_id


def add_request_id(scope: Scope, message: MutableMapping[str, Any]) -> None:
    """Put the request's id into an answer's headers, once."""
    headers = list(message.get("headers", ()))
    if REQUEST_ID in scope and all(name != b"x-request-id" for name, _ in headers):
        message["headers"] = [*headers, (b"x-request-id", scope[REQUEST_ID].encode())]


class Deadline:
    """Ends a request that takes too long to begin its answer: HTTP 503, and the work is cancelled.

    Args:
        app: The application.
        seconds: The limit.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, for a time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        try:
            async with asyncio.timeout(self._seconds) as limit:

                async def noted(message: Message) -> None:
                    nonlocal begun
                    if message["type"] == "http.response.start":
                        begun = True
                        # From here on the client's pace counts; a stream has no end.
                        limit.reschedule(None)
                    await send(message)

                await self._app(scope, receive, noted)
        except TimeoutError:
            if begun:
                raise
            late = Problem(
                title="It took too long",
                type_="timeout",
                status=503,
                detail=f"no answer within {self._seconds:g} s; try again, or ask for less",
                headers={"Retry-After": "1"},
            )
            await problem_response(late)(scope, receive, send)


class Conditional:
    """ETags on lookups, 304 where nothing changed, and HEAD as a GET without its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and look at its answer."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        answer = _Answer(scope, send, head)
        # In place: those around look at the same scope for its route.
        scope["method"] = "GET"
        try:
            await self._app(scope, receive, answer.take)
        except _Enough:
            return
        finally:
            if head:
                scope["method"] = "HEAD"


def entity_tag(body: bytes) -> bytes:
    """The ETag of an answer.

    >>> entity_tag(b"{}")
    b'"dc7048f8f8747f561349cde127705c16"'
    """
    return b'"%s"' % xxhash.xxh128_hexdigest(body).encode()


def is_known(tag: bytes, scope: Scope) -> bool:
    """Whether who asks has the answer of this ETag: it is not sent again."""
    wanted = next((value for name, value in scope["headers"] if name == b"if-none-match"), None)
    if wanted is None:
        return False
    known = {part.strip().removeprefix(b"W/") for part in wanted.split(b",")}
    return tag in known or b"*" in known


class _Enough(Exception):
    """A HEAD of a stream is answered; nothing more is made."""


class _Answer:
    def __init__(self, scope: Scope, send: Send, head: bool) -> None:
        self._scope, self._send, self._head = scope, send, head
        self._start: Message = {}
        self._parts: list[bytes] = []

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._head:
                # The server looks as well: of a HEAD it expects no body, whatever length is said.
                self._scope["method"] = "HEAD"
            add_request_id(self._scope, message)
            kind = _header(message, b"content-type")
            if self._head and kind.startswith(_STREAM):
                await self._send(message)
                await self._send({"type": "http.response.body"})
                raise _Enough
            if message["status"] == 200 and kind.startswith(b"application/json"):
                # Held back until the body is known.
                self._start = message
                return
            await self._send(message)
        elif message["type"] == "http.response.body" and self._start:
            self._parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._finish(b"".join(self._parts))
        elif self._head and message["type"] == "http.response.body":
            if not message.get("more_body", False):
                await self._send({"type": "http.response.body"})
        else:
            await self._send(message)

    async def _finish(self, body: bytes) -> None:
        start, tag = self._start, entity_tag(body)
        headers = [(n, v) for n, v in start["headers"] if n != b"etag"]
        if is_known(tag, self._scope):
            kept = [(n, v) for n, v in headers if n not in (b"content-type", b"content-length")]
            await self._send({**start, "status": 304, "headers": [*kept, (b"etag", tag)]})
            await self._send({"type": "http.response.body"})
            return
        await self._send({**start, "headers": [*headers, (b"etag", tag)]})
        await self._send({"type": "http.response.body", "body": b"" if self._head else body})


def _header(message: Message, name: bytes) -> bytes:
    return next((value for found, value in message.get("headers", ()) if found == name), b"")
