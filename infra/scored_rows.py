"""Scores that were written to Parquet: by a backtest, or by the sink."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from schemas.errors import ConfigError

_SCORES = ("score", "churn_probability")
_TIMES = ("event_time", "as_of")


def read_scored(path: Path, from_ms: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int8] | None]:
    """Scores and outcomes.

    Args:
        path: A file, or a folder of files.
        from_ms: Leave out what is earlier.

    Returns:
        `(n,)` probabilities; `(n,)` outcomes, `None` where the file has none. Rows whose outcome is null are
        left out where it has.

    Raises:
        ConfigError: It cannot be read, or has no column of scores.
    """
    try:
        files = ds.dataset(path, format="parquet")
        score = next((name for name in _SCORES if name in files.schema.names), None)
        time = next((name for name in _TIMES if name in files.schema.names), None)
        if score is None or time is None:
            raise ConfigError(f"{path}: needs a column {' or '.join(_SCORES)} and one {' or '.join(_TIMES)}")
        labelled = "label" in files.schema.names
        since = pa.scalar(from_ms, pa.timestamp("ms", "UTC")).cast(files.schema.field(time).type)
        wanted = (ds.field(time) >= since) & ds.field(score).is_valid()
        if labelled:
            wanted = wanted & ds.field("label").is_valid()
        table = files.to_table(columns=[score, "label"] if labelled else [score], filter=wanted)
    except (pa.ArrowException, OSError) as bad:
        raise ConfigError(f"{path} cannot be read as scores: {bad}") from bad
    proba = table[score].to_numpy().astype(np.float64)
    if not labelled:
        return proba, None
    return proba, table["label"].to_numpy().astype(np.int8)
