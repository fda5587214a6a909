"""What corrections of a chunk replace: it is taken out of entities' tiles as it is out of histories."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.arena import HistoryArena
from features.engine import ChunkFeatures
from features.kernels import FLAG_CORRECTED
from features.labels import Word, words_about
from features.record import TRANSACTION_KIND, Records


class Correction(NamedTuple):
    """An event that corrects another.

    Attributes:
        row: Of the chunk.
        replaced: The version that counted until then, `(1,)`.
        words: What is said of it.
    """

    row: int
    replaced: Records
    words: tuple[Word, ...] = ()


def corrections_of(
    features: ChunkFeatures, arena: HistoryArena, slots: npt.NDArray[np.int64]
) -> list[Correction]:
    """The corrections of a chunk, in order.

    One of what no history has any more, because it was moved so far back, takes nothing out.

    Args:
        features: Of the chunk.
        arena: Histories, which are past its events.
        slots: `(n,)` the customers' slots.
    """
    if not len(features.replaced):
        return []
    corrected = (features.flags & FLAG_CORRECTED != 0) & (features.replaced["kind"] == TRANSACTION_KIND)
    return [
        Correction(
            row,
            features.replaced[row : row + 1],
            words_about(arena.kept(int(slots[row])), features.replaced["transaction"][row]),
        )
        for row in np.flatnonzero(corrected).tolist()
    ]
