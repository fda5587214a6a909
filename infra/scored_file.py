"""Scored transactions of a backtest as a Parquet file."""

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from infra.table_file import TableFile
from models.backtest import UNTOLD, ScoredRows
from models.pipeline import DECISIONS


class ScoredFile(TableFile):
    """Writes ids, `event_time`, `score`, `decision`, `label`, `reasons` and `anomaly`.

    `label` is 1 for fraud, 0 for genuine, null where the file does not say. `reasons` is JSON text as in
    `scores.fraud`: those of transactions that are not allowed. `anomaly` is null while too little is known.

    Args:
        path: Replaced if it exists.
        version: Of the model; it goes into the file's metadata.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path, version: str) -> None:
        fields = [
            pa.field("transaction_id", pa.string(), nullable=False),
            pa.field("customer_id", pa.string(), nullable=False),
            pa.field("event_time", pa.timestamp("ms", "UTC"), nullable=False),
            pa.field("score", pa.float64(), nullable=False),
            pa.field("decision", pa.string(), nullable=False),
            pa.field("label", pa.int8()),
            pa.field("reasons", pa.string(), nullable=False),
            pa.field("anomaly", pa.float64()),
        ]
        schema = pa.schema(fields, metadata={"tidegate.model": version})
        super().__init__(path, schema, dictionary=["customer_id", "decision", "reasons"])

    def write(self, scored: ScoredRows) -> None:
        """Add scored rows.

        Raises:
            ConfigError: The disk takes no more.
        """
        reasons = ["[]"] * len(scored)
        for row, found in scored.reasons.items():
            reasons[row] = orjson.dumps(found).decode()
        self.add(
            [
                pa.array(scored.transaction_ids, pa.string()),
                pa.array(scored.customer_ids, pa.string()),
                pa.array(scored.time_ms, pa.timestamp("ms", "UTC")),
                pa.array(scored.score),
                pa.array(np.array(DECISIONS, dtype=object)[scored.decisions], pa.string()),
                pa.array(scored.label, mask=scored.label == UNTOLD),
                pa.array(reasons, pa.string()),
                pa.array(scored.anomaly, from_pandas=True),
            ]
        )
