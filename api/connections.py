"""Connections of clients that do not do their part: what the server's own protocols wait for without end.

A client that takes nothing of what it is sent, that does not come to the end of its headers, or whose headers
have no end, would hold memory and a task for as long as it likes.
"""

import asyncio
import socket
from typing import Any, Final, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_log = structlog.get_logger()
# A client that reads at all makes room in its buffers within this time.
_TAKES_NOTHING_S: Final = 10.0
_HEADERS_S: Final = 10.0
_MOMENT_S: Final = 0.5
_HEADER_BYTES: Final = 64 * 1024
# What a closed socket's client has to take the last frames, and to say that it has.
_CLOSING_S: Final = 3.0
_AT_ONCE: Final = 64 * 1024
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class _Cut:
    """Ends a connection at once unless it is told to leave it, dropping what waits to be sent."""

    def __init__(self, seconds: float, why: str) -> None:
        self._seconds, self._why = seconds, why
        self._timer: asyncio.TimerHandle | None = None

    def start(self, transport: asyncio.Transport) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._late, transport)

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self, transport: asyncio.Transport) -> None:
        # Of a process that got no processor for a while the timers come first, and what its clients did
        # in time after them: one more moment for that.
        self._timer = asyncio.get_running_loop().call_later(_MOMENT_S, self._end, transport)

    def _end(self, transport: asyncio.Transport) -> None:
        _log.info("a connection is cut", reason=self._why)
        transport.abort()


class _Taken(asyncio.Protocol):
    """Ends a connection whose client takes nothing of what it is sent."""

    transport: asyncio.Transport

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unread = _Cut(_TAKES_NOTHING_S, "nothing was taken")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._unread.leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes too little."""
        super().pause_writing()
        self._unread.start(self.transport)

    def resume_writing(self) -> None:
        """It has taken something."""
        super().resume_writing()
        self._unread.leave()


class Joined:
    """A transport that sends what is written within one turn of the event loop in one piece.

    Headers and body of an answer are written one after the other; sent alone, each wakes its reader up.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._call_soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes) -> None:
        """Send this with what else is written now."""
        if not self._waiting:
            self._call_soon(self._send)
        self._waiting.append(data)
        self._bytes += len(data)
        # Not all of a long answer: whether its reader takes it is seen only once it is sent.
        if self._bytes > _AT_ONCE:
            self._send()

    def abort(self) -> None:
        """Close at once."""
        self._waiting, self._bytes = [], 0
        self._transport.abort()

    def _send(self) -> None:
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting, self._bytes = [], 0
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        # Whatever else is done with it, closing it too, comes behind what was written.
        self._send()
        return getattr(self._transport, name)


class Http(_Taken, HttpToolsProtocol):
    """HTTP/1.1 with limits on time and size of headers, and on how long a client takes nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._headers_late = _Cut(_HEADERS_S, "headers took too long")
        # Bytes since the request began; -1 behind its headers.
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(cast(asyncio.Transport, Joined(transport)))
        found = transport.get_extra_info("socket")
        if found is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Also where the connection is closed here and its last bytes are not taken.
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2000 * _TAKES_NOTHING_S))
        self._headers_late.start(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._headers_late.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._header_bytes >= 0:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._header_bytes > _HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._header_bytes = max(0, self._header_bytes)
        self._headers_late.start(self.transport)

    def on_headers_complete(self) -> None:
        """Its headers are there."""
        self._header_bytes = -1
        self._headers_late.leave()
        super().on_headers_complete()


class Socket(_Taken, WebSocketsSansIOProtocol):
    """WebSockets with a limit on how long a client takes nothing, also not the closing frame."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close_timeout = _CLOSING_S
        self._closing = _Cut(_CLOSING_S + 1.0, "the end was not taken")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._closing.leave()
        super().connection_lost(exc)

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """The application has nothing more to say."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._closing.start(self.transport)
