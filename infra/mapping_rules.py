"""What the rules of a mapping share: the options that hold for all, columns as they are read, and times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from infra.cells import (
    COUNTS,
    EPOCH_UNITS_MS,
    MONTHS,
    is_missing,
    key,
    text,
    time_reader,
    zone,
)

Columns = Mapping[str, Sequence[object]]
Convert = Callable[[object], object]
Scalar = str | int | float | bool | None

CACHED_CELLS = 1 << 14
"""How many different cells of a column a rule remembers."""
_EVERY_MONTH_HAS = 28


def _as_text(value: Any) -> Any:
    return text(value) if isinstance(value, int | float) else value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def as_column(value: Any) -> Any:
    """The short form `customer_id: account_id` as a rule."""
    return value if isinstance(value, dict | BaseModel) else {"column": value}


def checked(check: Callable[[str], object]) -> AfterValidator:
    """A validator that leaves the text as it is and refuses it where `check` raises."""

    def validate(value: str) -> str:
        check(value)
        return value

    return AfterValidator(validate)


ColumnName = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
ColumnNames = Annotated[tuple[ColumnName, ...], Field(min_length=1)]
Scalars = Annotated[tuple[Scalar, ...], BeforeValidator(_as_list)]
Zone = Annotated[str, checked(zone)]


class Options(BaseModel):
    """Base of everything a mapping can say: an option nobody knows is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Context(Options):
    """What holds for every rule of a mapping."""

    timezone: Zone = Field(default="UTC", description="Of times without an offset.")
    decimal: Literal[".", ","] = Field(default=".", description="The decimal point of the file's numbers.")
    empty: Scalars = Field(default=(), description="Cells that mean nothing, besides empty ones: NA, '-'.")

    def cell(self) -> Convert:
        """A function that strips a cell's text and turns what means nothing into `None`."""
        empty = frozenset(key(cell) for cell in self.empty)

        def read(cell: object) -> object:
            if isinstance(cell, str):
                cell = cell.strip()
            return None if is_missing(cell) or (empty and key(cell) in empty) else cell

        return read


class FromColumns(Options):
    """Base of the rules that read one column or join several."""

    column: ColumnName | None = None
    columns: ColumnNames | None = Field(default=None, description="Joined to one text; empty if one is.")
    join: str = Field(default=" ", description="Stands between joined columns.")

    sources: ClassVar[tuple[str, ...]] = ("column", "columns")

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = [name for name in self.sources if name in self.model_fields_set]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of {', '.join(self.sources)}; it gives {' and '.join(given) or 'none'}"
            )
        if "join" in self.model_fields_set and self.columns is None:
            raise ValueError("join is for columns: [...]")
        return self

    def used_columns(self) -> Iterator[str]:
        """Names of the columns it reads."""
        if self.column is not None:
            yield self.column
        yield from self.columns or ()

    def cells(self, columns: Columns, first_row: int, size: int) -> Sequence[object]:
        """What `convert`'s function is called with, row by row."""
        names = tuple(self.used_columns())
        return columns[names[0]] if len(names) == 1 else list(zip(*(columns[n] for n in names), strict=True))

    @property
    def is_constant(self) -> bool:
        """Whether every row has the same value, so that one call of `convert`'s function tells it."""
        return False

    def _read(self, context: Context) -> Convert:
        cell = context.cell()
        if self.columns is None or len(self.columns) == 1:
            return cell

        def joined(cells: object) -> object:
            parts = [cell(part) for part in cells_of(cells)]
            return None if None in parts else self.join.join(map(text, parts))

        return joined


def cells_of(cells: object) -> tuple[object, ...]:
    """A row's cells of the columns that a rule reads."""
    # A group of one column arrives bare.
    return cells if isinstance(cells, tuple) else (cells,)


class TimeRule(FromColumns):
    """A point in time: `iso`, an epoch, a count since some day, or a `strptime` format."""

    format: str = "iso"
    timezone: Zone | None = None
    since: datetime | None = Field(default=None, description="When a count of seconds ... days is 0.")

    @model_validator(mode="after")
    def _format_is_known(self) -> Self:
        if (self.format in COUNTS) != (self.since is not None):
            raise ValueError(f"since goes with a format of {', '.join(COUNTS)}, and they with it")
        if self.format == MONTHS and self.since is not None and self.since.day > _EVERY_MONTH_HAS:
            raise ValueError(f"since: months need a day that each of them has, 1 to {_EVERY_MONTH_HAS}")
        known = ("iso", *EPOCH_UNITS_MS, *COUNTS)
        if self.format not in known and "%" not in self.format:
            raise ValueError(
                f"format {self.format!r} is none of {', '.join(known)} and has no %Y, %m, %d ..."
            )
        return self

    def convert(self, context: Context) -> Convert:
        """A function from a cell to RFC 3339 text, or `None` for an empty one; it raises `Refusal`."""
        cell = self._read(context)
        read = time_reader(self.format, zone(self.timezone or context.timezone), self.since)
        return cached(lambda value: None if (value := cell(value)) is None else read(value))


def cached(convert: Convert) -> Convert:
    """Most columns repeat themselves. Typed: 1 and true are different cells."""
    return lru_cache(maxsize=CACHED_CELLS, typed=True)(convert)
