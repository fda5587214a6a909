"""Feature vectors as a Parquet file: all of it or nothing."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from features.engine import Engine
from features.kernels import ACCEPTED
from infra.table_file import TableFile
from models.vectors import Vectors


class VectorFile(TableFile):
    """Writes `transaction_id`, `customer_id`, `event_time` and one column per feature; unknown is null.

    Args:
        path: Replaced if it exists.
        engine: Whose features are written; their names and hash go into the file.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self._names = engine.names
        fields = [
            pa.field("transaction_id", pa.string(), nullable=False),
            pa.field("customer_id", pa.string(), nullable=False),
            pa.field("event_time", pa.timestamp("ms", "UTC"), nullable=False),
            *(pa.field(name, pa.float64()) for name in engine.names),
        ]
        schema = pa.schema(fields, metadata={"tidegate.features": engine.hash})
        super().__init__(path, schema, dictionary=["customer_id"])

    def write(self, vectors: Vectors) -> None:
        """Add the accepted rows of a block.

        Raises:
            ConfigError: The disk takes no more.
        """
        features = vectors.features
        kept = np.flatnonzero(features.status == ACCEPTED)
        rows = kept.tolist()
        X = features.X[kept]
        self.add(
            [
                pa.array([vectors.transaction_ids[i] for i in rows], pa.string()),
                pa.array([vectors.customer_ids[i] for i in rows], pa.string()),
                pa.array(vectors.time_ms[kept], pa.timestamp("ms", "UTC")),
                # `from_pandas`: what is not a number is null.
                *(pa.array(np.ascontiguousarray(X[:, i]), from_pandas=True) for i in range(len(self._names))),
            ]
        )
