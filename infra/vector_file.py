"""Feature vectors as a Parquet file: all of it or nothing."""

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from features.engine import Engine
from features.kernels import ACCEPTED
from models.vectors import Vectors
from schemas.errors import ConfigError

# Of 100 columns about 25 MB in memory.
_GROUP_ROWS = 32_768


class VectorFile:
    """Writes `transaction_id`, `customer_id`, `event_time` and one column per feature; unknown is null.

    A context manager: the file appears under its name when the block ends, and not if it ends by an error.

    Args:
        path: Replaced if it exists.
        engine: Whose features are written; their names and hash go into the file.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self._path = path
        self._names = engine.names
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fields = [
            pa.field("transaction_id", pa.string(), nullable=False),
            pa.field("customer_id", pa.string(), nullable=False),
            pa.field("event_time", pa.timestamp("ms", "UTC"), nullable=False),
            *(pa.field(name, pa.float64()) for name in engine.names),
        ]
        self._schema = pa.schema(fields, metadata={"tidegate.features": engine.hash})
        self._blocks: list[Any] = []
        self._waiting = 0
        self._writer: Any = None
        self.rows = 0

    def __enter__(self) -> Self:
        if self._path.is_dir():
            raise ConfigError(f"{self._path}: is a folder; name a file")
        try:
            # Values of features repeat little: a dictionary costs time and saves no space.
            self._writer = parquet.ParquetWriter(
                self._partial,
                self._schema,
                compression="zstd",
                use_dictionary=["customer_id"],
                write_statistics=False,
            )
        except OSError as unwritable:
            raise self._cannot(unwritable) from unwritable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
            self._writer.close()
            if error is None:
                self._partial.replace(self._path)
        except OSError as unwritable:
            raise self._cannot(unwritable) from unwritable
        finally:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def write(self, vectors: Vectors) -> None:
        """Add the accepted rows of a block.

        Raises:
            ConfigError: The disk takes no more.
        """
        features = vectors.features
        kept = np.flatnonzero(features.status == ACCEPTED)
        if len(kept) == 0:
            return
        rows = kept.tolist()
        X = features.X[kept]
        arrays = [
            pa.array([vectors.transaction_ids[i] for i in rows], pa.string()),
            pa.array([vectors.customer_ids[i] for i in rows], pa.string()),
            pa.array(vectors.time_ms[kept], pa.timestamp("ms", "UTC")),
            # `from_pandas`: what is not a number is null.
            *(pa.array(np.ascontiguousarray(X[:, i]), from_pandas=True) for i in range(len(self._names))),
        ]
        self._blocks.append(pa.record_batch(arrays, schema=self._schema))
        self._waiting += len(rows)
        self.rows += len(rows)
        if self._waiting >= _GROUP_ROWS:
            try:
                self._flush()
            except OSError as unwritable:
                raise self._cannot(unwritable) from unwritable

    def _flush(self) -> None:
        if self._blocks:
            self._writer.write_table(pa.Table.from_batches(self._blocks), row_group_size=_GROUP_ROWS)
            self._blocks, self._waiting = [], 0

    def _cannot(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self._path}: cannot be written: {error.strerror or error}")
