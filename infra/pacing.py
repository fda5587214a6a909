"""When to publish the next message: at a steady rate, or with the gaps the events had."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from schemas.errors import ConfigError

# A shorter sleep would take longer than asked for: what is due within it goes out at once.
_SHORTEST_S = 0.002


class Pacer:
    """Waits until a message is due, by a schedule that does not wait for whoever reads the messages.

    Late by any amount, it catches up without pauses: the schedule stays, so that a slow reader shows as
    latency and not as a lower rate.

    Args:
        rate: Messages a second.
        speedup: Event-time gaps are divided by this: 3600 replays an hour in a second. An event
            older than its predecessor is due at once.
        clock: Seconds, monotonic.
        sleep: Waits for seconds.

    Raises:
        ConfigError: Both are given, or one is not positive.
    """

    def __init__(
        self,
        *,
        rate: float | None = None,
        speedup: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if rate is not None and speedup is not None:
            raise ConfigError("give --rate or --speedup, not both")
        for name, value in (("rate", rate), ("speedup", speedup)):
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"--{name} needs a number above 0")
        self._rate = rate
        self._speedup = speedup
        self._clock = clock
        self._sleep = sleep
        self._started: float | None = None
        self._first_ms = 0
        self._count = 0

    async def wait(self, time_ms: int) -> None:
        """Return when the next message is due.

        Args:
            time_ms: Its event time in milliseconds since 1970.
        """
        if self._rate is None and self._speedup is None:
            return
        if self._started is None:
            self._started, self._first_ms = self._clock(), time_ms
        if self._rate is not None:
            offset_s = self._count / self._rate
        else:
            offset_s = (time_ms - self._first_ms) / 1000 / (self._speedup or 1.0)
        self._count += 1
        early = self._started + offset_s - self._clock()
        if early >= _SHORTEST_S:
            await self._sleep(early)
