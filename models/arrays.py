"""Arrays as the bytes of a file."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt


def to_bytes(**arrays: npt.NDArray[Any] | float) -> bytes:
    """Arrays by name, compressed."""
    kept = io.BytesIO()
    np.savez_compressed(kept, **arrays)  # type: ignore[arg-type]
    return kept.getvalue()


def read(kept: bytes, *names: str) -> list[npt.NDArray[Any]]:
    """Those of these names.

    Raises:
        ValueError: They cannot be read.

    >>> [array.tolist() for array in read(to_bytes(a=np.arange(3), b=1.5), "a", "b")]
    [[0, 1, 2], 1.5]
    """
    try:
        with np.load(io.BytesIO(kept), allow_pickle=False) as found:
            return [found[name] for name in names]
    except Exception as bad:
        # By what is wrong in which part, zipfile, zlib and numpy raise nearly anything.
        raise ValueError(f"the file cannot be read: {bad}") from bad
