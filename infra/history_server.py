"""The Redis or Valkey that keeps histories: its connections, the functions in it, what its errors mean."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import hiredis
import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from features.codec import VERSION
from schemas.errors import DependencyError, HistoryError

_SOURCE = (Path(__file__).parent / "functions.lua").read_text()
# Named by what they do: after an upgrade the new ones are loaded, and a worker that is still running
# keeps its own.
_DIGEST = f"_{sha256(_SOURCE.encode()).hexdigest()[:12]}"
_FUNCTIONS = _SOURCE.replace("_VERSION", _DIGEST)


class _BulkPacking:
    """Writes commands with hiredis: the client's own way costs more than making what is in them."""

    def pack_command(self, *args: Any) -> list[bytes]:
        words = args[0].split() if isinstance(args[0], str) else [args[0]]
        return [hiredis.pack_command((*words, *args[1:]))]


class HistoryServer:
    """Runs commands and the functions that change histories.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`.
        timeout_s: Limit of one call.
        options: Encryption and login, from `infra.access`.

    Attributes:
        redis: The client, whose commands are run by `call`.
    """

    def __init__(self, url: str, timeout_s: float, options: Mapping[str, Any] | None) -> None:
        # A pooled connection that a restarted server has closed says so at its next use: once more, at
        # once, on a new one. What ran into the time limit is not tried again here.
        retry = Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,))
        pool: Any = redis.ConnectionPool.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=15,
            retry=retry,
            **(options or {}),
        )
        # Plain, encrypted and local connections alike.
        pool.connection_class = type("Connection", (_BulkPacking, pool.connection_class), {})
        self.redis: Any = redis.Redis.from_pool(pool)
        # Neither password: one may stand before the host, one among the options.
        self._shown = url.rsplit("@", 1)[-1].removeprefix("redis://").split("?")[0]
        self._loading = asyncio.Lock()

    async def fcall(self, name: str, keys: list[str], args: list[Any]) -> Any:
        """Answer of a function, by its name in `functions.lua`; raises as `fcalls` does."""
        (answer,) = await self.fcalls(name, [(keys, args)])
        return answer

    async def fcalls(self, name: str, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Any]:
        """Answers of a function that is called several times; where one call fails the others are done.

        Raises:
            DependencyError: The server does not answer, or takes no writes.
            HistoryError: What is stored has another format, or was changed by somebody else.
        """

        async def call() -> list[Any]:
            if len(calls) == 1:
                ((keys, args),) = calls
                return [await self.redis.fcall(name + _DIGEST, len(keys), *keys, *args)]
            pipe = self.redis.pipeline(transaction=False)
            for keys, args in calls:
                pipe.fcall(name + _DIGEST, len(keys), *keys, *args)
            # What the pipeline itself raises repeats the command, with what is in it.
            answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            return cast(list[Any], answers)

        try:
            try:
                return cast(list[Any], await self.call(call))
            except exceptions.ResponseError as error:
                if "Function not found" not in str(error):
                    raise
                async with self._loading:
                    await self.call(lambda: self.redis.function_load(_FUNCTIONS, replace=True))
                return cast(list[Any], await self.call(call))
        except exceptions.ResponseError as error:
            text = str(error)
            if text.startswith("VERSION"):
                raise HistoryError(
                    f"stored histories have format {text.split()[-1]}, this program reads {VERSION}: run the "
                    "version that wrote them, or 'tidegate rebuild'"
                ) from None
            if text.startswith("HISTORY"):
                raise HistoryError(
                    "a stored history was changed by somebody else (its length differs): run "
                    "'tidegate rebuild'"
                ) from None
            raise

    async def call(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Run one command, telling a store that does not answer from one that answers no.

        Raises:
            DependencyError: The server does not answer, or takes no writes.
        """
        try:
            return await command()
        except (exceptions.ConnectionError, exceptions.TimeoutError, TimeoutError, OSError) as error:
            # Loading after a restart and a failing disk are states that pass as well.
            raise DependencyError(f"Redis at {self._shown} does not answer: {_words(error)}") from error
        except (exceptions.ReadOnlyError, exceptions.OutOfMemoryError) as error:
            raise DependencyError(f"Redis at {self._shown} takes no writes: {_words(error)}") from error
        except exceptions.ResponseError as error:
            if str(error).startswith(
                ("MISCONF", "OOM", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
            ):
                raise DependencyError(f"Redis at {self._shown} takes no writes: {_words(error)}") from error
            if isinstance(error, exceptions.NoPermissionError) or "DB index" in str(error):
                raise DependencyError(f"Redis at {self._shown} does not let us: {_words(error)}") from error
            raise


def _words(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
