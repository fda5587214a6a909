"""All profiles of a namespace, for work that is not a worker's."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson
import redis.asyncio as redis
from redis import exceptions

from infra.contact_vault import ContactVault
from infra.history_scan import keys_of
from schemas.customer import SealedContact
from schemas.errors import DependencyError

# A worker may write a newer profile meanwhile: then this one is not wanted any more.
_SWAP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class StoredProfiles:
    """Profiles in Redis or Valkey.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        namespace: First part of every key.
        timeout_s: Limit of one call.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self, url: str, namespace: str, *, timeout_s: float = 5.0, options: Mapping[str, Any] | None = None
    ) -> None:
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, **(options or {})
        )
        self._swap = self._redis.register_script(_SWAP)
        self._namespace = namespace

    async def rewrap(self, vault: ContactVault, newest: str) -> dict[str, int]:
        """Put every data key under the newest master key.

        Args:
            vault: Has the newest master key and those before it.
            newest: Name of the newest.

        Returns:
            How many were `rewrapped`, had it `already`, or were `changed` by a worker meanwhile.

        Raises:
            DependencyError: Redis does not answer. Again is safe.
            HistoryError: A profile cannot be opened.
        """
        counts = Counter(rewrapped=0, already=0, changed=0)
        try:
            async for key in keys_of(self._redis, self._namespace, "p:"):
                stored = await self._redis.get(key)
                profile = orjson.loads(stored) if stored else {}
                if "contact" not in profile:
                    continue
                sealed = SealedContact.model_validate(profile["contact"])
                if sealed.key == newest:
                    counts["already"] += 1
                    continue
                customer_id = key.decode().split("}:p:", 1)[1]
                fresh = await vault.rewrap(customer_id, sealed)
                changed = orjson.dumps({**profile, "contact": fresh.model_dump()})
                done = await self._swap(keys=[key], args=[stored, changed])
                counts["rewrapped" if done else "changed"] += 1
        except (exceptions.RedisError, TimeoutError, OSError) as error:
            raise DependencyError(f"Redis does not answer: {type(error).__name__}") from error
        return dict(counts)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()
