"""Idempotency keys: a write that is sent twice is done once and answered twice.

The dependency runs behind the login, so a kept answer is given only to the client it was made for. The
middleware keeps what the route answered.
"""

from typing import Annotated, Final

import xxhash
from fastapi import Header
from fastapi.requests import Request
from fastapi_problem.error import Problem
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.gate import principal_of
from api.ports import Reply, ReplyStore
from schemas.errors import DependencyError

_CLAIM: Final = "tidegate.idempotency"
_HEADER: Final = "Idempotency-Replayed"
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="Chosen by the client, new for each write: the same key again gives the same answer.",
    ),
]


class Replayed(Exception):
    """The request was answered before."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


async def idempotent(request: Request, key: Key = None) -> None:
    """Claim the key of a write, or answer as before.

    Raises:
        Replayed: The same client has sent this request with this key before.
        Problem: 409 while the first is under way, 422 where the key came with another request.
        DependencyError: Redis is away: whether it was done cannot be said, so it is not done.
    """
    if key is None:
        return
    replies: ReplyStore | None = request.app.state.replies
    if replies is None:
        raise DependencyError("there is nowhere to keep idempotency keys")
    who = principal_of(request)
    digest = xxhash.xxh128_hexdigest(
        b"\0".join(
            [
                request.method.encode(),
                # Not of `request.url`, which loses what stands behind a # in an id, and line feeds.
                request.scope["path"].encode(errors="surrogatepass"),
                request.scope["query_string"],
                await request.body(),
            ]
        )
    )
    name = xxhash.xxh128_hexdigest(f"{who.tenant}\0{who.client_id}\0{key}".encode())
    known = await replies.begin(name, digest)
    if known is None:
        request.scope[_CLAIM] = (replies, name, digest)
    elif known.request != digest:
        raise Problem(
            title="The key was used before",
            type_="idempotency-key-reused",
            status=422,
            detail="this Idempotency-Key came with another request; choose a new one",
        )
    elif known.reply is None:
        raise Problem(
            title="The same request is under way",
            type_="idempotency-key-in-use",
            status=409,
            detail="the first request with this Idempotency-Key is not answered yet; try again",
            headers={"Retry-After": "1"},
        )
    else:
        raise Replayed(known.reply)


async def replay(request: Request, answered: Exception) -> Response:
    """The answer of before."""
    if not isinstance(answered, Replayed):
        raise answered
    reply = answered.reply
    return Response(reply.body, reply.status, {_HEADER: "true"}, media_type=reply.content_type)


class KeepReplies:
    """Keeps the answers of requests that claimed a key; lets go of keys of those that failed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and keep its answer where it is wanted."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        status, kind, parts = 500, "", list[bytes]()

        async def noted(message: Message) -> None:
            nonlocal status, kind
            if _CLAIM in scope:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    kind = next((v.decode() for k, v in message["headers"] if k == b"content-type"), "")
                else:
                    parts.append(message.get("body", b""))
                    if not message.get("more_body", False):
                        # Before it is sent: whoever has an answer can rely on getting it again.
                        await self._settle(scope, status, Reply(status, kind, b"".join(parts)))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except BaseException:
            await self._settle(scope, 500, Reply(500, "", b""))
            raise

    async def _settle(self, scope: Scope, status: int, reply: Reply) -> None:
        claim: tuple[ReplyStore, str, str] | None = scope.pop(_CLAIM, None)
        if claim is None:
            return
        replies, name, digest = claim
        try:
            if status < 500:
                await replies.finish(name, digest, reply)
            else:
                await replies.forget(name)
        except DependencyError:
            # Done, and not kept: the store tries again for a while, then the claim ends by itself.
            return
