"""How one field of a message is made from the columns of a file: what a rule may say, and its function."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import repeat
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from infra.attribute_cells import as_number, rounded, usual
from infra.cells import Refusal, key, number, plain, pseudonym, shown, text
from infra.mapping_rules import (
    ColumnName,
    ColumnNames,
    Columns,
    Context,
    Convert,
    FromColumns,
    Scalar,
    cached,
    cells_of,
)

_NUMBERS = frozenset({"amount", "balance_before", "balance_after"})
_POSITIONS = frozenset({"latitude", "longitude"})
_FLAGS = frozenset({"card_present"})
_YES_NO = {
    "1": True,
    "true": True,
    "yes": True,
    "y": True,
    "0": False,
    "false": False,
    "no": False,
    "n": False,
}
# Seven decimals of a degree are a centimetre; more would look like a card number to a scan for digits.
_POSITION_DECIMALS = 6
_ATTRIBUTE = "attributes."
_AS_IT_IS = frozenset({"column", "default", "required"})
"""Options of a rule that leaves a column's numbers as they are."""


class FieldRule(FromColumns):
    """A field's value. The options apply in the order in which they are declared here."""

    product: ColumnNames | None = Field(default=None, description="The columns' numbers multiplied.")
    first_of: ColumnNames | None = Field(default=None, description="The first column that is not empty.")
    filled: dict[ColumnName, Scalar] | None = Field(
        default=None, min_length=1, description="The value given for the first column that is not empty."
    )
    sign_of: ColumnName | None = Field(default=None, description="A number; see positive, negative, zero.")
    constant: Scalar = None
    row_number: Literal[True] | None = Field(default=None, description="1 for the first row of data.")

    positive: Scalar = None
    negative: Scalar = None
    zero: Scalar = None

    remove: str | None = Field(default=None, min_length=1, description="Each of these characters goes: '$,'.")
    split: str | None = Field(default=None, min_length=1)
    part: int | None = Field(default=None, ge=0, description="Which part of the split text, from 0.")
    scale: float | None = Field(default=None, description="The number is multiplied by this.")
    absolute: bool = False
    range: tuple[float, float] | None = Field(default=None, description="A number outside is empty.")
    zero_pad: int | None = Field(default=None, ge=1, le=64, description="Digits, with leading zeros.")
    case: Literal["upper", "lower"] | None = None
    values: dict[Scalar, Scalar] | None = Field(default=None, min_length=1)
    pseudonym: str | None = Field(default=None, description="Replaced by a hash with this salt.")
    prefix: str = ""
    default: Scalar = Field(default=None, description="For an empty cell, and one that values does not list.")
    required: bool = False

    sources: ClassVar[tuple[str, ...]] = (
        "column", "columns", "product", "first_of", "filled", "sign_of", "constant", "row_number",
    )  # fmt: skip
    _alone: ClassVar[dict[str, frozenset[str]]] = {
        "constant": frozenset(),
        "row_number": frozenset({"zero_pad", "pseudonym", "prefix"}),
        "filled": frozenset({"default", "required"}),
        "sign_of": frozenset({"positive", "negative", "zero", "remove", "default", "required"}),
    }

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        given = self.model_fields_set
        if "constant" in given and self.constant is None:
            raise ValueError("constant is empty")
        for source, allowed in self._alone.items():
            if source in given and (extra := sorted(given - allowed - {source})):
                raise ValueError(f"{', '.join(extra)}: not with {source}")
        if "sign_of" in given and not {"positive", "negative"} <= given:
            raise ValueError("sign_of needs positive and negative: what each sign means")
        if "sign_of" not in given and (extra := sorted(given & {"positive", "negative", "zero"})):
            raise ValueError(f"{', '.join(extra)}: only with sign_of")
        if (self.split is None) != (self.part is None):
            raise ValueError("split and part go together: {split: ' ', part: 0}")
        if self.range is not None and self.range[0] > self.range[1]:
            raise ValueError("range is [lowest, highest]")
        return self

    def used_columns(self) -> Iterator[str]:
        """Names of the columns it reads."""
        yield from super().used_columns()
        yield from self.product or self.first_of or self.filled or ()
        if self.sign_of is not None:
            yield self.sign_of

    def targets(self) -> Iterator[tuple[str, Scalar]]:
        """Every value the mapping itself puts into the field, with where it says so."""
        if "constant" in self.model_fields_set:
            yield "constant", self.constant
        if "default" in self.model_fields_set:
            yield "default", self.default
        for name in ("positive", "negative", "zero"):
            yield name, getattr(self, name)
        for option in ("filled", "values"):
            for source, target in (getattr(self, option) or {}).items():
                yield f"{option}: {source}", target

    def cells(self, columns: Columns, first_row: int, size: int) -> Sequence[object]:
        """What `convert`'s function is called with, row by row."""
        if self.row_number:
            return range(first_row, first_row + size)
        if self.is_constant:
            return list(repeat(None, size))
        return super().cells(columns, first_row, size)

    @property
    def is_constant(self) -> bool:  # noqa: D102
        return "constant" in self.model_fields_set

    def convert(self, field: str, context: Context) -> Convert:
        """A function from a cell to what the message says, or `None`; it raises `Refusal`."""
        source = self._source(context)
        steps = [*self._text_steps(), *self._number_steps(field, context), *self._word_steps()]

        def convert(value: object) -> object:
            value = source(value)
            for step in steps:
                if value is None:
                    break
                value = step(value)
            if value is None:
                return None if self.default is None else self.finish(field, self.default, whole=True)
            return self.finish(field, value)

        # Every row has its own number: nothing to remember.
        remembering = convert if self.row_number else cached(convert)
        if field.startswith(_ATTRIBUTE) and self.model_fields_set <= _AS_IT_IS and not context.empty:
            texts = context.decimal == "."
            return lambda value: remembering(value) if (said := usual(value, texts)) is None else said
        return remembering

    def finish(self, field: str, value: object, *, whole: bool = False) -> object:
        """The last steps, which the mapping's own values go through as well.

        A default is `whole`: it gets no prefix.
        """
        value = to_wire(field, value)
        if whole:
            return value
        if self.pseudonym is not None:
            value = pseudonym(text(value), self.pseudonym)
        return f"{self.prefix}{value}" if self.prefix else value

    def _source(self, context: Context) -> Convert:
        cell = context.cell()
        if "constant" in self.model_fields_set:
            return lambda _: self.constant
        if self.row_number:
            return lambda row: row
        if self.sign_of is not None:
            return self._sign(context)
        if (filled := self.filled) is not None:
            targets = tuple(filled.values())
            return lambda cells: next(
                (
                    target
                    for target, part in zip(targets, cells_of(cells), strict=True)
                    if cell(part) is not None
                ),
                None,
            )
        if self.first_of is not None:
            return lambda cells: next(
                (part for raw in cells_of(cells) if (part := cell(raw)) is not None), None
            )
        if self.product is not None:
            return self._product(context)
        return self._read(context)

    def _sign(self, context: Context) -> Convert:
        cell, clean = context.cell(), self._text_steps()

        def sign(value: object) -> object:
            value = cell(value)
            for step in clean:
                value = None if value is None else step(value)
            if value is None:
                return None
            size = number(value, context.decimal)
            return self.positive if size > 0 else self.negative if size < 0 else self.zero

        return sign

    def _product(self, context: Context) -> Convert:
        cell = context.cell()

        def product(cells: object) -> object:
            result = Decimal(1)
            for part in cells_of(cells):
                if (value := cell(part)) is None:
                    return None
                result *= number(value, context.decimal)
            return result

        return product

    def _text_steps(self) -> list[Convert]:
        steps: list[Convert] = []
        if (unwanted := self.remove) is not None:
            table = str.maketrans("", "", unwanted)
            steps.append(lambda value: text(value).translate(table).strip() or None)
        if (separator := self.split) is not None and (part := self.part) is not None:

            def pick(value: object) -> object:
                parts = text(value).split() if separator == " " else text(value).split(separator)
                if part >= len(parts):
                    raise Refusal(f"has no part {part} when split at {separator!r}")
                return parts[part].strip() or None

            steps.append(pick)
        return steps

    def _number_steps(self, field: str, context: Context) -> list[Convert]:
        numeric = self.scale is not None or self.absolute or self.range is not None
        if not numeric and self.values is None and field.startswith(_ATTRIBUTE):
            # What is made up letter by letter is to stay as it was made.
            written = self.pseudonym is not None or self.prefix or self.zero_pad or self.case
            return [] if written else [lambda value: as_number(value, context.decimal)]
        if not numeric and (self.values is not None or field not in _NUMBERS | _POSITIONS):
            return []
        factor = None if self.scale is None else Decimal(repr(self.scale))

        def compute(value: object) -> object:
            result = value if isinstance(value, Decimal) else number(value, context.decimal)
            if factor is not None:
                result *= factor
            if self.absolute:
                result = abs(result)
            if self.range is not None and not self.range[0] <= result <= self.range[1]:
                return None
            return result

        return [compute]

    def _word_steps(self) -> list[Convert]:
        steps: list[Convert] = []
        if (width := self.zero_pad) is not None:
            steps.append(lambda value: key(value).zfill(width))
        if self.case is not None:
            upper = self.case == "upper"
            steps.append(lambda value: text(value).upper() if upper else text(value).lower())
        if self.values is not None:
            known = {key(source): target for source, target in self.values.items()}
            lenient = "default" in self.model_fields_set

            def look_up(value: object) -> object:
                if (written := key(value)) in known:
                    return known[written]
                if lenient:
                    return None
                raise Refusal(f"holds {shown(written)}, which values does not list")

            steps.append(look_up)
        return steps


def to_wire(field: str, value: object) -> object:
    """A value in the JSON type its field has in messages."""
    if field in _NUMBERS:
        return plain(value if isinstance(value, Decimal) else number(value))
    if field in _POSITIONS:
        return round(float(value if isinstance(value, Decimal) else number(value)), _POSITION_DECIMALS)
    if field in _FLAGS:
        return _YES_NO.get(key(value).lower(), text(value))
    if field.startswith(_ATTRIBUTE):
        if isinstance(value, Decimal):
            return rounded(value)
        return value if isinstance(value, bool) else text(value)
    if field == "revision":
        written = key(value)
        return int(written) if written.isascii() and written.isdigit() and len(written) < 4 else written
    return text(value)
