"""Scores as they are made: Server-Sent Events and WebSocket."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Header, Query, Request, WebSocket, WebSocketDisconnect
from fastapi.requests import HTTPConnection
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.deps import CustomerId, Given, Services
from api.errors import problems
from api.gate import Admission
from api.ports import Dropped, InvalidPosition, LiveFeed, LiveScore, ScoreFilter, Subscription
from schemas.errors import DependencyError
from schemas.score import Decision

router = APIRouter(tags=["stream"])
_BEAT_S: Final = 10.0
_GRACE_S: Final = 1.0
_LOOK_S: Final = 1.0
_TRY_AGAIN, _REFUSED = 1013, 1008
Decisions = Annotated[list[Decision], Query(max_length=3, description="Only these decisions.")]
Customers = Annotated[list[CustomerId], Query(max_length=100, description="Only these customers.")]
EventId = Annotated[
    str | None, Query(max_length=4096, description="Go on behind this event id; from now if left out.")
]


def _feed(given: Services) -> LiveFeed:
    if given.feed is None:
        raise DependencyError("this tenant has no live feed: set TIDEGATE_BOOTSTRAP")
    return given.feed


@router.get(
    "/stream/scores",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `score` with a fraud score as data and an id to go on behind. `dropped` "
            "says why the stream ends. A comment or an id without data comes every 10 seconds.",
            "content": {
                "text/event-stream": {
                    "example": 'id: 0:5052,1:4990\nevent: score\ndata: {"transaction_id": "t-1001"}\n\n',
                }
            },
        },
        **problems(
            refused="The request is refused, or the event id is not one to go on from.", away="Kafka is away."
        ),
    },
)
async def scores(
    request: Request,
    given: Given,
    decision: Decisions = [],  # noqa: B006 - FastAPI copies it
    customer_id: Customers = [],  # noqa: B006
    after: EventId = None,
    last_event_id: Annotated[
        str | None, Header(max_length=4096, description="As browsers send it when they come back.")
    ] = None,
) -> StreamingResponse:
    """Fraud scores as they are published, as Server-Sent Events, for as long as the token is valid."""
    which = ScoreFilter(frozenset(decision), frozenset(customer_id))
    subscription = await _feed(given).subscribe(which, last_event_id or after)
    return _Events(subscription, _Listener(request))


class _Listener:
    """Whoever listens, looked at again: a token ends, and what a client may do is taken away."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._admission: Admission = connection.app.state.admission
        self._scope = connection.scope
        self._looked_s = time.monotonic()

    async def check(self) -> None:
        """Look, once a second at most.

        Raises:
            Refused: They would not be let in now.
        """
        if time.monotonic() - self._looked_s < _LOOK_S:
            return
        self._looked_s = time.monotonic()
        if not await self._admission.is_still(self._scope):
            raise Refused("the access token is not valid any more; come back with a new one")


class Refused(Dropped):
    """Whoever listens may not any more."""


class _Events(StreamingResponse):
    """The subscription ends with the answer, also with one whose body nobody wants (HEAD)."""

    def __init__(self, subscription: Subscription, listener: _Listener) -> None:
        headers = {"X-Accel-Buffering": "no"}
        super().__init__(_events(subscription, listener), media_type="text/event-stream", headers=headers)
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._subscription.close()


async def _events(subscription: Subscription, listener: _Listener) -> AsyncIterator[bytes]:
    yield f": here\nid: {subscription.position}\n\n".encode()
    while True:
        try:
            found = await subscription.next(_BEAT_S)
            await listener.check()
        except Dropped as dropped:
            yield b"event: dropped\ndata: " + orjson.dumps({"reason": str(dropped)}) + b"\n\n"
            return
        # An id alone: nothing is shown, and whoever comes back goes on from here.
        yield b"".join(map(_event, found)) or f"id: {subscription.position}\n\n".encode()


def _event(live: LiveScore) -> bytes:
    return b"id: %s\nevent: score\ndata: %s\n\n" % (live.id.encode(), live.score)


@router.websocket("/stream/scores")
async def socket(
    websocket: WebSocket,
    given: Given,
    decision: Decisions = [],  # noqa: B006
    customer_id: Customers = [],  # noqa: B006
    after: EventId = None,
) -> None:
    """Fraud scores as they are published, as JSON: `{"type": "scores", "id": ..., "scores": [...]}`.

    First comes `{"type": "position", "id": ...}`, and again whenever nothing matched for 10 seconds. What a
    client sends is read and ignored. A client that is too slow is closed with 1013 and a reason, one whose
    token ends or is revoked with 1008.
    """
    await websocket.accept()
    which = ScoreFilter(frozenset(decision), frozenset(customer_id))
    try:
        subscription = await _feed(given).subscribe(which, after)
    except InvalidPosition as invalid:
        await websocket.close(_REFUSED, str(invalid))
        return
    except DependencyError:
        await websocket.close(_TRY_AGAIN, "Kafka is away; try again in a moment")
        return
    gone = asyncio.ensure_future(_until_gone(websocket))
    sending = asyncio.ensure_future(_send_all(websocket, subscription, _Listener(websocket)))
    try:
        await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not gone.done():
            code, reason = sending.result()
            with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                # A client that does not read does not take this either.
                async with asyncio.timeout(_GRACE_S):
                    await websocket.close(code, reason)
    finally:
        subscription.close()
        for task in (gone, sending):
            task.cancel()
        await asyncio.gather(gone, sending, return_exceptions=True)


async def _until_gone(websocket: WebSocket) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return


async def _send_all(websocket: WebSocket, subscription: Subscription, listener: _Listener) -> tuple[int, str]:
    """Send until the client is dropped; returns the code to close with and why."""
    try:
        await _send(websocket, subscription, _position(subscription))
        while True:
            found = await subscription.next(_BEAT_S)
            await listener.check()
            await _send(websocket, subscription, _frame(found) if found else _position(subscription))
    except Refused as refused:
        return _REFUSED, str(refused)
    except Dropped as dropped:
        return _TRY_AGAIN, str(dropped)
    except (WebSocketDisconnect, RuntimeError):
        return _TRY_AGAIN, "gone"


async def _send(websocket: WebSocket, subscription: Subscription, text: str) -> None:
    """Send one message; a client that is dropped meanwhile is not waited for.

    Raises:
        Dropped: It was.
    """
    send = asyncio.ensure_future(websocket.send_text(text))
    dropped = asyncio.ensure_future(subscription.dropped.wait())
    try:
        await asyncio.wait({send, dropped}, return_when=asyncio.FIRST_COMPLETED)
        if not send.done():
            await asyncio.wait({send}, timeout=_GRACE_S)
        if send.done():
            send.result()
        else:
            await subscription.next(0)
    finally:
        dropped.cancel()
        if not send.done():
            send.cancel()


def _position(subscription: Subscription) -> str:
    return orjson.dumps({"type": "position", "id": subscription.position}).decode()


def _frame(found: Sequence[LiveScore]) -> str:
    joined = b",".join(live.score for live in found)
    return (b'{"type":"scores","id":"%s","scores":[%s]}' % (found[-1].id.encode(), joined)).decode()
