"""The client of `tidegate bench api`, against a server that does not always answer."""

import asyncio

import pytest

from harness.http_load import NO_ANSWER, Ask, load

pytestmark = pytest.mark.integration


async def test_a_request_without_an_answer_is_counted_and_the_others_go_on():
    asked = []

    async def serve(reader, writer):
        while line := await reader.readline():
            asked.append(line)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"Host: " in head
            if line.startswith(b"GET /gone"):
                break
            writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        answers = await load(
            f"{host}:{port}",
            lambda number: Ask("GET", "/gone" if number % 5 == 4 else "/here"),
            rate=200,
            seconds=0.1,
        )
    assert answers.statuses == {204: 16, NO_ANSWER: 4}
    assert len(answers.latency_ms) == 20


# At half a request a second the tenth of a second would have none: one is asked at least.
@pytest.mark.parametrize("rate", [10, 0.5])
async def test_headers_of_a_request_are_sent_and_its_body_is_counted(rate):
    heads = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append((head.decode(), await reader.readexactly(4)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        ask = Ask("POST", "/auth/token", b"a=1&", "Content-Type: application/x-www-form-urlencoded\r\n")
        answers = await load(f"{host}:{port}", lambda number: ask, rate=rate, seconds=0.1)
    assert answers.statuses == {200: 1}
    ((head, body),) = heads
    assert head.count("Content-Type") == 1
    assert "Content-Length: 4\r\n" in head
    assert body == b"a=1&"
