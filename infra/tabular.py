"""Tables in files, read a batch at a time: CSV, also gzipped, and Parquet.

CSV is read by the standard library, not by Arrow: Arrow guesses a column's type from the first block and
gives up the whole file where a later cell differs, and it cannot tell a row's line when a quoted cell has
line breaks. Here every cell is text until a mapping says more, and a bad row costs only itself.
"""

import csv
import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Final, Literal, Self, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.errors import ConfigError

BATCH_ROWS = 2048
# Parquet pages are read through a buffer of this size, so that a row group of gigabytes costs no more.
_BUFFER_BYTES = 1 << 20
_LONGEST_FIRST_LINE = 1 << 20
_DELIMITERS = (",", ";", "\t", "|")


def _check_encoding(name: str) -> str:
    try:
        "".encode(name)
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
    def batches(
        self, wanted: Sequence[str], batch_rows: int = BATCH_ROWS, *, first: int = 0, step: int = 1
    ) -> Iterator[Batch]:
        """The rows, with the cells of the wanted columns.

        Args:
            wanted: Columns.
            batch_rows: Rows of a batch.
            first: Number of the first batch that is wanted, from 0.
            step: From there on each so many-th is.

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


# Of a CSV file a header would have to begin so.
_OTHERS: Final = {b'{"': "JSON", b"[{": "JSON", b"[\n": "JSON", b"PK\x03\x04": "a ZIP or Excel file"}
_PACKED: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zX": "xz", b"\x04\x22\x4d\x18": "lz4"}


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
    if other := next((what for magic, what in _OTHERS.items() if start.startswith(magic)), None):
        raise ConfigError(f"{path}: is {other}, not CSV or Parquet: write it as one of these")
    if packer := next((name for magic, name in _PACKED.items() if start.startswith(magic)), None):
        raise ConfigError(f"{path}: is compressed with {packer}: unpack it, or compress it with gzip instead")
    return _CsvTable(path, csv_format or CsvFormat(), gzipped=start[:2] == b"\x1f\x8b")


class _CsvTable(Table):
    def __init__(self, path: Path, csv_format: CsvFormat, *, gzipped: bool) -> None:
        self._name = path.name
        self._bytes = path.stat().st_size
        self._raw = path.open("rb")
        try:
            self._open(csv_format, gzipped)
        except _DAMAGE as damage:
            self.close()
            raise ConfigError(f"{path}: cannot be read as CSV: {damage}") from None
        except BaseException:
            self.close()
            raise

    def _open(self, csv_format: CsvFormat, gzipped: bool) -> None:
        unpacked = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw)) if gzipped else self._raw
        encoding = csv_format.encoding
        encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in {"utf-8", "utf8"} else encoding
        # Bytes that are no text survive up to their row: it is refused there, and not the file here.
        self._text = TextIOWrapper(unpacked, encoding=encoding, errors="surrogateescape", newline="")
        self._skipped = csv_format.skip_lines
        for _ in range(self._skipped):
            self._text.readline(_LONGEST_FIRST_LINE)
        first = self._text.readline(_LONGEST_FIRST_LINE)
        if not first.strip():
            raise ConfigError(f"{self._name}: is empty")
        if "\0" in first or len(first) == _LONGEST_FIRST_LINE:
            raise ConfigError(
                f"{self._name}: is neither CSV nor Parquet; for text in another encoding"
                " say csv: {encoding: utf-16} or the like in the mapping"
            )
        delimiter = csv_format.delimiter
        if delimiter == "auto":
            delimiter = max(_DELIMITERS, key=first.count)
        lines: Iterable[str] = chain([first], self._text)
        if delimiter == " ":
            # Columns aligned with spaces: any number of them is one.
            lines = (" ".join(line.split()) + "\n" for line in lines)
        self._reader = csv.reader(
            lines,
            delimiter=delimiter,
            quotechar=csv_format.quote or None,
            quoting=csv.QUOTE_MINIMAL if csv_format.quote else csv.QUOTE_NONE,
            strict=True,
        )
        self.columns = tuple(name.strip() for name in csv_format.header or next(self._reader))

    def batches(
        self, wanted: Sequence[str], batch_rows: int = BATCH_ROWS, *, first: int = 0, step: int = 1
    ) -> Iterator[Batch]:
        positions = {name: self.columns.index(name) for name in wanted}
        first_row = 1
        for number in count():
            rows: list[Sequence[str | None]] = []
            lines: list[int] = []
            broken: dict[int, str] = {}
            try:
                self._fill(rows, lines, broken, batch_rows)
            except _DAMAGE as damage:
                line = self._skipped + self._reader.line_num
                raise ConfigError(f"{self._name}: is damaged after line {line}: {damage}") from None
            if not rows:
                return
            if number % step == first:
                columns = {name: [row[at] for row in rows] for name, at in positions.items()}
                yield Batch(first_row, len(rows), columns, broken, lines)
            first_row += len(rows)

    def _fill(
        self, rows: list[Sequence[str | None]], lines: list[int], broken: dict[int, str], batch_rows: int
    ) -> None:
        reader, width, skipped = self._reader, len(self.columns), self._skipped
        nothing = (None,) * width
        while len(rows) < batch_rows:
            line = skipped + reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as wrong:
                last = skipped + reader.line_num
                place = f" up to line {last}" if last > line else ""
                broken[len(rows)] = f"the row{place} is not CSV: {wrong}"
                row = []
            else:
                if not row:
                    continue
                # A delimiter at the end of each line is no cell.
                if len(row) < width or any(row[width:]):
                    broken[len(rows)] = f"the row has {len(row)} cells; there are {width} columns"
            rows.append(nothing if len(rows) in broken else row)
            lines.append(line)

    def progress(self) -> float:
        return min(self._raw.tell() / self._bytes, 1.0) if self._bytes else 1.0

    def close(self) -> None:
        self._raw.close()


_DAMAGE = (OSError, EOFError, zlib.error, UnicodeError, csv.Error, StopIteration)


class _ParquetTable(Table):
    def __init__(self, path: Path) -> None:
        pyarrow, parquet = _arrow()
        self._damage = (pyarrow.ArrowException, OSError, ValueError)
        self._name = path.name
        try:
            # Without pre-buffering, and through a small buffer: a row group may be larger than memory.
            self._file: Any = parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except self._damage as damage:
            raise ConfigError(f"{path}: cannot be read as Parquet: {_first_line(damage)}") from None
        # Lists and records inside a cell are no columns that a mapping could name.
        self.columns = tuple(f.name for f in self._file.schema_arrow if not pyarrow.types.is_nested(f.type))
        self.total_rows = int(self._file.metadata.num_rows)
        self._read = 0

    def batches(
        self, wanted: Sequence[str], batch_rows: int = BATCH_ROWS, *, first: int = 0, step: int = 1
    ) -> Iterator[Batch]:
        batches = self._file.iter_batches(batch_rows, columns=list(wanted))
        for number in count():
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                mine = number % step == first
                columns = {name: _cells(batch.column(name)) for name in wanted} if mine else {}
            except self._damage as damage:
                raise ConfigError(
                    f"{self._name}: is damaged after row {self._read}: {_first_line(damage)}"
                ) from None
            if mine:
                yield Batch(self._read + 1, batch.num_rows, columns)
            self._read += int(batch.num_rows)

    def progress(self) -> float:
        return self._read / self.total_rows if self.total_rows else 1.0

    def close(self) -> None:
        self._file.close()


def _arrow() -> tuple[Any, Any]:
    # Imported only where a file needs it: CSV files work without it, and it takes a third of a second.
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ConfigError("Parquet files need pyarrow: pip install 'tidegate[train]'") from None
    return pyarrow, pyarrow.parquet


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _cells(array: Any) -> list[object]:
    """An Arrow array as Python values that `infra.cells` knows."""
    pyarrow, _ = _arrow()
    types, kind = pyarrow.types, array.type
    if types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if types.is_float16(kind) or types.is_float32(kind):
        # By its shortest text: widened as it is, 36.713 would become 36.7130012512207.
        array = array.cast(pyarrow.float32()).cast(pyarrow.string()).cast(pyarrow.float64())
    elif types.is_timestamp(kind):
        array = array.cast(pyarrow.timestamp("us", "UTC" if kind.tz else None), safe=False)
    elif types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if v is None else v.decode("utf-8", "surrogateescape") for v in array.to_pylist()]
    try:
        return cast(list[object], array.to_pylist())
    except (ValueError, OverflowError):
        return [_cell(value) for value in array]


def _cell(value: Any) -> object:
    try:
        return cast(object, value.as_py())
    except (ValueError, OverflowError):
        # A time that Python cannot hold: as text it is refused with its row.
        return f"{value.value}"
