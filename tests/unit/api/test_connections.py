"""What is written to a connection, and when it is sent; with real ones in `tests/integration`."""

import asyncio

import pytest

from api.connections import Joined


class Transport(asyncio.Transport):
    def __init__(self):
        super().__init__({"socket": "socket"})
        self.done = []

    def write(self, data):
        self.done.append(data)

    def close(self):
        self.done.append("closed")

    def abort(self):
        self.done.append("aborted")

    def is_closing(self):
        return "closed" in self.done

    def set_protocol(self, protocol):
        self.done.append(protocol)


@pytest.fixture
async def transport():
    return Transport()


async def test_what_is_written_in_one_turn_is_sent_in_one_piece(transport):
    joined = Joined(transport)
    joined.write(b"headers ")
    joined.write(b"body")
    assert transport.done == []
    await asyncio.sleep(0)
    assert transport.done == [b"headers body"]
    joined.write(b"next")
    await asyncio.sleep(0)
    assert transport.done == [b"headers body", b"next"]


async def test_nothing_is_left_behind_when_it_closes(transport):
    joined = Joined(transport)
    joined.write(b"last")
    joined.close()
    await asyncio.sleep(0)
    assert transport.done == [b"last", "closed"]
    assert joined.is_closing()


async def test_nothing_is_sent_once_it_is_aborted(transport):
    joined = Joined(transport)
    joined.write(b"last")
    joined.abort()
    await asyncio.sleep(0)
    assert transport.done == ["aborted"]


async def test_a_long_answer_does_not_wait_whole_in_memory(transport):
    joined = Joined(transport)
    for _ in range(3):
        joined.write(b"x" * 40_000)
    assert [len(sent) for sent in transport.done] == [80_000]
    await asyncio.sleep(0)
    assert [len(sent) for sent in transport.done] == [80_000, 40_000]


async def test_another_protocol_takes_over_behind_what_was_written(transport):
    joined = Joined(transport)
    joined.write(b"before")
    joined.set_protocol("websocket")
    assert transport.done == [b"before", "websocket"]
    assert joined.get_extra_info("socket") == "socket"
