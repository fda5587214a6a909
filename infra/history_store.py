"""Histories in Redis or Valkey: what is read there, and what is written under a lease."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from features.codec import VERSION
from features.ports import Commit, CustomerState, Lease, Outcome
from infra.history_layout import UNDECIDED, HistoryLayout, entities_mark, wrong_entities
from infra.history_lookups import HistoryLookups, joined, require_whole
from infra.history_server import HistoryServer
from infra.redis_rights import PROBE, Command, refused
from infra.score_packing import ScorePacker
from schemas.errors import HistoryError, HistoryIncomplete


class RedisHistoryStore:
    """A `HistoryStore` in Redis 7+ or Valkey 8+.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`.
        partitions: Number of partitions of the transactions topic; `None` reads it from the store.
        namespace: First part of every key.
        timeout_s: Limit of one call.
        recent_scores: Fraud scores kept per customer for lookups.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        url: str,
        partitions: int | None = None,
        *,
        namespace: str = "tg",
        timeout_s: float = 5.0,
        recent_scores: int = 10,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._server = HistoryServer(url, timeout_s, options)
        self._redis = self._server.redis
        self.namespace = namespace
        self._packer = ScorePacker()
        self._layout = HistoryLayout(namespace, recent_scores, self._packer)
        self._lookups = HistoryLookups(self._server, self._layout, self._packer, partitions)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raise `DependencyError` unless the store answers, and lets us read."""
        await self._server.call(lambda: self._redis.get(self._layout.shared_key("topology")))

    async def require_usable(self, entities: Sequence[str] = ()) -> None:
        """Raise unless customers can be answered for from what is stored.

        That of some partitions that are being built is left to lookups of their customers.

        Args:
            entities: Those that are counted, as who asks is told.

        Raises:
            DependencyError: The store does not answer, or does not let us read.
            HistoryIncomplete: Nothing is stored.
            HistoryError: The state counts others, or in another format.
        """
        keys = [self._layout.shared_key(name) for name in ("topology", "entities")]
        topology, counted = await self._server.call(lambda: self._redis.mget(keys))
        if topology is None:
            # Also where there was something: customers of an emptied store are not ones never seen.
            raise HistoryIncomplete("the store is empty: no worker has run against it yet, or it was emptied")
        stored = (counted or b"").decode()
        if stored != UNDECIDED and (wrong := wrong_entities(stored, entities_mark(entities))) is not None:
            raise HistoryError(wrong)
        if not await self._lookups.any_complete(int(topology)):
            raise HistoryIncomplete("histories of all partitions are being built from the log, or are to be")

    async def refused(self) -> Sequence[str] | None:
        """What lookups need and the store does not let us do; `None` where it does not answer."""
        key, meta = self._layout.key, self._layout.key(0, "meta")
        commands: dict[str, Command] = {
            f"MGET on {key(0, kind, '*')}": ("MGET", key(0, kind, PROBE))
            for kind in ("h", "b", "p", "c", "e")
        }
        commands[f"LRANGE on {key(0, 's', '*')}"] = ("LRANGE", key(0, "s", PROBE), 0, -1)
        commands[f"HMGET on {meta}"] = ("HMGET", meta, "epoch", "building")
        return await refused(self._redis, commands)

    async def info(self) -> dict[str, Any]:
        """The server's own description, for checks of its settings."""
        return cast(dict[str, Any], await self._server.call(self._redis.info))

    async def partitions(self) -> int:
        """Number of source partitions.

        Raises:
            HistoryIncomplete: Nothing is stored, so there is no number.
        """
        return await self._lookups.partitions()

    async def claim_topology(self, partitions: int, cluster_id: str) -> None:
        """Record which log the histories are built from, or check it.

        Args:
            partitions: Number of source partitions.
            cluster_id: Name of the Kafka cluster.

        Raises:
            HistoryError: They were built from another log, where offsets mean other events and
                customers are in other partitions.
        """
        names = ("topology", "cluster")
        keys = [self._layout.shared_key(name) for name in names]
        for key, value in zip(keys, (partitions, cluster_id), strict=True):
            await self._server.call(lambda key=key, value=value: self._redis.set(key, value, nx=True))  # type: ignore[misc]
        stored_partitions, stored_cluster = await self._server.call(lambda: self._redis.mget(keys))
        rebuild = (
            "build histories from this log with 'tidegate rebuild', or beside them under another "
            "TIDEGATE_NAMESPACE and TIDEGATE_GROUP"
        )
        if stored_cluster is not None and stored_cluster.decode() != cluster_id:
            raise HistoryError(
                f"the histories were built from the log of Kafka cluster {stored_cluster.decode()}, this is "
                f"{cluster_id}: connect to the other one, or {rebuild}"
            )
        if stored_partitions is not None and int(stored_partitions) != partitions:
            raise HistoryError(
                f"the histories were built from {int(stored_partitions)} partitions, the topic now has "
                f"{partitions}: {rebuild}"
            )
        self._lookups.known = partitions

    async def acquire(self, partition: int) -> Lease:
        """Take the lease of a partition; every earlier lease of it is fenced off."""
        owner = secrets.token_hex(8)
        flat = await self._server.fcall(
            "tidegate_acquire", [self._layout.key(partition, "meta")], [owner, VERSION]
        )
        meta = _text(dict(zip(flat[::2], flat[1::2], strict=True)))
        # Behind the lease: nobody else adds to it any more.
        erased = await self.erased(partition)
        return Lease(
            partition=partition,
            epoch=int(meta["epoch"]),
            owner=owner,
            next_offsets=_next_offsets(meta),
            watermark_ms=int(meta.get("watermark", 0)),
            swept_day=int(meta.get("swept", -1)),
            erased=erased,
            models=meta.get("models", ""),
            building="building" in meta,
        )

    async def erased(self, partition: int) -> dict[str, int]:
        """Erased customers (`erased_name`), with the time (ms) until which nothing of them is taken."""
        key = self._layout.key(partition, "erased")
        found = _text(await self._server.call(lambda: self._redis.hgetall(key)))
        return {name: int(until) for name, until in found.items()}

    async def complete(self, lease: Lease) -> None:
        """Say that a partition's histories hold what the log held when they were begun."""
        meta = self._layout.key(lease.partition, "meta")
        await self._server.fcall("tidegate_complete", [meta], [lease.epoch, lease.owner])

    async def load(
        self, partition: int, customer_ids: Sequence[str], lease: Lease | None = None
    ) -> list[bytes | None]:
        """Stored histories, in the order asked for."""
        if not customer_ids:
            return []
        # One command, so that a header and the block it speaks of are of the same moment.
        keys = [self._layout.key(partition, kind, c) for kind in ("h", "b") for c in customer_ids]

        async def read_all() -> list[Any]:
            # The lease is looked at behind the histories: what it is then, it was when they were read.
            pipe = self._redis.pipeline(transaction=False)
            if lease is not None:
                pipe.zmscore(self._layout.key(partition, "index"), list(customer_ids))
            pipe.mget(keys)
            if lease is not None:
                pipe.hgetall(self._layout.key(partition, "meta"))
            results: list[Any] = await pipe.execute()
            return results

        n, answers = len(customer_ids), await self._server.call(read_all)
        histories = answers[0] if lease is None else answers[1]
        if lease is not None:
            _require_same(lease, _text(answers[2]))
            require_whole(histories[:n], answers[0])
        return [joined(history, packed) for history, packed in zip(histories[:n], histories[n:], strict=True)]

    async def apply(self, lease: Lease, commit: Commit) -> Outcome:
        """Apply a commit under a lease, all or nothing."""
        (outcome,) = await self.apply_all([(lease, commit)])
        return outcome

    async def apply_all(self, commits: Sequence[tuple[Lease, Commit]]) -> list[Outcome]:
        """Apply commits of different partitions, each by itself, in one round trip."""
        answers = await self._server.fcalls("tidegate_apply", [self._layout.call_of(*one) for one in commits])
        return [Outcome(answer.decode().lower()) for answer in answers]

    async def silent_since(self, partition: int, after_ms: int, before_ms: int) -> list[str]:
        """Customers whose newest event is in `[after_ms, before_ms)`."""
        index = self._layout.key(partition, "index")
        found = await self._server.call(lambda: self._redis.zrangebyscore(index, after_ms, f"({before_ms}"))
        return [member.decode() for member in found]

    async def customers(self, partition: int) -> list[str]:
        """All customers of a partition."""
        index = self._layout.key(partition, "index")
        found = await self._server.call(lambda: self._redis.zrange(index, 0, -1))
        return [member.decode() for member in found]

    async def entities(
        self, keys: Sequence[tuple[str, int]], partitions: Sequence[int] | None = None
    ) -> list[list[bytes | None]]:
        """What source partitions store of entities, by name and code."""
        if not keys:
            return []
        numbers = range(await self.partitions()) if partitions is None else partitions

        async def read_all() -> list[Any]:
            # One slot a partition.
            pipe = self._redis.pipeline(transaction=False)
            for partition in numbers:
                pipe.mget([self._layout.entity_key(partition, key) for key in keys])
            results: list[Any] = await pipe.execute()
            return results

        return [list(parts) for parts in zip(*await self._server.call(read_all), strict=True)]

    async def claim_entities(self, names: Sequence[str]) -> None:
        """Record which entities are counted, and in which format, or check it; before `claim_topology`.

        Raises:
            HistoryError: The state was built with others: their windows would lack what came before. Or in
                another format.
        """
        key, wanted = self._layout.shared_key("entities"), entities_mark(names)
        if await self._server.call(lambda: self._redis.exists(self._layout.shared_key("topology"))):
            stored = (await self._server.call(lambda: self._redis.get(key)) or b"").decode()
            if stored == UNDECIDED:
                await self._server.call(lambda: self._redis.set(key, wanted))
                stored = wanted
        else:
            await self._server.call(lambda: self._redis.set(key, wanted, nx=True))
            stored = (await self._server.call(lambda: self._redis.get(key))).decode()
        if (wrong := wrong_entities(stored, wanted)) is not None:
            raise HistoryError(wrong)

    async def group(self) -> str:
        """Consumer group whose workers keep this state, as far as is known; empty for none."""
        return (
            await self._server.call(lambda: self._redis.get(self._layout.shared_key("group"))) or b""
        ).decode()

    async def set_group(self, group: str) -> None:
        """Say whose workers keep this state."""
        await self._server.call(lambda: self._redis.set(self._layout.shared_key("group"), group))

    async def histories(self, customer_ids: Sequence[str]) -> list[bytes | None]:
        """Stored histories of customers of any partition, in the order asked for."""
        return await self._lookups.histories(customer_ids)

    async def next_offsets(self, partition: int) -> dict[str, int]:
        """How far each source topic was processed; takes no lease."""
        meta = await self._server.call(lambda: self._redis.hgetall(self._layout.key(partition, "meta")))
        return _next_offsets(_text(meta))

    async def snapshot(
        self, partition: int, customer_ids: Sequence[str]
    ) -> tuple[dict[str, int], list[bytes | None], list[bytes | None]]:
        """Next offsets, histories and newest churn scores of customers, all of one moment."""

        async def read_all() -> list[Any]:
            pipe = self._redis.pipeline(transaction=True)
            pipe.hgetall(self._layout.key(partition, "meta"))
            pipe.mget([self._layout.key(partition, "h", c) for c in customer_ids])
            pipe.mget([self._layout.key(partition, "b", c) for c in customer_ids])
            pipe.mget([self._layout.key(partition, "c", c) for c in customer_ids])
            results: list[Any] = await pipe.execute()
            return results

        meta, histories, packed, churn = await self._server.call(read_all)
        whole = [joined(history, block) for history, block in zip(histories, packed, strict=True)]
        unpacked = [None if score is None else self._packer.unpack(score) for score in churn]
        return _next_offsets(_text(meta)), whole, unpacked

    async def read(self, customer_id: str, *, scores: bool = True) -> CustomerState | None:
        """State of a customer, wherever it is; `None` for one never seen."""
        return await self._lookups.read(customer_id, scores)


def _text(meta: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in meta.items()}


def _next_offsets(meta: Mapping[str, str]) -> dict[str, int]:
    return {k.removeprefix("next:"): int(v) for k, v in meta.items() if k.startswith("next:")}


def _require_same(lease: Lease, meta: Mapping[str, str]) -> None:
    lease.require_same(int(meta.get("epoch", 0)), meta.get("owner", ""), _next_offsets(meta))
