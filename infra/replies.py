"""Answers to writes by idempotency key, in Redis, for a day."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import orjson
from redis import asyncio as redis
from redis import exceptions

from infra.redis_rights import PROBE, Command, refused
from schemas.errors import DependencyError

KeptT = TypeVar("KeptT")
_CLAIM_S = 60
_KEPT_S = 24 * 3600


class _Reply(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> bytes: ...


class RedisReplies:
    """A `ReplyStore`.

    Args:
        url: `redis://HOST:PORT/DB`.
        prefix: Of all keys.
        kept: Makes what is known of a key: digest, status, type and body; `None` for the last three
            while the answer is being made.
        timeout_s: Limit of one call.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        kept: Callable[..., Any],
        timeout_s: float = 2.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, **(options or {})
        )
        self._prefix = prefix
        self._kept = kept

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def begin(self, key: str, request: str) -> Any:
        """Claim a key, for a minute; what is known of it, where it was claimed before."""
        claim = orjson.dumps([request])
        name = self._name(key)
        if await self._call(lambda: self._redis.set(name, claim, nx=True, ex=_CLAIM_S)):
            return None
        found = await self._call(lambda: self._redis.get(name))
        # It may have ended between the two.
        return await self.begin(key, request) if found is None else self._known(found)

    async def finish(self, key: str, request: str, reply: _Reply) -> None:
        """Keep an answer for a day."""
        kept = orjson.dumps([request, reply.status, reply.content_type, reply.body.decode("latin-1")])
        await self._call(lambda: self._redis.set(self._name(key), kept, ex=_KEPT_S))

    async def forget(self, key: str) -> None:
        """Let go of a key."""
        await self._call(lambda: self._redis.delete(self._name(key)))

    async def refused(self) -> Sequence[str] | None:
        """What is needed and Redis does not let us do; `None` where it does not answer."""
        name, names = self._name(PROBE), self._name("*")
        commands: dict[str, Command] = {
            # Only where it exists, which it never does.
            f"SET on {names}": ("SET", name, "", "XX", "EX", 1),
            f"GET on {names}": ("GET", name),
            f"DEL on {names}": ("DEL", name),
        }
        return await refused(self._redis, commands)

    def _known(self, found: bytes) -> Any:
        request, *reply = orjson.loads(found)
        if not reply:
            return self._kept(request)
        status, kind, body = reply
        return self._kept(request, status, kind, body.encode("latin-1"))

    def _name(self, key: str) -> str:
        return f"{self._prefix}:reply:{key}"

    async def _call(self, command: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await command()
        except (exceptions.RedisError, TimeoutError, OSError) as error:
            raise DependencyError(f"Redis does not keep idempotency keys: {error}") from error
