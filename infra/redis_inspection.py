"""What a Redis says of itself and of a namespace, without changing anything."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from schemas.errors import DependencyError


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """One server and one namespace.

    Attributes:
        info: Its own description.
        clock_ahead_s: Its clock less ours.
        cluster: Kafka cluster that the histories are of; `None` before the first worker.
        partitions: Partitions they were made from.
        meta: By partition: `version` of the format, `next:<topic>` offsets and more.
        entities: What `history_layout.entities_mark` made of those that are counted.
    """

    info: Mapping[str, Any]
    clock_ahead_s: float
    cluster: str | None
    partitions: int | None
    meta: Mapping[int, Mapping[str, str]]
    entities: str = ""


async def inspect_redis(
    url: str, *, namespace: str = "tg", timeout_s: float = 5.0, options: Mapping[str, Any] | None = None
) -> RedisFacts:
    """Ask a server.

    Raises:
        DependencyError: It does not answer, or not to this user.
    """
    client: Any = redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=True,
        **(options or {}),
    )
    try:
        before = time.time()
        seconds, micros = await client.time()
        after = time.time()
        info = await client.info()
        names = ("cluster", "topology", "entities")
        cluster, partitions, entities = await client.mget([f"{namespace}:{name}" for name in names])
        number = int(partitions) if partitions else None
        meta = {p: await client.hgetall(f"{{{namespace}:{p}}}:meta") for p in range(number or 0)}
        ahead_s = seconds + micros / 1e6 - (before + after) / 2
        return RedisFacts(info, ahead_s, cluster, number, meta, entities or "")
    except (RedisError, OSError, TimeoutError) as error:
        # Not the address: a password may stand in it.
        raise DependencyError(f"Redis does not answer: {str(error) or type(error).__name__}") from error
    finally:
        await client.aclose()
