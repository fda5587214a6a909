"""What a mapping says of whole rows: which are known frauds, and which are left out on purpose."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from infra.cells import Refusal, duration_ms, key, number, text
from infra.mapping_rules import (
    CACHED_CELLS,
    ColumnName,
    Context,
    Options,
    Scalars,
    TimeRule,
    as_column,
    checked,
)

Duration = Annotated[str, checked(duration_ms)]


class LabelRule(Options):
    """Which rows are known frauds, and when that became known."""

    column: ColumnName
    fraud: Scalars = Field(min_length=1, description="Cells that mean fraud.")
    genuine: Scalars | None = Field(
        default=None, description="Cells that mean genuine: by default every other one that is not empty."
    )
    time: Annotated[TimeRule, BeforeValidator(as_column)] | None = Field(
        default=None, description="When it became known; where empty or not given, `delay` after the event."
    )
    delay: Duration = "7d"

    def used_columns(self) -> Iterator[str]:
        """Names of the columns it reads."""
        yield self.column
        if self.time is not None:
            yield from self.time.used_columns()

    def convert(self, context: Context) -> Callable[[object], Literal["fraud", "genuine"] | None]:
        """A function from a cell of `column` to the label, `None` where it says nothing."""
        cell = context.cell()
        fraud = frozenset(map(key, self.fraud))
        genuine = None if self.genuine is None else frozenset(map(key, self.genuine))

        def convert(value: object) -> Literal["fraud", "genuine"] | None:
            value = cell(value)
            if value is None:
                return None
            if (written := key(value)) in fraud:
                return "fraud"
            return "genuine" if genuine is None or written in genuine else None

        return lru_cache(maxsize=CACHED_CELLS, typed=True)(convert)


class SkipRule(Options):
    """Rows that are left out on purpose. One test; several rules are alternatives."""

    column: ColumnName
    equals: Scalars | None = None
    not_equals: Scalars | None = None
    starts_with: ColumnName | None = None
    empty: bool | None = None
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _has_one_test(self) -> Self:
        tests = sorted(set(type(self).model_fields) - {"column"})
        if len(given := sorted(self.model_fields_set - {"column"})) != 1:
            raise ValueError(
                f"needs exactly one of {', '.join(tests)}; it gives {' and '.join(given) or 'none'}"
            )
        return self

    def used_columns(self) -> Iterator[str]:
        """Names of the columns it reads."""
        yield self.column

    def matches(self, context: Context) -> Callable[[object], bool]:
        """A function from a cell to whether its row is left out. No number is not at most anything."""
        read = context.cell()
        wanted = frozenset(map(key, self.equals or self.not_equals or ()))

        def test(value: object) -> bool:
            cell = read(value)
            if self.empty is not None:
                return (cell is None) == self.empty
            if cell is None:
                return False
            if self.equals is not None or self.not_equals is not None:
                return (key(cell) in wanted) == (self.equals is not None)
            if self.starts_with is not None:
                return text(cell).startswith(self.starts_with)
            try:
                size = number(cell, context.decimal)
            except Refusal:
                return False
            return (self.at_most is not None and size <= self.at_most) or (
                self.at_least is not None and size >= self.at_least
            )

        return lru_cache(maxsize=CACHED_CELLS, typed=True)(test)
