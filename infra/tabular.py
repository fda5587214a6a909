"""Tables in files, read a batch at a time: CSV, also gzipped, and Parquet.

CSV is read by the standard library, not by Arrow: Arrow guesses a column's type from the first block and
gives up the whole file where a later cell differs, and it cannot tell a row's line when a quoted cell has
line breaks. Here every cell is text until a mapping says more, and a bad row costs only itself.
"""

import codecs
import csv
import gzip
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.errors import ConfigError

BATCH_ROWS = 2048
# Parquet pages are read through a buffer of this size, so that a row group of gigabytes costs no more.
_BUFFER_BYTES = 1 << 20
_HEADER_BYTES = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")


def _check_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
    except LookupError:
        raise ValueError(
            f"no encoding is called {name!r}; common ones are utf-8, latin-1, cp1252, cp1250"
        ) from None
    return name


class CsvFormat(BaseModel):
    """How a CSV file is written. UTF-8, double quotes and a header line unless it says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | Literal["auto"] = Field(
        default="auto", description="By default the one of , ; tab | that the header has most of."
    )
    quote: Annotated[str, Field(max_length=1)] = Field(default='"', description="Empty for none.")
    encoding: Annotated[str, AfterValidator(_check_encoding)] = "utf-8"
    header: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Column names of a file without a header line."
    )
    skip_lines: int = Field(default=0, ge=0, description="Lines before the header.")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a table.

    Attributes:
        first_row: Number of the first of them in the file, from 1; rows of data, not lines.
        columns: Cells by column. The cells of a broken row are all `None`.
        broken: Rows that could not be read, by position in the batch, with the reason.
        lines: The line each row begins on; `None` for formats without lines.
    """

    first_row: int
    size: int
    columns: Mapping[str, Sequence[object]]
    broken: Mapping[int, str] = field(default_factory=dict)
    lines: Sequence[int] | None = None

    def line_of(self, row_number: int) -> int | None:
        """The line of the file that a row begins on, from 1."""
        return None if self.lines is None else self.lines[row_number - self.first_row]


class Table(ABC):
    """A file of rows. Use as a context manager; `batches` can be read once.

    Attributes:
        columns: Names in the file's order; a name may occur twice.
        total_rows: `None` where only reading everything would tell.
    """

    columns: tuple[str, ...] = ()
    total_rows: int | None = None

    @abstractmethod
    def batches(self, wanted: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[Batch]:
        """The rows, with the cells of the wanted columns.

        Raises:
            ConfigError: The file is damaged from some row on.
        """

    @abstractmethod
    def progress(self) -> float:
        """Share of the file that has been read, 0 to 1."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_table(path: Path, csv_format: CsvFormat | None = None) -> Table:
    """Open a .csv, .csv.gz or .parquet file. What it is decides its content, not its name.

    Raises:
        ConfigError: There is no such file, or it is no table.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as unreadable:
        raise ConfigError(f"{path}: cannot be read: {unreadable.strerror or unreadable}") from unreadable
    if start == b"PAR1":
        return _ParquetTable(path)
    if path.suffix in {".parquet", ".pq"}:
        raise ConfigError(f"{path}: is not a Parquet file, though its name says so")
    return _CsvTable(path, csv_format or CsvFormat(), gzipped=start[:2] == b"\x1f\x8b")


class _CsvTable(Table):
    def __init__(self, path: Path, csv_format: CsvFormat, *, gzipped: bool) -> None:
        self._path = path
        self._bytes = path.stat().st_size
        self._raw: BufferedReader = path.open("rb")
        try:
            self._open(csv_format, gzipped)
        except BaseException:
            self.close()
            raise

    def _open(self, csv_format: CsvFormat, gzipped: bool) -> None:
        opened: IO[bytes] = gzip.open(self._raw) if gzipped else self._raw  # type: ignore[assignment]
        encoding = "utf-8-sig" if codecs.lookup(csv_format.encoding).name == "utf-8" else csv_format.encoding
        # Bytes that are no text survive to their row, which is refused there instead of the whole file here.
        self._text = TextIOWrapper(opened, encoding=encoding, errors="surrogateescape", newline="")
        first = self._first_line(csv_format.skip_lines)
        delimiter = csv_format.delimiter
        if delimiter == "auto":
            delimiter = max(_DELIMITERS, key=first.count)
        self._lines_before = csv_format.skip_lines
        lines = self._text if csv_format.header else _Chained(first, self._text)
        self._reader = csv.reader(
            _Chained(first, self._text),
            delimiter=delimiter,
            quotechar=csv_format.quote or None,
            quoting=csv.QUOTE_MINIMAL if csv_format.quote else csv.QUOTE_NONE,
            skipinitialspace=delimiter == " ",
            strict=True,
        )
        del lines
