"""Entities' tiles in memory: what all customers did at a merchant or on a device, by the hour.

One class, configured by entity. The worker, the API and training run it alike: the order of the events
is the order of the log, and an event is not in its own windows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from features import tile_kernels
from features.engine import Matrix
from features.entities import (
    RUN_OPS,
    SLACK_TILES,
    TILE_MS,
    Entity,
    EntityFeature,
    EntityOp,
    kept_tiles,
)
from features.record import Records
from features.tile_codec import SUMS, TILE, Kept, Tiles, merge

MAX_TILES: Final = 16_384
"""Tiles of one entity that features look at: the newest. A merchant has one an hour, with those of frauds."""

_OPS: Final = {
    EntityOp.COUNT: tile_kernels.COUNT,
    EntityOp.FRAUD_COUNT: tile_kernels.FRAUD_COUNT,
    EntityOp.FRAUD_SHARE: tile_kernels.FRAUD_SHARE,
    EntityOp.CUSTOMERS: tile_kernels.CUSTOMERS,
    EntityOp.SINCE_FRAUD: tile_kernels.SINCE_FRAUD,
    EntityOp.FRAUD_RUN: tile_kernels.FRAUD_RUN,
    EntityOp.GENUINE_SINCE: tile_kernels.GENUINE_SINCE,
    EntityOp.AMOUNT_RATIO: tile_kernels.AMOUNT_RATIO,
    EntityOp.AMOUNT_ZSCORE: tile_kernels.AMOUNT_ZSCORE,
}
_SMALLEST: Final = 8
_REMEMBERED: Final = 1024
"""Entities of which the last look is remembered: a large shop is asked about many times an hour."""

Rows = npt.NDArray[np.intp]


class EntityTiles:
    """Tiles of the merchants, or devices, or counterparties, that were asked for, and their features.

    Args:
        entity: What it is about.
        features: Declarations of this entity.
    """

    def __init__(self, entity: Entity, features: Sequence[EntityFeature]) -> None:
        self.entity = entity
        self.features = tuple(features)
        self.kept = Kept(*kept_tiles(self.features), MAX_TILES)
        self._ops = np.array([_OPS[f.op] for f in self.features], dtype=np.int64)
        # Those of one delay together, the shortest window first.
        of = [(f.delay_tiles, f.window_tiles) for f in self.features]
        spans = sorted(set(of))
        self._spans = np.array([spans.index(span) for span in of], dtype=np.int64)
        self._delays, self._windows = np.array(spans, dtype=np.int64).reshape(-1, 2).T.copy()
        _, firsts = np.unique(self._delays, return_index=True)
        self._groups = np.r_[firsts, len(spans)].astype(np.int64)
        group_of = np.searchsorted(firsts, self._spans, side="right") - 1
        of_runs = np.isin(self._ops, [_OPS[op] for op in RUN_OPS])
        n_groups = len(firsts)
        # Slot, hour and number of tiles of what was looked at last.
        self._known = np.full((_REMEMBERED, 3), -1, dtype=np.int64)
        self._scratch = (
            np.zeros((_REMEMBERED, len(spans), 5), dtype=np.int64),
            np.zeros((_REMEMBERED, len(spans), 6), dtype=np.int64),
            np.zeros((n_groups, 5), dtype=np.int64),
            np.zeros((n_groups, 6), dtype=np.int64),
            np.zeros(n_groups, dtype=np.int64),
            np.isin(np.arange(n_groups), group_of[of_runs]),
        )
        self._sets = np.zeros((n_groups, 64), dtype=np.uint64)
        self._stamp = 0
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self._known[:] = -1
        self._pool: Tiles = np.zeros(1024, dtype=TILE)
        self._start = np.zeros(64, dtype=np.int64)
        self._length = np.zeros(64, dtype=np.int64)
        self._capacity = np.zeros(64, dtype=np.int64)
        self._slots: dict[int, int] = {}  # by code
        self._free_slots = list(range(63, -1, -1))
        self._free_blocks: defaultdict[int, list[int]] = defaultdict(list)
        self._used = 0

    @property
    def reserved(self) -> int:
        """Tiles that there is memory for."""
        return len(self._pool)

    def __contains__(self, code: object) -> bool:
        return code in self._slots

    def put(self, code: int, parts: Iterable[Tiles]) -> None:
        """Take in an entity's tiles.

        Args:
            code: Hash of its id.
            parts: Of one source partition each.
        """
        tiles = merge(parts, self.kept)
        self.drop(code)
        if not self._free_slots:
            self._grow_slots()
        slot = self._free_slots.pop()
        self._forget_look(slot)
        self._place(slot, tiles, _capacity_for(len(tiles)))
        self._slots[code] = slot

    def drop(self, code: int) -> None:
        """Forget an entity."""
        if code in self._slots:
            slot = self._slots.pop(code)
            self._free_blocks[int(self._capacity[slot])].append(int(self._start[slot]))
            self._free_slots.append(slot)

    def tiles(self, code: int) -> Tiles:
        """A copy of an entity's tiles, by hour."""
        slot = self._slots[code]
        start = self._start[slot]
        found: Tiles = self._pool[start : start + self._length[slot]].copy()
        return found

    def newest_hour(self, code: int) -> int:
        """Hour of an entity's newest tile; 0 where it has none."""
        slot = self._slots[code]
        length = int(self._length[slot])
        return int(self._pool["hour"][self._start[slot] + length - 1]) if length else 0

    def compute(self, records: Records, customers: npt.NDArray[np.uint32], rows: Rows, count: bool) -> Matrix:
        """Features of transactions in their order, all of whose entities are here.

        Args:
            records: `(n,)` records.
            customers: `(n,)` hashes of their customers.
            rows: Rows to compute; the others stay unknown.
            count: Whether each is counted once it is computed.

        Returns:
            `(n, k)`; NaN is unknown, also where an event has no such entity.
        """
        out = np.full((len(records), len(self.features)), np.nan)
        codes = records[self.entity.field][rows].tolist()
        slots = np.full(len(records), -1, dtype=np.int64)
        slots[rows] = [self._slots[code] if code else -1 for code in codes]
        if count:
            self._reserve(slots)
        self._reserve_sets(int(self._length[slots].max(initial=0)) + len(records))
        who = customers if self.entity.by_customer else np.zeros_like(customers)
        self._stamp = tile_kernels.compute_tiles(
            self._pool,
            self._start,
            self._length,
            slots,
            records["time_ms"] // TILE_MS,
            who,
            tile_kernels.log_amounts(records["amount_minor"]),
            self._ops,
            self._spans,
            self._windows,
            self._delays,
            self._groups,
            SLACK_TILES,
            *self.kept,
            count,
            self.entity.by_customer,
            out,
            self._known,
            *self._scratch,
            self._sets,
            self._stamp,
        )
        return out

    def added(self, records: Records, customers: npt.NDArray[np.uint32], rows: Rows) -> dict[int, Tiles]:
        """What counting these rows adds, by entity: to be stored."""
        rows = rows[records[self.entity.field][rows] != 0]
        if len(rows) == 0:
            return {}
        tiles = np.zeros(len(rows), dtype=TILE)
        tiles["hour"] = records["time_ms"][rows] // TILE_MS
        tiles["customer"] = customers[rows] if self.entity.by_customer else 0
        codes = records[self.entity.field][rows]
        order = np.lexsort((tiles["customer"], tiles["hour"], codes))
        tiles, codes = tiles[order], codes[order]
        changed = (tiles[1:] != tiles[:-1]) | (codes[1:] != codes[:-1])
        first = np.flatnonzero(np.r_[True, changed])
        logs = tile_kernels.log_amounts(records["amount_minor"][rows])[order]
        ones = np.ones(len(rows), dtype=np.uint64)
        tiles, codes = tiles[first], codes[first]
        for name, values in zip(SUMS, (ones, logs, logs * logs), strict=True):
            tiles[name] = np.add.reduceat(values, first)
        edges = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]).tolist()
        ends = [*edges[1:], len(codes)]
        return {
            code: tiles[low:high] for code, low, high in zip(codes[edges].tolist(), edges, ends, strict=True)
        }

    def add(self, code: int, tiles: Tiles) -> None:
        """Add tiles to an entity that is here."""
        slot = self._slots[code]
        self._forget_look(slot)
        for tile in tiles:
            self._reserve(np.array([slot]))
            first, length = int(self._start[slot]), int(self._length[slot])
            newest = int(self._pool["hour"][first + length - 1]) if length else 0
            if int(tile["hour"]) < newest - (self.kept.frauds if tile["known"] else self.kept.events):
                continue
            self._length[slot] += tile_kernels.add_tile(
                self._pool, first, length, *(tile[name] for name in ("hour", "known", "customer", *SUMS))
            )

    def _forget_look(self, slot: int) -> None:
        self._known[slot % _REMEMBERED] = -1

    def _reserve(self, slots: npt.NDArray[np.int64]) -> None:
        """Make room for one more tile for each time a slot is named."""
        unique, wanted = np.unique(slots[slots >= 0], return_counts=True)
        short = self._length[unique] + wanted > self._capacity[unique]
        for slot, more in zip(unique[short].tolist(), wanted[short].tolist(), strict=True):
            start, capacity = int(self._start[slot]), int(self._capacity[slot])
            # As many tiles as before may be others now.
            self._forget_look(slot)
            tiles = merge([self._pool[start : start + self._length[slot]]], self.kept)
            self._free_blocks[capacity].append(start)
            self._place(slot, tiles, _capacity_for(len(tiles) + more))

    def _reserve_sets(self, longest: int) -> None:
        # Half full at most: a full open-addressing set would search for ever.
        needed = 2 * min(longest, MAX_TILES)
        if needed > self._sets.shape[1] or self._stamp >= 1 << 31:
            capacity = max(self._sets.shape[1], 1 << needed.bit_length())
            self._sets = np.zeros((len(self._groups) - 1, capacity), dtype=np.uint64)
            self._stamp = 0

    def _place(self, slot: int, tiles: Tiles, capacity: int) -> None:
        if self._free_blocks[capacity]:
            start = self._free_blocks[capacity].pop()
        else:
            start, self._used = self._used, self._used + capacity
            if self._used > len(self._pool):
                grown = np.zeros(max(2 * len(self._pool), self._used), dtype=TILE)
                grown[: len(self._pool)] = self._pool
                self._pool = grown
        self._start[slot], self._length[slot], self._capacity[slot] = start, len(tiles), capacity
        self._pool[start : start + len(tiles)] = tiles

    def _grow_slots(self) -> None:
        n = len(self._start)
        more = np.zeros(n, dtype=np.int64)
        self._start, self._length = np.r_[self._start, more], np.r_[self._length, more]
        self._capacity = np.r_[self._capacity, more]
        self._free_slots = list(range(2 * n - 1, n - 1, -1))


def _capacity_for(n: int) -> int:
    return max(_SMALLEST, 1 << n.bit_length())
