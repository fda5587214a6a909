"""Tiles of an entity to bytes and back.

What is stored is a header and tiles in the order they were added, so that new ones are appended. Reading
puts tiles of the same hour together.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.errors import HistoryError

TILE: Final = np.dtype(
    [
        ("hour", "<u4"),  # since 1970, of the events' own time
        ("known", "<u4"),  # hour since 1970 in which a fraud became known; 0 for transactions
        ("customer", "<u4"),  # hash of the customer where they are told apart, else 0
        ("count", "<u4"),
        ("log_sum", "<u8"),  # of `tile_kernels.log_amounts` of transactions; 0 of frauds
        ("log_squares", "<u8"),  # sum of their squares
    ]
)
"""32 bytes. Whole numbers, so that sums do not depend on their order. A change of this layout is a new
`VERSION`."""

SUMS: Final = ("count", "log_sum", "log_squares")
"""Fields that add up."""

Tiles = npt.NDArray[np.void]
"""Structured array of `TILE`, shape `(n,)`."""

VERSION: Final = 2
_MAGIC: Final = b"TE"
HEADER: Final = _MAGIC + bytes([VERSION, TILE.itemsize]) + bytes(4)
"""8 bytes before the tiles."""


def encode(tiles: Tiles) -> bytes:
    """A whole stored entity."""
    return HEADER + tiles.tobytes()


def decode(stored: bytes | None) -> Tiles:
    """Tiles from stored bytes, as they were added; none from `None`.

    Raises:
        HistoryError: The bytes are not tiles of this version.
    """
    if stored is None:
        return np.zeros(0, dtype=TILE)
    if stored[: len(HEADER)] != HEADER:
        raise HistoryError(
            f"stored tiles start with {stored[:4].hex()}, this program reads {HEADER[:4].hex()}: run the "
            "version that wrote them, or rebuild from the log"
        )
    if (len(stored) - len(HEADER)) % TILE.itemsize:
        raise HistoryError(f"stored tiles of {len(stored)} bytes are cut off")
    return np.frombuffer(stored, dtype=TILE, offset=len(HEADER))


class Kept(NamedTuple):
    """How far back tiles are kept, in hours before the newest.

    Attributes:
        events: Those of transactions.
        frauds: Those of confirmed frauds.
        most: Tiles of either kind kept at most: the newest.
    """

    events: int
    frauds: int
    most: int


def merge(parts: Iterable[Tiles], kept: Kept) -> Tiles:
    """Tiles by hour, each once, without those that no feature looks at any more.

    Args:
        parts: In any order.
        kept: What is.
    """
    tiles = np.concatenate([np.zeros(0, dtype=TILE), *parts])
    if len(tiles) == 0:
        return tiles
    behind = int(tiles["hour"].max()) - tiles["hour"].astype(np.int64)
    tiles = tiles[behind <= np.where(tiles["known"] == 0, kept.events, kept.frauds)]
    tiles = tiles[np.lexsort((tiles["customer"], tiles["known"], tiles["hour"]))]
    keys = np.stack([tiles[name] for name in ("hour", "known", "customer")])
    first = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    merged: Tiles = tiles[first].copy()
    for name in SUMS:
        merged[name] = np.add.reduceat(tiles[name], first)
    if len(merged) <= kept.most:
        return merged
    # Of each kind for itself: what is kept of one must not depend on when the other was let go of.
    is_fraud = merged["known"] != 0
    newer = np.where(is_fraud, is_fraud[::-1].cumsum()[::-1], (~is_fraud)[::-1].cumsum()[::-1])
    newest: Tiles = merged[newer <= kept.most]
    return newest
