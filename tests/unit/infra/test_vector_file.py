from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from features.engine import ChunkFeatures, Engine
from features.kernels import ACCEPTED, DUPLICATE
from infra.vector_file import VectorFile
from models.vectors import Vectors
from schemas.errors import ConfigError


def block(engine: Engine, count: int, first: int = 0, duplicate: int | None = None) -> Vectors:
    X = np.arange(count * len(engine.names), dtype=np.float64).reshape(count, -1) / 7
    X[:, 1] = np.nan
    status = np.full(count, ACCEPTED, dtype=np.int8)
    if duplicate is not None:
        status[duplicate] = DUPLICATE
    return Vectors(
        [f"t{first + i}" for i in range(count)],
        [f"c{i % 2}" for i in range(count)],
        np.arange(count) + 1_767_225_600_123,
        ChunkFeatures(X, status, np.zeros(count, dtype=np.int8)),
    )


def test_a_row_per_accepted_transaction_and_null_for_what_is_unknown(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "vectors.parquet"
    first, second = block(engine, 3, duplicate=1), block(engine, 2, first=3)
    with VectorFile(path, engine) as file:
        file.write(first)
        file.write(second)
        file.write(block(engine, 1, duplicate=0))
        assert not path.exists()
    table = parquet.read_table(path)
    assert table.column_names == ["transaction_id", "customer_id", "event_time", *engine.names]
    assert table["transaction_id"].to_pylist() == ["t0", "t2", "t3", "t4"]
    assert table["customer_id"].to_pylist() == ["c0", "c0", "c0", "c1"]
    assert table["event_time"].to_pylist()[0] == datetime(2026, 1, 1, 0, 0, 0, 123000, tzinfo=UTC)
    X = np.concatenate([first.features.X[[0, 2]], second.features.X])
    for i, name in enumerate(engine.names):
        column = table[name].to_pylist()
        assert column == ([None] * 4 if i == 1 else X[:, i].tolist())
    assert table.schema.metadata[b"tidegate.features"] == engine.hash.encode()
    assert file.rows == 4
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_file_that_was_there(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "vectors.parquet"
    path.write_bytes(b"before")

    def interrupted() -> None:
        with VectorFile(path, engine) as file:
            file.write(block(engine, 3))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_many_rows_become_row_groups(tmp_path: Path, engine: Engine) -> None:
    path = tmp_path / "vectors.parquet"
    with VectorFile(path, engine) as file:
        for number in range(17):
            file.write(block(engine, 2000, first=2000 * number))
    metadata = parquet.ParquetFile(path).metadata
    assert (metadata.num_rows, metadata.num_row_groups) == (34_000, 2)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, engine: Engine) -> None:
    for path in (tmp_path, tmp_path / "no" / "vectors.parquet"):
        with pytest.raises(ConfigError, match=str(path)), VectorFile(path, engine):
            pass
