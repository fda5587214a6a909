"""A TCP proxy that breaks what goes through it: cut, hang, half-close, delay, reset in mid-answer."""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Literal

from infra.embedded_part import HOST, free_port

Mode = Literal["pass", "cut", "hang", "half-close", "delay", "reset"]
_LOOK_AGAIN_S = 0.02


class Proxy:
    """Forwards one port to another in a thread of its own.

    Args:
        target_port: On the loopback interface.
        delay_s: Added to every piece of data in mode `delay`.
    """

    def __init__(self, target_port: int, delay_s: float = 0.2) -> None:
        self.port = free_port()
        self.target_port = target_port
        self.delay_s = delay_s
        self.mode: Mode = "pass"
        self.broken = 0
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10), "the proxy did not start"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def set(self, mode: Mode) -> None:
        """Change what happens to data; `cut` also ends what is connected."""
        self.mode = mode
        if mode == "cut":
            self.drop_all()

    def drop_all(self) -> None:
        """End all connections with a reset."""
        self._loop.call_soon_threadsafe(lambda: [self._abort(*pair) for pair in list(self._pairs)])

    def _run(self) -> None:
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for _ in range(3):
            # A transport closes its socket in the turn after it was told to.
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "cut":
            self.broken += 1
            _reset(writer)
            return
        try:
            upstream_reader, upstream = await asyncio.open_connection(HOST, self.target_port)
        except OSError:
            _reset(writer)
            return
        pair = (writer, upstream)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump(reader, upstream, pair, answer=False),
                self._pump(upstream_reader, writer, pair, answer=True),
            )
        finally:
            self._pairs.discard(pair)
            for side in pair:
                with suppress(OSError, RuntimeError):
                    side.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        answer: bool,
    ) -> None:
        with suppress(OSError, RuntimeError):
            while data := await reader.read(65_536):
                while self.mode == "hang":
                    await asyncio.sleep(_LOOK_AGAIN_S)
                if self.mode == "delay":
                    await asyncio.sleep(self.delay_s)
                elif answer and self.mode == "reset":
                    self.broken += 1
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    self._abort(*pair)
                    return
                elif answer and self.mode == "half-close":
                    # The answer ends here; the request's direction stays open.
                    self.broken += 1
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    @staticmethod
    def _abort(*sides: asyncio.StreamWriter) -> None:
        for side in sides:
            _reset(side)


def _reset(writer: asyncio.StreamWriter) -> None:
    held = writer.get_extra_info("socket")
    if held is not None:
        with suppress(OSError):
            # Linger 0: the other side sees a reset, not an orderly end.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    with suppress(RuntimeError):
        writer.transport.abort()
