"""Merchants, devices and counterparties in the stream: their features for a chunk, and what it adds to them.

Each source partition stores what its own events add, in the commit that moves its offset: nothing is lost
and nothing counted twice for the same reasons as with histories. A merchant is the sum over the partitions.
This worker keeps that sum for those that were asked for, and adds to it what its own partitions count.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features.corrections import Correction
from features.engine import Matrix
from features.entities import TILE_MS, EntityFeature
from features.entity_counts import Entities, Key, SaidOf
from features.ports import EntityChange, HistoryStore
from features.record import Records
from features.tile_codec import HEADER, TILE, Tiles, decode, encode, merge
from stream_app.alignment import Alignment
from stream_app.partition import Partition
from stream_app.ports import Observer
from stream_app.retry import Interrupted, Retry

_REWRITE_SLACK = 64


@dataclass(frozen=True, slots=True)
class Counted:
    """What a chunk adds to entities; it becomes part of the state with the chunk's commit.

    Attributes:
        vectors: `(n, k)` features of the chunk's events.
        changes: For the commit.
    """

    vectors: Matrix
    changes: Sequence[EntityChange]


@dataclass(slots=True, eq=False)
class _Load:
    """A read that is under way, and what was changed meanwhile: some entities, or a lease and so any.

    Each equals itself alone: of two that look alike, the one that ends must be taken off the list.
    """

    outdated: set[Key] = field(default_factory=set)
    void: bool = False


class EntityStage:
    """All entities of a worker.

    Args:
        features: Declarations.
        store: Where entities are.
        retry: Waits for it.
        observer: Times reading.
        alignment: Keeps the worker's partitions together.
        partitions: How many source partitions there are.
        mine: Those that this worker has.
        max_tiles: Tiles kept in memory.
    """

    def __init__(
        self,
        features: Sequence[EntityFeature],
        store: HistoryStore,
        retry: Retry,
        observer: Observer,
        alignment: Alignment,
        *,
        partitions: int,
        mine: Callable[[], Iterable[int]],
        max_tiles: int = 4_000_000,
    ) -> None:
        self._entities = Entities(features, max_tiles)
        self._store = store
        self._retry = retry
        self._observer = observer
        self._alignment = alignment
        self._partitions = partitions
        self._mine = mine
        self._loads: list[_Load] = []
        # Counted here and not stored yet: every copy that is read from the store needs it too.
        self._pending: dict[int, dict[Key, Tiles]] = {}
        # Of what each partition stores of an entity: tiles, and at how many they are put together.
        self._stored: dict[tuple[int, Key], tuple[int, int]] = {}
        self._as_of: dict[Key, int] = {}  # hour up to which other workers' parts were read

    def begin(self, partition: int, watermark_ms: int) -> None:
        """A lease was taken: what other workers have stored meanwhile is not known here."""
        self._pending.pop(partition, None)
        self._clear()
        self._alignment.begin(partition, watermark_ms // TILE_MS)

    def reached(self, partition: int) -> int | None:
        """Hour before which a partition has counted everything; `None` where it is not ours."""
        return self._alignment.reached(partition)

    def forget(self, partition: int) -> None:
        """A lease is gone, and with it what was counted and not stored."""
        self._pending.pop(partition, None)
        self._clear()

    async def count(
        self,
        partition: Partition,
        records: Records,
        customers: npt.NDArray[np.uint32],
        rows: npt.NDArray[np.intp],
        corrections: Sequence[Correction] = (),
    ) -> Counted:
        """Features of a chunk's events, each from what was before it; the chunk is counted.

        Args:
            partition: Whose chunk it is.
            records: `(n,)` records.
            customers: `(n,)` hashes of their customers.
            rows: Rows that are not duplicates.
            corrections: Those of them that correct others.
        """
        floor = partition.require_lease().watermark_ms // TILE_MS
        # A late event holds nobody up: its hour is over everywhere.
        hours = np.maximum.accumulate(np.r_[floor, records["time_ms"][rows] // TILE_MS])[1:]
        vectors = np.full((len(records), len(self._entities.features)), np.nan)
        at = 0
        while at < len(rows):
            limit = await self._alignment.wait(partition.number, int(hours[at]), partition.interrupted)
            if partition.interrupted.is_set():
                raise Interrupted
            until = len(rows) if limit is None else int(np.searchsorted(hours, limit, side="right"))
            now = rows[at : max(until, at + 1)]
            at += len(now)
            await self._bring(partition, self._entities.keys(records[now]), int(hours[at - 1]))
            # No await between here and the next `wait`: what was brought is still here.
            mine = [c for c in corrections if now[0] <= c.row <= now[-1]]
            vectors[now] = self._entities.compute(records, customers, now, count=True, corrections=mine)[now]
            self._add_pending(partition.number, self._entities.added(records, customers, now, mine))
            self._alignment.reach(partition.number, int(hours[at - 1]))
        return Counted(vectors, await self._changes(partition))

    async def confirm(self, partition: Partition, said: Sequence[SaidOf]) -> Counted:
        """Count frauds that labels confirm, or take back."""
        added = self._entities.frauds(said)
        latest = max((int(tiles["hour"].max()) for tiles in added.values()), default=0)
        await self._bring(partition, list(added), latest)
        self._entities.add(added)
        self._add_pending(partition.number, added)
        nothing = np.empty((0, len(self._entities.features)))
        return Counted(nothing, await self._changes(partition))

    def committed(self, partition: Partition, counted: Counted) -> None:
        """A chunk became part of the state."""
        pending = self._pending.pop(partition.number, {})
        for load in self._loads:
            load.outdated.update(pending)
        for change in counted.changes:
            key = (partition.number, (change.entity, change.code))
            tiles = (len(change.value) - len(HEADER) * change.replaced) // TILE.itemsize
            if change.replaced:
                self._stored[key] = (tiles, 2 * tiles + _REWRITE_SLACK)
            elif key in self._stored:
                self._stored[key] = (self._stored[key][0] + tiles, self._stored[key][1])
        if self._entities.forget_if_full():
            self._clear()

    def _add_pending(self, number: int, added: Mapping[Key, Tiles]) -> None:
        pending = self._pending.setdefault(number, {})
        for key, tiles in added.items():
            pending[key] = np.concatenate([pending[key], tiles]) if key in pending else tiles

    async def _changes(self, partition: Partition) -> list[EntityChange]:
        """The stored form of what is added: appended, or where that has become long, put together."""
        number = partition.number
        added = dict(self._pending.get(number, {}))
        # Of before the read: what is known of other partitions, and so all of it, may be forgotten meanwhile.
        sizes = {key: self._stored[number, key][0] for key in added if (number, key) in self._stored}
        unknown = [key for key in added if key not in sizes]
        long = [
            key
            for key, tiles in added.items()
            if (number, key) in self._stored
            and self._stored[number, key][0] + len(tiles) > self._stored[number, key][1]
        ]
        # Nobody else writes this partition's part while its lock is held.
        parts = await self._read([*unknown, *long], [number], partition)
        changes = []
        for key, (stored,) in parts.items():
            sizes[key] = self._note(number, key, stored)
        for key, tiles in added.items():
            (stored,) = parts.get(key, (None,))
            if key in long:
                stage = self._entities.stages[key[0]]
                whole = merge([decode(stored), tiles], stage.kept)
                changes.append(EntityChange(*key, encode(whole), replaced=True))
            elif sizes[key] == 0:
                changes.append(EntityChange(*key, encode(tiles), replaced=True))
            else:
                changes.append(EntityChange(*key, tiles.tobytes(), replaced=False))
        return changes

    def _note(self, number: int, key: Key, stored: bytes | None) -> int:
        """Remember how many tiles are stored of an entity; returns that."""
        tiles = max(0, len(stored or b"") - len(HEADER)) // TILE.itemsize
        known = self._stored.get((number, key))
        self._stored[number, key] = (tiles, known[1] if known else 2 * tiles + _REWRITE_SLACK)
        return tiles

    async def _bring(self, partition: Partition, keys: Sequence[Key], hour: int) -> None:
        """Have entities here, with what other workers had stored of them an hour before."""
        foreign = sorted(set(range(self._partitions)) - set(self._mine()))
        if foreign:
            for key in [key for key in keys if self._as_of.get(key, hour) < hour]:
                self._entities.drop(key)
        while missing := self._entities.missing(keys):
            load = _Load()
            self._loads.append(load)
            try:
                found = await self._read(missing, range(self._partitions), partition)
            finally:
                self._loads.remove(load)
            for key in self._entities.missing(found):
                # What was committed meanwhile may be in what was read or not: once more.
                if not load.void and key not in load.outdated:
                    pending = [mine[key] for mine in self._pending.values() if key in mine]
                    self._entities.put(key, [*map(decode, found[key]), *pending])
                    self._as_of[key] = hour
                    for number in self._mine():
                        self._note(number, key, found[key][number])

    async def _read(
        self, keys: Sequence[Key], partitions: Iterable[int], partition: Partition
    ) -> dict[Key, list[bytes | None]]:
        if not keys:
            return {}
        numbers = list(partitions)
        with self._observer.step("load"):
            parts = await self._retry.until_done(
                "redis", lambda: self._store.entities(keys, numbers), partition.interrupted
            )
        return dict(zip(keys, parts, strict=True))

    def _clear(self) -> None:
        for load in self._loads:
            load.void = True
        self._entities.clear()
        self._as_of.clear()
        self._stored.clear()
