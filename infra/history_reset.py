"""Puts the stored state back to the start of the log, from which workers build it again.

A worker that still runs is fenced off first. In between there is no next offset, so that a worker
that starts then refuses, and whoever was interrupted runs it again.
"""

import secrets
from collections.abc import Mapping
from typing import Any

import redis.asyncio as redis
from redis import exceptions

from features.codec import VERSION
from infra.history_layout import UNDECIDED
from infra.history_scan import keys_of
from schemas.errors import DependencyError, HistoryError

_BATCH = 1000


class HistoryReset:
    """Removes what a namespace holds.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`.
        namespace: First part of every key.
        timeout_s: Limit of one call.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "tg",
        timeout_s: float = 30.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, **(options or {})
        )
        self._namespace = namespace
        self._owner = f"reset-{secrets.token_hex(8)}"

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def run(self, partitions: int, cluster_id: str, starts: Mapping[tuple[str, int], int]) -> int:
        """Remove all state; workers go on at `starts`.

        Args:
            partitions: Number of source partitions of the log.
            cluster_id: Of the log.
            starts: First offset by input topic and partition.

        Returns:
            How many keys were removed.

        Raises:
            DependencyError: Redis does not answer; run it again.
            HistoryError: A worker took a partition meanwhile; stop it and run it again.
        """
        try:
            await self._check_rights()
            numbers = await self._numbers() | set(range(partitions))
            epochs = {number: await self._fence(number) for number in sorted(numbers)}
            removed = await self._remove()
            for number, epoch in epochs.items():
                mine = {topic: start for (topic, p), start in starts.items() if p == number}
                await self._open(number, epoch, mine if number < partitions else {})
            await self._redis.mset(
                {
                    f"{self._namespace}:topology": partitions,
                    f"{self._namespace}:cluster": cluster_id,
                    f"{self._namespace}:entities": UNDECIDED,
                }
            )
            await self._redis.delete(f"{self._namespace}:group")
        except (TimeoutError, exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            raise DependencyError(f"Redis does not answer: {error}; run it again") from error
        except exceptions.NoPermissionError as error:
            raise DependencyError(f"Redis does not let us: {error}") from error
        except exceptions.ResponseError as error:
            raise DependencyError(f"Redis takes no writes: {error}; run it again") from error
        return removed

    async def group(self) -> str:
        """Consumer group whose workers keep the state, as far as is known; empty for none.

        Raises:
            DependencyError: Redis does not answer.
        """
        try:
            return (await self._redis.get(f"{self._namespace}:group") or b"").decode()
        except (TimeoutError, exceptions.RedisError, OSError) as error:
            raise DependencyError(f"Redis does not answer: {error}; run it again") from error

    def _meta(self, number: int) -> str:
        return f"{{{self._namespace}:{number}}}:meta"

    async def _check_rights(self) -> None:
        # Where transactions are not allowed, the commands in one would be run by themselves.
        async with self._redis.client() as one:
            await one.execute_command("MULTI")
            await one.execute_command("DISCARD")

    async def _numbers(self) -> set[int]:
        """Partitions that have anything."""
        metas = [key async for key in keys_of(self._redis, self._namespace, "meta")]
        return {int(key.partition(b"}")[0].rpartition(b":")[2]) for key in metas}

    async def _fence(self, number: int) -> int:
        """Make every lease of a partition void, and the offsets unknown; returns the new epoch."""
        key = self._meta(number)
        async with self._redis.pipeline(transaction=True) as pipe:
            epoch = int(await self._redis.hget(key, "epoch") or 0) + 1
            pipe.delete(key)
            pipe.hset(key, mapping={"epoch": epoch, "owner": self._owner, "version": VERSION})
            # Until a worker has read what the log holds: lookups find less than there was.
            pipe.hset(key, "building", 1)
            await pipe.execute()
        return epoch

    async def _remove(self) -> int:
        removed, batch = 0, []
        async for key in keys_of(self._redis, self._namespace):
            if key.endswith(b"}:meta"):
                continue
            batch.append(key)
            if len(batch) == _BATCH:
                removed += await self._redis.unlink(*batch)
                batch = []
        return int(removed + (await self._redis.unlink(*batch) if batch else 0))

    async def _open(self, number: int, epoch: int, starts: Mapping[str, int]) -> None:
        """Say where a partition goes on, if nobody has it by now."""
        key = self._meta(number)
        async with self._redis.pipeline(transaction=True) as pipe:
            await pipe.watch(key)
            held = [value.decode() for value in await pipe.hmget(key, "epoch", "owner") if value]
            taken = held != [str(epoch), self._owner]
            pipe.multi()
            if starts:
                pipe.hset(key, mapping={f"next:{topic}": start for topic, start in starts.items()})
            else:
                pipe.delete(key)
            try:
                if not taken:
                    await pipe.execute()
            except exceptions.WatchError:
                taken = True
        if taken:
            raise HistoryError(
                f"a worker took partition {number} meanwhile: stop all workers and run it again"
            )
