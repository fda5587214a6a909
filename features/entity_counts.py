"""All entities that are declared, with what happened at them: one class for worker, API and training."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.codes import name_hash
from features.corrections import Correction
from features.engine import Matrix
from features.entities import ENTITIES, LATENESS_TILES, TILE_MS, EntityFeature
from features.labels import Word, words_of
from features.record import Records, accepted
from features.tile_codec import SUMS, TILE, Tiles, decode
from features.tiles import EntityTiles, Rows

Key = tuple[str, int]
"""An entity's name and the hash of an id."""


@dataclass(frozen=True, slots=True)
class SaidOf:
    """A transaction, `(1,)`, and what was said of it."""

    record: Records
    word: Word


class Entities:
    """All entities that are declared, each with its tiles.

    Args:
        features: Declarations; columns are in their order.
        max_tiles: Memory, in tiles of 32 bytes an entity, after which `forget_if_full` forgets all.
    """

    def __init__(self, features: Sequence[EntityFeature], max_tiles: int = 1 << 62) -> None:
        self.features = tuple(features)
        self.stages = {
            entity.name: EntityTiles(entity, mine)
            for entity in ENTITIES
            if (mine := [f for f in self.features if f.entity == entity.name])
        }
        self._columns = {
            name: np.array([i for i, f in enumerate(self.features) if f.entity == name])
            for name in self.stages
        }
        self._max_tiles = max_tiles

    def keys(self, records: Records) -> list[Key]:
        """Entities of records, each once."""
        return [
            (name, code)
            for name, stage in self.stages.items()
            for code in np.unique(records[stage.entity.field]).tolist()
            if code
        ]

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Entities that are not here."""
        return [key for key in keys if key[1] not in self.stages[key[0]]]

    def put(self, key: Key, parts: Iterable[Tiles] = ()) -> None:
        """Take in an entity's tiles."""
        self.stages[key[0]].put(key[1], parts)

    def put_stored(self, keys: Sequence[Key], stored: Sequence[Sequence[bytes | None]]) -> None:
        """Take in entities as a store gives them, each in parts of one source partition."""
        for key, parts in zip(keys, stored, strict=True):
            self.put(key, map(decode, parts))

    def drop(self, key: Key) -> None:
        """Forget an entity."""
        self.stages[key[0]].drop(key[1])

    def clear(self) -> None:
        """Forget all."""
        for stage in self.stages.values():
            stage.clear()

    def forget_if_full(self) -> bool:
        """Forget all where that is too much; returns whether it was."""
        full = any(stage.reserved > self._max_tiles for stage in self.stages.values())
        if full:
            self.clear()
        return full

    def compute(
        self,
        records: Records,
        customers: npt.NDArray[np.uint32],
        rows: Rows,
        *,
        count: bool,
        corrections: Sequence[Correction] = (),
    ) -> Matrix:
        """Features of transactions, `(n, k)`, in their order; see `EntityTiles.compute`.

        Args:
            records: `(n,)` records.
            customers: `(n,)` hashes of their customers.
            rows: Rows to compute; the others stay unknown.
            count: Whether each is counted once it is computed.
            corrections: Those among the rows, in order. What each replaces is taken out before.
        """
        if not corrections:
            return self._compute(records, customers, rows, count)
        out = np.full((len(records), len(self.features)), np.nan)
        parts = np.split(rows, np.searchsorted(rows, [correction.row for correction in corrections]))
        for i, part in enumerate(parts):
            if i:
                moved = self.moved(corrections[i - 1 : i], records, customers)
                # Of others who knows them later will have read this too.
                self.add({key: tiles for key, tiles in moved.items() if not self.missing([key])})
            out[part] = self._compute(records, customers, part, count)[part]
        return out

    def _compute(
        self, records: Records, customers: npt.NDArray[np.uint32], rows: Rows, count: bool
    ) -> Matrix:
        out = np.full((len(records), len(self.features)), np.nan)
        for name, stage in self.stages.items():
            out[:, self._columns[name]] = stage.compute(records, customers, rows, count)
        return out

    def holds_windows(self, records: Records) -> npt.NDArray[np.bool_]:
        """`(n,)` whether their entities, which are here, still keep all windows of these transactions."""
        whole = np.ones(len(records), dtype=np.bool_)
        for stage in self.stages.values():
            codes = records[stage.entity.field]
            newest = {code: stage.newest_hour(code) for code in np.unique(codes).tolist() if code}
            behind = (
                np.array([newest.get(code, 0) for code in codes.tolist()]) - records["time_ms"] // TILE_MS
            )
            whole &= behind <= LATENESS_TILES
        return whole

    def replay(self, records: Records, customer_ids: Sequence[str], rows: Rows) -> Matrix:
        """Features of a log's transactions, `(n, k)`, which are counted; entities not here start empty."""
        for key in self.missing(self.keys(records)):
            self.put(key)
        return self.compute(records, customer_hashes(customer_ids), rows, count=True)

    def added(
        self,
        records: Records,
        customers: npt.NDArray[np.uint32],
        rows: Rows,
        corrections: Sequence[Correction] = (),
    ) -> dict[Key, Tiles]:
        """What counting these rows adds, by entity, and the corrections among them move."""
        return _joined([self._added(records, customers, rows), self.moved(corrections, records, customers)])

    def _added(self, records: Records, customers: npt.NDArray[np.uint32], rows: Rows) -> dict[Key, Tiles]:
        return {
            (name, code): tiles
            for name, stage in self.stages.items()
            for code, tiles in stage.added(records, customers, rows).items()
        }

    def moved(
        self, corrections: Sequence[Correction], records: Records, customers: npt.NDArray[np.uint32]
    ) -> dict[Key, Tiles]:
        """What corrections do to entities, but for counting themselves.

        The version that counted is taken out; what was said of it goes to the new one's hour and entities.

        Args:
            corrections: Rows of the records.
            records: `(n,)`.
            customers: `(n,)` hashes of their customers.
        """
        changes = []
        for row, replaced, words in corrections:
            counted = self._added(replaced, customers[row : row + 1], np.array([0]))
            out = _joined([counted, self.frauds([SaidOf(replaced, word) for word in words])])
            changes.append({key: _less(tiles) for key, tiles in out.items()})
            changes.append(self.frauds([SaidOf(records[row : row + 1], word) for word in words]))
        return _joined(changes)

    def frauds(self, said: Sequence[SaidOf]) -> dict[Key, Tiles]:
        """What is added by what was said, by entity: each at the hour of its transaction."""
        tiles: defaultdict[Key, list[Tiles]] = defaultdict(list)
        for each in said:
            tile = np.zeros(1, dtype=TILE)
            tile["hour"] = each.record["time_ms"] // TILE_MS
            tile["known"] = each.word.known_ms // TILE_MS
            tile["count"] = each.word.change % (1 << 32)
            for key in self.keys(each.record):
                tiles[key].append(tile)
        return {key: np.concatenate(mine) for key, mine in tiles.items()}

    def add(self, tiles: dict[Key, Tiles]) -> None:
        """Add tiles to entities that are here."""
        for (name, code), mine in tiles.items():
            self.stages[name].add(code, mine)


def _joined(changes: Iterable[dict[Key, Tiles]]) -> dict[Key, Tiles]:
    parts: defaultdict[Key, list[Tiles]] = defaultdict(list)
    for change in changes:
        for key, tiles in change.items():
            parts[key].append(tiles)
    return {key: mine[0] if len(mine) == 1 else np.concatenate(mine) for key, mine in parts.items()}


def _less(tiles: Tiles) -> Tiles:
    """Tiles that take these away: sums of unsigned numbers wrap around."""
    taken = tiles.copy()
    for name in SUMS:
        taken[name] = -tiles[name]
    return taken


def customer_hashes(customer_ids: Iterable[str]) -> npt.NDArray[np.uint32]:
    """Hashes by which tiles tell customers apart."""
    return np.array([name_hash(customer_id) for customer_id in customer_ids], dtype=np.uint32)


def said_by(history: Records, label: Records) -> list[SaidOf]:
    """What a label says of its transaction; nothing where there is no such transaction.

    Args:
        history: Records of the customer, with the label.
        label: The label's record, shape `(1,)`.
    """
    words = words_of(history, label)
    about = accepted(history, label["transaction"][0]) if words else history[:0]
    return [SaidOf(about, word) for word in words] if len(about) else []
