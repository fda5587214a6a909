"""Rate limits that all API processes share, counted in Redis in one atomic step.

GCRA: one number per client and route, the moment at which its allowance is whole again. The same
arithmetic stands in `api.limits` for one process, for when Redis is away.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from infra.gathered import Gathered
from infra.redis_rights import PROBE, Command, refused
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
        self._sha = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._counted = Gathered(self._count)
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
            asked = (f"{self._prefix}:{key}", f"{interval_us:.6f}", requests)
            allowed, remaining, retry_us, reset_us = await self._counted.get(asked)
        except (exceptions.RedisError, TimeoutError, OSError) as error:
            self._away_until = self._clock() + self._pause_s
            raise DependencyError(f"Redis does not count requests: {type(error).__name__}") from error
        return Taken(bool(allowed), int(remaining), retry_us / 1e6, reset_us / 1e6)

    async def _count(self, asked: list[tuple[str, str, int]]) -> list[list[int]]:
        """Run the script for requests that came at the same time, in their order."""
        if self._clock() < self._away_until:
            # Who waited behind a call that failed does not wait for one more.
            raise DependencyError("Redis did not count requests just now")
        answers = await self._run(asked)
        forgotten = [n for n, a in enumerate(answers) if isinstance(a, exceptions.NoScriptError)]
        if forgotten:
            # A server that was restarted. The others are counted, so they are not asked again.
            await self._redis.script_load(_SCRIPT)
            again = await self._run([asked[n] for n in forgotten])
            for n, answer in zip(forgotten, again, strict=True):
                answers[n] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _run(self, asked: list[tuple[str, str, int]]) -> list[Any]:
        pipe = self._redis.pipeline(transaction=False)
        for key, interval_us, requests in asked:
            pipe.evalsha(self._sha, 1, key, interval_us, requests)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers

    async def refused(self) -> Sequence[str] | None:
        """What counting needs and Redis does not let us do; `None` where it does not answer."""
        key = f"{self._prefix}:{PROBE}"
        commands: dict[str, Command] = {
            "SCRIPT LOAD": ("SCRIPT LOAD", _SCRIPT),
            # No script has this digest: Redis says first whether we may run one.
            f"EVALSHA on {self._prefix}:*": ("EVALSHA", "0" * 40, 1, key),
            "TIME": ("TIME",),
            f"GET on {self._prefix}:*": ("GET", key),
            # Only where it exists, which it never does.
            f"SET on {self._prefix}:*": ("SET", key, "", "XX", "PX", 1),
        }
        return await refused(self._redis, commands)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
