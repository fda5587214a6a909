"""Python's garbage collector, set for chunks: many objects made and dropped, hardly any that stay."""

import gc
from typing import Final

# A chunk makes and drops tens of thousands of objects. With Python's 700 it was looked through again and
# again meanwhile: 8 % of a busy worker's processor time.
_ALLOCATIONS: Final = 50_000


def collect_rarely() -> None:
    """Look through new objects after a chunk's worth of them, and never again through what is there now."""
    # A full collection that looks through it stops everything for 0.1 s.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)
