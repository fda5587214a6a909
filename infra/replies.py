"""Answers to writes by idempotency key, in Redis, for a day.

A claim has a random token of who made it: the answer to it may be lost on the way, and whoever finds the key
taken must know whether it is they who took it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import orjson
from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from infra.redis_rights import PROBE, Command, refused
from schemas.errors import DependencyError

KeptT = TypeVar("KeptT")
_CLAIM_S = 60
_PAUSE_S = 0.5
# Well before the claim ends by itself and somebody else may have another.
_TRIED_S = 45
_MOST_TRIED = 1000
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
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A pooled connection that a restarted server has closed says so at its next use.
            retry=Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
            **(options or {}),
        )
        self._prefix = prefix
        self._kept = kept
        self._claims: dict[str, bytes] = {}
        self._later: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close all connections."""
        for task in self._later:
            task.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)
        await self._redis.aclose()

    async def begin(self, key: str, request: str) -> Any:
        """Claim a key, for a minute; what is known of it, where it was claimed before.

        Where it cannot be said whether it was claimed, the claim is taken back as soon as Redis answers.
        """
        claim = orjson.dumps([request, secrets.token_hex(8)])
        name = self._name(key)
        try:
            while True:
                if await self._call(lambda: self._redis.set(name, claim, nx=True, ex=_CLAIM_S)):
                    break
                found = await self._call(lambda: self._redis.get(name))
                if found == claim:
                    # The client sent it twice, because the first answer was lost.
                    break
                # It may have ended between the two.
                if found is not None:
                    return self._known(found)
        except BaseException:
            # Also where who asked has given up.
            self._try_again(name, claim, None)
            raise
        self._claims[name] = claim
        return None

    async def finish(self, key: str, request: str, reply: _Reply) -> None:
        """Keep an answer for a day; not taken by Redis, it is tried again while the claim is there."""
        kept = orjson.dumps([request, reply.status, reply.content_type, reply.body.decode("latin-1")])
        await self._put(self._name(key), kept)

    async def forget(self, key: str) -> None:
        """Let go of a key; not taken by Redis, it is tried again while the claim is there."""
        await self._put(self._name(key), None)

    async def _put(self, name: str, kept: bytes | None) -> None:
        claim = self._claims.pop(name, None)
        try:
            await self._call(lambda: self._replaced(name, kept))
        except BaseException:
            if claim is not None:
                self._try_again(name, claim, kept)
            raise

    def _replaced(self, name: str, kept: bytes | None) -> Awaitable[Any]:
        done: Awaitable[Any] = (
            self._redis.delete(name) if kept is None else self._redis.set(name, kept, ex=_KEPT_S)
        )
        return done

    def _try_again(self, name: str, claim: bytes, kept: bytes | None) -> None:
        """Put an answer, or nothing, in the place of a claim that nobody works under any more."""
        if len(self._later) >= _MOST_TRIED:
            # It ends by itself.
            return
        task = asyncio.get_running_loop().create_task(self._replace(name, claim, kept))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _replace(self, name: str, claim: bytes, kept: bytes | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_TRIED_S):
                while True:
                    # A claim on its way may come after what another connection says: not at once.
                    await asyncio.sleep(_PAUSE_S)
                    with suppress(DependencyError):
                        if await self._call(lambda: self._redis.get(name)) == claim:
                            await self._call(lambda: self._replaced(name, kept))
                        return

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
        # A claim: with its token; one of an older version has none.
        if len(reply) < 3:
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
