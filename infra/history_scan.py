"""Keys of a namespace, found by looking through all that a server has."""

from collections.abc import AsyncIterator
from typing import Any

_BATCH = 1000


async def keys_of(redis: Any, namespace: str, kind: str = "") -> AsyncIterator[bytes]:
    """Keys of source partitions in a namespace, such as `{tg:3}:meta`, each at least once.

    Args:
        redis: A client.
        namespace: First part of the keys.
        kind: First letters of what comes behind the partition, such as `p:`; all kinds without.
    """
    # Not a pattern with the namespace in it: that may hold Redis's wildcards, or begin like another one.
    prefix = f"{{{namespace}:".encode()
    async for key in redis.scan_iter(match="{*}:*", count=_BATCH):
        if not key.startswith(prefix):
            continue
        number, _, rest = key[len(prefix) :].partition(b"}:")
        if number.isdigit() and rest.startswith(kind.encode()):
            yield key
