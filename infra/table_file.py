"""A Parquet file that is written in blocks: all of it or nothing."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from pyarrow import parquet

from schemas.errors import ConfigError

# Of 100 columns about 25 MB in memory.
_GROUP_ROWS = 32_768


class TableFile:
    """A context manager: the file appears under its name when the block ends, and not if it ends by an error.

    Args:
        path: Replaced if it exists.
        schema: An Arrow schema.
        dictionary: Columns whose values repeat much.

    Raises:
        ConfigError: The file cannot be written.
    """

    def __init__(self, path: Path, schema: Any, dictionary: Sequence[str] = ()) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.schema = schema
        self._dictionary = list(dictionary)
        self._blocks: list[Any] = []
        self._waiting = 0
        self._writer: Any = None
        self.rows = 0

    def __enter__(self) -> Self:
        if self._path.is_dir():
            raise ConfigError(f"{self._path}: is a folder; name a file")
        try:
            # Values of features and scores repeat little: a dictionary costs time and saves no space.
            self._writer = parquet.ParquetWriter(
                self._partial,
                self.schema,
                compression="zstd",
                use_dictionary=self._dictionary,
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

    def add(self, arrays: Sequence[Any]) -> None:
        """Add rows, one array a column.

        Raises:
            ConfigError: The disk takes no more.
        """
        block = pa.record_batch(list(arrays), schema=self.schema)
        if not block.num_rows:
            return
        self._blocks.append(block)
        self._waiting += block.num_rows
        self.rows += block.num_rows
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
