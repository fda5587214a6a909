"""Rate limits that all API processes share, counted in Redis in one atomic step.

GCRA: one number per client and route, the moment at which its allowance is whole again. The same
arithmetic stands in `api.limits` for one process, for when Redis is away.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schemas.errors import DependencyError

_SCRIPT = (Path(__file__).parent / "rate_limit.lua").read_text()


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one request.

    Attributes:
        allowed: Whether it may go on.
        remaining: How many more may at once.
        retry_s: Seconds until one more may; 0 where it was allowed.
        reset_s: Seconds until the allowance is whole.
    """

    allowed: bool
    remaining: int
    retry_s: float
    reset_s: float


class RedisLimiter:
    """Counts requests in Redis 7+ or Valkey 8+.

    Args:
        url: May be another server than that of the histories.
        prefix: First part of every key.
        timeout_s: Limit of one call; short, because requests wait for it.
        pause_s: After a failed call Redis is not asked again for so long.
        clock: Monotonic seconds.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout_s: float = 0.25,
        pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
            **(options or {}),
        )
        self._script = self._redis.register_script(_SCRIPT)
        self._prefix, self._pause_s, self._clock = prefix, pause_s, clock
        self._away_until = float("-inf")

    async def take(self, key: str, requests: int, period_s: float) -> Taken:
        """Count one request against `requests` in `period_s`, as many of which may come at once.

        Raises:
            DependencyError: Redis does not answer in time, or did not just now.
        """
        if self._clock() < self._away_until:
            raise DependencyError("Redis did not count requests just now")
        interval_us = period_s * 1e6 / requests
        try:
            allowed, remaining, retry_us, reset_us = await self._script(
                keys=[f"{self._prefix}:{key}"], args=[f"{interval_us:.6f}", requests]
            )
        except (exceptions.RedisError, TimeoutError, OSError) as error:
            self._away_until = self._clock() + self._pause_s
            raise DependencyError(f"Redis does not count requests: {type(error).__name__}") from error
        return Taken(bool(allowed), int(remaining), retry_us / 1e6, reset_us / 1e6)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
