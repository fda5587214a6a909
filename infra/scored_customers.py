"""Scored customers of a churn backtest as a Parquet file."""

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa

from infra.table_file import TableFile
from models.churn import UNTOLD
from models.churn_backtest import ScoredCustomers
from models.churn_scores import ACTIONS, BANDS


class ScoredCustomersFile(TableFile):
    """Writes `customer_id`, `as_of`, `churn_probability`, `label`, `band`, `drivers` and what follows of it.

    `label` is 1 for who left, 0 for who stayed, null where the horizon is not over. `drivers` is JSON text as
    in `scores.churn`; `value_at_risk` is in the customer's currency, a year.

    Args:
        path: Replaced if it exists.
        version: Of the model; it goes into the file's metadata.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path, version: str) -> None:
        fields = [
            pa.field("customer_id", pa.string(), nullable=False),
            pa.field("as_of", pa.timestamp("ms", "UTC"), nullable=False),
            pa.field("churn_probability", pa.float64(), nullable=False),
            pa.field("label", pa.int8()),
            pa.field("band", pa.string(), nullable=False),
            pa.field("value_at_risk", pa.float64(), nullable=False),
            pa.field("recommended_action", pa.string(), nullable=False),
            pa.field("drivers", pa.string(), nullable=False),
        ]
        schema = pa.schema(fields, metadata={"tidegate.model": version})
        super().__init__(path, schema, dictionary=["band", "recommended_action"])

    def write(self, scored: ScoredCustomers) -> None:
        """Add the customers of a cut-off.

        Raises:
            ConfigError: The disk takes no more.
        """
        drivers = [orjson.dumps(scored.drivers.get(row, ())).decode() for row in range(len(scored))]
        self.add(
            [
                pa.array(scored.customer_ids, pa.string()),
                pa.array(np.full(len(scored), scored.as_of_ms), pa.timestamp("ms", "UTC")),
                pa.array(scored.proba),
                pa.array(scored.label, mask=scored.label == UNTOLD),
                pa.array(np.array(BANDS, dtype=object)[scored.band], pa.string()),
                pa.array(scored.value_at_risk),
                pa.array(np.array(ACTIONS, dtype=object)[scored.band], pa.string()),
                pa.array(drivers, pa.string()),
            ]
        )
