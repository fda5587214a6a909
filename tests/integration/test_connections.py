"""Clients that do not do their part, against the server's real protocols and real sockets."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from api import connections
from api.connections import Http, Socket
from api.exchange import Conditional

pytestmark = pytest.mark.integration
HELLO = (
    b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PIECE = b"x" * 65536


class App:
    """Answers without end, or a word; notes which requests ended."""

    def __init__(self):
        self.ended = asyncio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return
        try:
            await (self.socket if scope["type"] == "websocket" else self.http)(scope, receive, send)
        finally:
            self.ended.set()

    async def http(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["path"] == "/endless" and (await send(body(PIECE))) is None:
            # A client that is gone is not told to the application: sending goes nowhere.
            if receiver_gone(await peek(receive)):
                return
        await send({"type": "http.response.body", "body": b"word"})

    async def socket(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        with suppress(Exception):
            async with asyncio.timeout(5):
                # More than any buffer takes.
                for _ in range(400):
                    await send({"type": "websocket.send", "bytes": PIECE})


def body(piece):
    return {"type": "http.response.body", "body": piece, "more_body": True}


def receiver_gone(message):
    return message is not None and message["type"] == "http.disconnect"


async def peek(receive):
    try:
        async with asyncio.timeout(0.001):
            return await receive()
    except TimeoutError:
        return None


@asynccontextmanager
async def served(monkeypatch, app=None, **limits):
    for name, value in limits.items():
        monkeypatch.setattr(connections, name, value)
    app = app or App()
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=Http, ws=Socket, lifespan="off", log_level="critical")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield app, port
    finally:
        server.should_exit = server.force_exit = True
        await serving


async def until_closed(reader):
    """What comes until the other end closes; empty where it is reset."""
    found = b""
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                found += piece
    return found


async def test_headers_that_do_not_end_in_time_are_not_waited_for(monkeypatch):
    async with served(monkeypatch, _HEADERS_S=0.3) as (_, port):
        for said in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert await until_closed(reader) == b""
            writer.close()


async def test_headers_without_end_are_refused(monkeypatch):
    async with served(monkeypatch) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for number in range(100):
            writer.write(b"x-%d: %s\r\n" % (number, b"y" * 2000))
        assert (await until_closed(reader)).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_a_request_in_time_is_answered_and_the_next_on_the_same_connection_too(monkeypatch):
    async with served(monkeypatch, _HEADERS_S=20.0) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            for piece in (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le", b"ngth: 70000\r\n\r\n", b"z" * 70000):
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(30):
                await reader.readuntil(b"word\r\n0\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(("status", "kind"), [(200, b"application/json"), (404, b"application/problem+json")])
async def test_a_head_without_its_body_leaves_the_connection_for_the_next_request(monkeypatch, status, kind):
    async def answer(scope, receive, send):
        assert scope["method"] == "GET"
        headers = [(b"content-length", b"6"), (b"content-type", kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b'"word"'})

    async with served(monkeypatch, Conditional(answer)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            for method, body_ in ((b"HEAD", b""), (b"HEAD", b""), (b"GET", b'"word"')):
                writer.write(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 %d " % status)
                assert b"content-length: 6\r\n" in head
                assert await reader.readexactly(len(body_)) == body_
        writer.close()


async def test_who_takes_nothing_of_an_answer_is_cut(monkeypatch):
    async with served(monkeypatch, _TAKES_NOTHING_S=0.3) as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()
        async with asyncio.timeout(30):
            await app.ended.wait()
        writer.close()


async def test_a_socket_whose_client_takes_not_even_the_end_is_cut_within_seconds(monkeypatch):
    async with served(monkeypatch, _TAKES_NOTHING_S=60.0, _CLOSING_S=0.3) as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(HELLO)
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()
        async with asyncio.timeout(60):
            await app.ended.wait()
            # Reset: without it the rest of the buffer would come, and then an end.
            while not writer.is_closing():
                writer.write(b"\x8a\x80\x00\x00\x00\x00")
                await asyncio.sleep(0.05)


async def test_a_socket_whose_client_takes_nothing_is_cut_while_the_application_still_talks(monkeypatch):
    async with served(monkeypatch, _TAKES_NOTHING_S=0.3, _CLOSING_S=60.0) as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(HELLO)
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()
        async with asyncio.timeout(3):
            # Not the application's own limit of five seconds.
            await app.ended.wait()
        writer.close()
