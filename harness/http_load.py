"""Requests at a fixed rate, whatever the answers: late ones count as late."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from schemas.errors import DependencyError

_TIMEOUT_S = 10.0
# Longer than an event loop may oversleep.
_SPUN_S = 0.002
NO_ANSWER = 0
"""In the place of a status: the connection broke, or nothing came in time."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; each of its headers ends with CRLF."""

    method: str
    path: str
    body: bytes = b""
    headers: str = ""


@dataclass(slots=True)
class Answers:
    """What came back.

    Attributes:
        latency_ms: From the time a request was due to its whole answer.
        statuses: How many of each; `NO_ANSWER` where none came.
    """

    latency_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def percentile(self, share: float) -> float:
        """Of the latencies, in milliseconds."""
        return float(np.percentile(self.latency_ms, share)) if self.latency_ms else float("nan")


class _Connection:
    """One HTTP/1.1 connection: a client that costs little, so that it is not what is measured."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, ask: Ask) -> int:
        reused = self._writer is not None
        try:
            return await self._ask(ask)
        except (OSError, EOFError):
            await self.close()
            # A connection that was idle may have been closed at the other end.
            if not reused:
                raise
            return await self._ask(ask)

    async def _ask(self, ask: Ask) -> int:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        head = f"{ask.method} {ask.path} HTTP/1.1\r\nHost: {self._host}\r\n{ask.headers}"
        if ask.body and "content-type" not in ask.headers.lower():
            head += "Content-Type: application/json\r\n"
        if ask.body:
            head += f"Content-Length: {len(ask.body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + ask.body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
        if (length := headers.get(b"content-length")) is None:
            raise DependencyError(f"{ask.path} answers without a length")
        await self._reader.readexactly(int(length))
        return int(answer.split(b" ", 2)[1])

    async def close(self) -> None:
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _until(due: float) -> None:
    """Wait, to some microseconds: an event loop alone wakes up as much as a millisecond late."""
    if (wait := due - time.perf_counter() - _SPUN_S) > 0:
        await asyncio.sleep(wait)
    while time.perf_counter() < due:
        await asyncio.sleep(0)


async def load(
    address: str, make: Callable[[int], Ask], *, rate: float, seconds: float, connections: int = 64
) -> Answers:
    """Ask at a rate for a time. A request that is not answered is counted, and the others go on.

    Args:
        address: `HOST:PORT`.
        make: The request of a number.
        rate: Requests a second.
        seconds: How long; one request is asked at least.
        connections: Most requests under way; what finds none free waits, and that counts.

    Raises:
        DependencyError: An answer is not one that this client can read.
    """
    host, _, port = address.rpartition(":")
    free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
    pool = [_Connection(host, int(port)) for _ in range(connections)]
    for connection in pool:
        free.put_nowait(connection)
    answers = Answers()

    async def one(number: int, due: float) -> None:
        connection = await free.get()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status = await connection.ask(make(number))
        except (OSError, EOFError, TimeoutError):
            # On a machine that stands still for a while this is a figure too, not the end of all.
            await connection.close()
            status = NO_ANSWER
        finally:
            free.put_nowait(connection)
        answers.latency_ms.append((time.perf_counter() - due) * 1000)
        answers.statuses[status] += 1

    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(max(1, int(rate * seconds))):
                due = started + number / rate
                await _until(due)
                group.create_task(one(number, due))
    except* DependencyError as failed:
        raise failed.exceptions[0] from None
    finally:
        for connection in pool:
            await connection.close()
    return answers
