"""Histories in Redis or Valkey: all keys of a source partition share one hash tag.

| key | what |
| --- | --- |
| `{tg:3}:meta` | epoch, owner, next offsets, watermark, set of models, format version |
| `{tg:3}:index` | customers by the time of their newest event |
| `{tg:3}:h:<customer>` | history (`features.codec`): header and newest records |
| `{tg:3}:b:<customer>` | its packed block: appending never touches it, so it has no room to grow |
| `{tg:3}:s:<customer>` | newest fraud scores, compressed |
| `{tg:3}:c:<customer>` | newest churn score, compressed |
| `{tg:3}:p:<customer>` | profile, contact data sealed |
| `{tg:3}:e:<entity>:<hash>` | what this partition adds to a merchant and so on (`features.tile_codec`) |
| `{tg:3}:erased` | digests of erased customers, and until when nothing of them is taken |
| `tg:topology` | number of source partitions |
| `tg:cluster` | Kafka cluster that the offsets belong to |
| `tg:entities` | entities that are counted since the first event |
"""

import asyncio
import secrets
from collections import defaultdict
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
from features.ports import Commit, CustomerState, Lease, Outcome
from infra.gathered import Gathered
from infra.partitioning import partition_for
from infra.score_packing import ScorePacker
from schemas.erasure import erased_name
from schemas.errors import DependencyError, HistoryError

_SOURCE = (Path(__file__).parent / "functions.lua").read_text()
# Named by what they do: after an upgrade the new ones are loaded, and a worker that is still running
# keeps its own.
_DIGEST = f"_{sha256(_SOURCE.encode()).hexdigest()[:12]}"
_FUNCTIONS = _SOURCE.replace("_VERSION", _DIGEST)

UNDECIDED = "*"
"""Entities of a store in which nothing is counted yet."""


class _BulkPacking:
    """Writes commands with hiredis: the client's own way costs more than making what is in them."""

    def pack_command(self, *args: Any) -> list[bytes]:
        words = args[0].split() if isinstance(args[0], str) else [args[0]]
        return [hiredis.pack_command((*words, *args[1:]))]


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
        self._redis: Any = redis.Redis.from_pool(pool)
        # Neither password: one may stand before the host, one among the options.
        self._shown = url.rsplit("@", 1)[-1].removeprefix("redis://").split("?")[0]
        self._partitions = partitions
        self._namespace = self.namespace = namespace
        self._recent_scores = recent_scores
        self._packer = ScorePacker()
        self._loading = asyncio.Lock()
        self._states = Gathered(self._read_states)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raise `DependencyError` unless the store answers."""
        await self._call(self._redis.ping)

    async def info(self) -> dict[str, Any]:
        """The server's own description, for checks of its settings."""
        return cast(dict[str, Any], await self._call(self._redis.info))

    async def partitions(self) -> int:
        """Number of source partitions.

        Raises:
            HistoryError: Nothing was ever stored, so there is no number.
        """
        if self._partitions is None:
            stored = await self._call(lambda: self._redis.get(f"{self._namespace}:topology"))
            if stored is None:
                raise HistoryError("the store is empty: no worker has run against it yet")
            self._partitions = int(stored)
        return self._partitions

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
        keys = [f"{self._namespace}:{name}" for name in names]
        for key, value in zip(keys, (partitions, cluster_id), strict=True):
            await self._call(lambda key=key, value=value: self._redis.set(key, value, nx=True))  # type: ignore[misc]
        stored_partitions, stored_cluster = await self._call(lambda: self._redis.mget(keys))
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
        self._partitions = partitions

    async def acquire(self, partition: int) -> Lease:
        """Take the lease of a partition; every earlier lease of it is fenced off."""
        owner = secrets.token_hex(8)
        flat = await self._fcall("tidegate_acquire", [self._key(partition, "meta")], [owner, VERSION])
        meta = _text(dict(zip(flat[::2], flat[1::2], strict=True)))
        # Behind the lease: nobody else adds to it any more.
        erased = _text(await self._call(lambda: self._redis.hgetall(self._key(partition, "erased"))))
        return Lease(
            partition=partition,
            epoch=int(meta["epoch"]),
            owner=owner,
            next_offsets=_next_offsets(meta),
            watermark_ms=int(meta.get("watermark", 0)),
            swept_day=int(meta.get("swept", -1)),
            erased={name: int(until) for name, until in erased.items()},
            models=meta.get("models", ""),
        )

    async def load(
        self, partition: int, customer_ids: Sequence[str], lease: Lease | None = None
    ) -> list[bytes | None]:
        """Stored histories, in the order asked for."""
        if not customer_ids:
            return []
        # One command, so that a header and the block it speaks of are of the same moment.
        keys = [self._key(partition, kind, c) for kind in ("h", "b") for c in customer_ids]

        async def read_all() -> list[Any]:
            # The lease is looked at behind the histories: what it is then, it was when they were read.
            pipe = self._redis.pipeline(transaction=False)
            pipe.mget(keys)
            if lease is not None:
                pipe.hgetall(self._key(partition, "meta"))
            results: list[Any] = await pipe.execute()
            return results

        histories, *meta = await self._call(read_all)
        if lease is not None:
            _require_same(lease, _text(meta[0]))
        n = len(customer_ids)
        return [
            _joined(history, packed) for history, packed in zip(histories[:n], histories[n:], strict=True)
        ]

    async def apply(self, lease: Lease, commit: Commit) -> Outcome:
        """Apply a commit under a lease, all or nothing."""
        (outcome,) = await self.apply_all([(lease, commit)])
        return outcome

    async def apply_all(self, commits: Sequence[tuple[Lease, Commit]]) -> list[Outcome]:
        """Apply commits of different partitions, each by itself, in one round trip."""
        answers = await self._fcalls("tidegate_apply", [self._call_of(*one) for one in commits])
        return [Outcome(answer.decode().lower()) for answer in answers]

    def _call_of(self, lease: Lease, commit: Commit) -> tuple[list[str], list[Any]]:
        """Keys and arguments of the function that applies a commit."""
        p = lease.partition
        history, block, newest, churn, profile = (
            self._key(p, kind, "") for kind in ("h", "b", "s", "c", "p")
        )
        appended = [change for change in commit.histories if not change.replaced]
        replaced = [change for change in commit.histories if change.replaced]
        stored_profiles = {c: value for c, value in commit.profiles.items() if value is not None}
        deleted = [profile + c for c, value in commit.profiles.items() if value is None]
        deleted += [kind + c for c in commit.erased for kind in (history, block, newest, churn, profile)]
        lists = {c: scores[-self._recent_scores :] for c, scores in commit.scores.items() if scores}
        rewritten = [entity for entity in commit.entities if entity.replaced]
        extended = [entity for entity in commit.entities if not entity.replaced]
        keys = [self._key(p, "meta"), self._key(p, "index")]
        args: list[Any] = [lease.epoch, lease.owner, commit.source]
        args += ["" if commit.expected_next is None else commit.expected_next, commit.next_offset]
        args += [commit.watermark_ms, commit.swept_day, self._recent_scores, commit.models]
        args += [len(appended), len(replaced), len(commit.histories), len(lists)]
        args += [len(commit.churn) + len(stored_profiles) + len(rewritten), len(extended), len(deleted)]
        args.append(len(commit.erased))
        for change in appended:
            keys.append(history + change.customer_id)
            args += (change.expected_bytes, change.header, change.appended)
        for change in replaced:
            keys += (history + change.customer_id, block + change.customer_id)
            args += (change.expected_bytes, change.header + change.appended, change.packed)
        for change in commit.histories:
            args += (change.last_event_ms, change.customer_id)
        for customer_id, scores in lists.items():
            keys.append(newest + customer_id)
            args += (len(scores), *map(self._packer.pack, scores))
        keys += [churn + c for c in commit.churn]
        args += [self._packer.pack(score) for score in commit.churn.values()]
        keys += [profile + c for c in stored_profiles]
        args += stored_profiles.values()
        for entities in (rewritten, extended):
            keys += [self._entity_key(p, (entity.entity, entity.code)) for entity in entities]
            args += [entity.value for entity in entities]
        keys += deleted
        for customer_id, until_ms in commit.erased.items():
            keys.append(self._key(p, "erased"))
            args += (customer_id, erased_name(customer_id), until_ms)
        return keys, args

    async def silent_since(self, partition: int, after_ms: int, before_ms: int) -> list[str]:
        """Customers whose newest event is in `[after_ms, before_ms)`."""
        index = self._key(partition, "index")
        found = await self._call(lambda: self._redis.zrangebyscore(index, after_ms, f"({before_ms}"))
        return [member.decode() for member in found]

    async def customers(self, partition: int) -> list[str]:
        """All customers of a partition."""
        index = self._key(partition, "index")
        found = await self._call(lambda: self._redis.zrange(index, 0, -1))
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
                pipe.mget([self._entity_key(partition, key) for key in keys])
            results: list[Any] = await pipe.execute()
            return results

        return [list(parts) for parts in zip(*await self._call(read_all), strict=True)]

    async def claim_entities(self, names: Sequence[str]) -> None:
        """Record which entities are counted, or check it; before `claim_topology`.

        Raises:
            HistoryError: The state was built with others: their windows would lack what came before.
        """
        key, wanted = f"{self._namespace}:entities", ",".join(sorted(names))
        if await self._call(lambda: self._redis.exists(f"{self._namespace}:topology")):
            stored = (await self._call(lambda: self._redis.get(key)) or b"").decode()
            if stored == UNDECIDED:
                await self._call(lambda: self._redis.set(key, wanted))
                stored = wanted
        else:
            await self._call(lambda: self._redis.set(key, wanted, nx=True))
            stored = (await self._call(lambda: self._redis.get(key))).decode()
        if stored != wanted:
            raise HistoryError(
                f"the state counts entities {stored or 'none'!r}, TIDEGATE_ENTITIES says "
                f"{wanted or 'none'!r}: set it back, or build all state from the log with "
                "'tidegate rebuild'"
            )

    async def histories(self, customer_ids: Sequence[str]) -> list[bytes | None]:
        """Stored histories of customers of any partition, in the order asked for."""
        partitions = await self.partitions()
        by_partition: dict[int, list[int]] = defaultdict(list)
        for number, customer_id in enumerate(customer_ids):
            by_partition[partition_for(customer_id, partitions)].append(number)

        async def read_all() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            for p, numbers in by_partition.items():
                pipe.mget([self._key(p, kind, customer_ids[n]) for kind in ("h", "b") for n in numbers])
            results: list[Any] = await pipe.execute()
            return results

        found: list[bytes | None] = [None] * len(customer_ids)
        answers = await self._call(read_all)
        for numbers, answer in zip(by_partition.values(), answers, strict=True):
            n = len(numbers)
            for number, history, packed in zip(numbers, answer[:n], answer[n:], strict=True):
                found[number] = _joined(history, packed)
        return found

    async def next_offsets(self, partition: int) -> dict[str, int]:
        """How far each source topic was processed; takes no lease."""
        meta = await self._call(lambda: self._redis.hgetall(self._key(partition, "meta")))
        return _next_offsets(_text(meta))

    async def snapshot(
        self, partition: int, customer_ids: Sequence[str]
    ) -> tuple[dict[str, int], list[bytes | None], list[bytes | None]]:
        """Next offsets, histories and newest churn scores of customers, all of one moment."""

        async def read_all() -> list[Any]:
            pipe = self._redis.pipeline(transaction=True)
            pipe.hgetall(self._key(partition, "meta"))
            pipe.mget([self._key(partition, "h", c) for c in customer_ids])
            pipe.mget([self._key(partition, "b", c) for c in customer_ids])
            pipe.mget([self._key(partition, "c", c) for c in customer_ids])
            results: list[Any] = await pipe.execute()
            return results

        meta, histories, packed, churn = await self._call(read_all)
        joined = [_joined(history, block) for history, block in zip(histories, packed, strict=True)]
        unpacked = [None if score is None else self._packer.unpack(score) for score in churn]
        return _next_offsets(_text(meta)), joined, unpacked

    async def read(self, customer_id: str, *, scores: bool = True) -> CustomerState | None:
        """State of a customer, wherever it is; `None` for one never seen."""
        if not scores:
            return await self._states.get(customer_id)
        p = partition_for(customer_id, await self.partitions())

        async def read_all() -> list[Any]:
            pipe = self._redis.pipeline(transaction=False)
            pipe.mget(self._key(p, "h", customer_id), self._key(p, "b", customer_id))
            pipe.lrange(self._key(p, "s", customer_id), 0, -1)
            pipe.mget(self._key(p, "c", customer_id), self._key(p, "p", customer_id))
            results: list[Any] = await pipe.execute()
            return results

        (history, packed), kept, (churn, profile) = await self._call(read_all)
        if history is None and profile is None:
            return None
        unpack = self._packer.unpack
        newest = [unpack(score) for score in kept]
        return CustomerState(
            _joined(history, packed), newest, None if churn is None else unpack(churn), profile
        )

    async def _read_states(self, customer_ids: list[str]) -> list[CustomerState | None]:
        """States of customers without their scores, in the order asked for."""
        partitions = await self.partitions()
        by_partition: dict[int, list[int]] = defaultdict(list)
        for number, customer_id in enumerate(customer_ids):
            by_partition[partition_for(customer_id, partitions)].append(number)

        async def read_all() -> list[Any]:
            # A pipeline of its own for one command costs as much as the command.
            pipe = self._redis if len(by_partition) == 1 else self._redis.pipeline(transaction=False)
            for p, numbers in by_partition.items():
                asked = pipe.mget(
                    [self._key(p, kind, customer_ids[n]) for n in numbers for kind in ("h", "b", "p")]
                )
            return [await asked] if pipe is self._redis else await pipe.execute()

        found: list[CustomerState | None] = [None] * len(customer_ids)
        for numbers, answer in zip(by_partition.values(), await self._call(read_all), strict=True):
            for at, number in enumerate(numbers):
                history, packed, profile = answer[3 * at : 3 * at + 3]
                if history is not None or profile is not None:
                    found[number] = CustomerState(_joined(history, packed), profile=profile)
        return found

    def _key(self, partition: int, kind: str, customer_id: str | None = None) -> str:
        tag = f"{{{self._namespace}:{partition}}}:{kind}"
        return tag if customer_id is None else f"{tag}:{customer_id}"

    def _entity_key(self, partition: int, key: tuple[str, int]) -> str:
        return self._key(partition, "e", f"{key[0]}:{key[1]:08x}")

    async def _fcall(self, name: str, keys: list[str], args: list[Any]) -> Any:
        (answer,) = await self._fcalls(name, [(keys, args)])
        return answer

    async def _fcalls(self, name: str, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Any]:
        """Answers of a function that is called several times; where one call fails the others are done."""

        async def call() -> list[Any]:
            if len(calls) == 1:
                ((keys, args),) = calls
                return [await self._redis.fcall(name + _DIGEST, len(keys), *keys, *args)]
            pipe = self._redis.pipeline(transaction=False)
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
                return cast(list[Any], await self._call(call))
            except exceptions.ResponseError as error:
                if "Function not found" not in str(error):
                    raise
                async with self._loading:
                    await self._call(lambda: self._redis.function_load(_FUNCTIONS, replace=True))
                return cast(list[Any], await self._call(call))
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

    async def _call(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Run one command, telling a store that does not answer from one that answers no."""
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
            raise


def _joined(history: bytes | None, packed: bytes | None) -> bytes | None:
    return history if history is None or packed is None else history + packed


def _text(meta: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in meta.items()}


def _next_offsets(meta: Mapping[str, str]) -> dict[str, int]:
    return {k.removeprefix("next:"): int(v) for k, v in meta.items() if k.startswith("next:")}


def _require_same(lease: Lease, meta: Mapping[str, str]) -> None:
    lease.require_same(int(meta.get("epoch", 0)), meta.get("owner", ""), _next_offsets(meta))


def _words(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
