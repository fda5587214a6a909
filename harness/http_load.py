"""Requests at a fixed rate, whatever the answers: late ones count as late."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from schemas.errors import DependencyError

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    method: str
    path: str
    body: bytes = b""


@dataclass(slots=True)
class Answers:
    """What came back.

    Attributes:
        latency_ms: From the time a request was due to its whole answer.
        statuses: How many of each.
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
            self.close()
            # A connection that was idle may have been closed at the other end.
            if not reused:
                raise
            return await self._ask(ask)

    async def _ask(self, ask: Ask) -> int:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        head = f"{ask.method} {ask.path} HTTP/1.1\r\nHost: {self._host}\r\n"
        if ask.body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(ask.body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + ask.body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
        if (length := headers.get(b"content-length")) is None:
            raise DependencyError(f"{ask.path} answers without a length")
        await self._reader.readexactly(int(length))
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def load(
    address: str, make: Callable[[int], Ask], *, rate: float, seconds: float, connections: int = 64
) -> Answers:
    """Ask at a rate for a time.

    Args:
        address: `HOST:PORT`.
        make: The request of a number.
        rate: Requests a second.
        seconds: How long.
        connections: Most requests under way; what finds none free waits, and that counts.

    Raises:
        DependencyError: An answer did not come.
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
        except (OSError, EOFError, TimeoutError) as error:
            connection.close()
            raise DependencyError(f"{address} did not answer: {error!r}") from error
        finally:
            free.put_nowait(connection)
        answers.latency_ms.append((time.perf_counter() - due) * 1000)
        answers.statuses[status] += 1

    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = started + number / rate
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                group.create_task(one(number, due))
    except* DependencyError as failed:
        raise failed.exceptions[0] from None
    finally:
        for connection in pool:
            connection.close()
    return answers
