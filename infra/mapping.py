"""A mapping: how the columns of anyone's file become transactions. YAML, checked before any work."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from features.attributes import BALANCES, RESERVED
from infra.cells import Refusal, duration_ms
from infra.field_rules import FieldRule
from infra.mapping_rules import Columns, Context, TimeRule, as_column
from infra.plain_yaml import load_plain_yaml, parse_plain_yaml
from infra.row_mapper import FIELDS, REQUIRED, MappedRow, RowMapper
from infra.row_rules import LabelRule, SkipRule
from infra.tabular import CsvFormat
from schemas.errors import ConfigError
from schemas.transaction import (
    ATTRIBUTE_NAME,
    ATTRIBUTE_NAME_WORDS,
    MAX_ATTRIBUTES,
    AttributeValue,
    Transaction,
)

_NOTHING: Dict[int, str] = MappingProxyType({})


def _as_rules(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _by_name(value: Any) -> Any:
    """The short form `attributes: [Card Type, dist1]`: each is called as its column is, in plain letters."""
    if isinstance(value, list):
        named: dict[Any, Any] = {}
        for column in value:
            if isinstance(column, dict | list | None):
                raise ValueError(
                    "a list holds names of columns; write a rule under a name, {name: {column: a}}"
                )
            name = re.sub("[^a-z0-9]+", "_", str(column).lower()).strip("_")
            if name in named:
                raise ValueError(
                    f"{named[name]!r} and {column!r} would both be called {name!r}: give them names"
                )
            _check_name(name, f"column {column!r} would be called {name!r}, which")
            named[name] = column
        return named
    if not isinstance(value, dict):
        raise ValueError("write names of columns, [a, b], or rules under names, {name: {column: a}}")
    for name in value:
        _check_name(str(name), repr(name))
    return value


def _check_name(name: str, what: str) -> None:
    if not re.fullmatch(ATTRIBUTE_NAME, name):
        raise ValueError(f"{what} cannot be a name: {ATTRIBUTE_NAME_WORDS}; write {{name: column}}")
    if name in BALANCES:
        raise ValueError(
            f"{what} is a field of transactions: write it beside the others, not under attributes"
        )
    if name in RESERVED:
        raise ValueError(f"{what} is the word for no attribute: write {{another_name: column}}")


class Mapping(Context):
    """A mapping file. In YAML the fields of the message stand beside the options, not under `fields`."""

    source: str
    kind: Literal["transactions"] = "transactions"
    csv: CsvFormat = CsvFormat()
    event_time: Annotated[TimeRule, BeforeValidator(as_column)]
    fields: dict[str, Annotated[FieldRule, BeforeValidator(as_column)]]
    attributes: Annotated[
        dict[str, Annotated[FieldRule, BeforeValidator(as_column)]],
        BeforeValidator(_by_name),
        Field(max_length=MAX_ATTRIBUTES),
    ] = {}  # noqa: RUF012
    label: LabelRule | None = None
    account_closed: Annotated[TimeRule | None, BeforeValidator(as_column)] = None
    skip_if: Annotated[tuple[SkipRule, ...], BeforeValidator(_as_rules)] = ()

    _models: ClassVar[dict[str, type[BaseModel]]] = {
        "event_time": TimeRule,
        "label": LabelRule,
        "account_closed": TimeRule,
        "skip_if": SkipRule,
        "csv": CsvFormat,
        "fields": FieldRule,
        "attributes": FieldRule,
    }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a mapping file.

        Raises:
            ConfigError: It cannot be read, or says something that cannot be.
        """
        return cls._build(load_plain_yaml(path), path.name)

    @classmethod
    def parse(cls, written: str, source: str = "mapping") -> Self:
        """Read a mapping from text.

        Raises:
            ConfigError: It says something that cannot be.
        """
        return cls._build(parse_plain_yaml(written, source), source)

    @classmethod
    def _build(cls, document: dict[Any, Any], source: str) -> Self:
        options = [name for name in cls.model_fields if name not in {"source", "fields", "event_time"}]
        problems = [
            f"{name}: no such field or option{did_you_mean(str(name), [*FIELDS, *options])}"
            for name in document
            if name not in FIELDS and name not in options
        ]
        problems += [f"{name}: is required" for name in REQUIRED if document.get(name) is None]
        if problems:
            known = f"fields are {', '.join(FIELDS)}; options are {', '.join(options)}"
            raise ConfigError(f"{source}: {'; '.join(problems)} ({known})")
        fields = {name: rule for name, rule in document.items() if name in FIELDS and name != "event_time"}
        rest = {name: value for name, value in document.items() if name not in fields}
        try:
            mapping = cls.model_validate({**rest, "fields": fields, "source": source})
        except ValidationError as invalid:
            raise ConfigError(f"{source}: {'; '.join(cls._explain(invalid))}") from None
        if wrong := list(mapping._wrong_targets()):
            raise ConfigError(f"{source}: {'; '.join(wrong)}")
        return mapping

    @classmethod
    def _explain(cls, invalid: ValidationError) -> Iterator[str]:
        for error in invalid.errors(include_url=False, include_context=False):
            place = [str(part) for part in error["loc"] if part != "fields"]
            message = error["msg"].removeprefix("Value error, ")
            if error["type"] == "extra_forbidden":
                model = TimeRule if "time" in place[1:-1] else cls._models[str(error["loc"][0])]
                near = did_you_mean(place[-1], list(model.model_fields))
                message = f"no such option{near} (options are {', '.join(model.model_fields)})"
            elif error["type"] in ("model_type", "dict_type") and place == ["label"]:
                message = "say which column and which of its cells mean fraud: {column: ..., fraud: [1]}"
            yield f"{'.'.join(place)}: {message}"

    def _wrong_targets(self) -> Iterator[str]:
        """Values of the mapping itself that the message's schema does not allow."""
        fields = [(name, rule, _type_of(name)) for name, rule in self.fields.items()]
        fields += [(f"attributes.{n}", r, TypeAdapter(AttributeValue)) for n, r in self.attributes.items()]
        for name, rule, field in fields:
            for said, target in rule.targets():
                if target is None:
                    continue
                try:
                    field.validate_json(orjson.dumps(rule.finish(name, target, whole=said == "default")))
                except ValidationError as invalid:
                    reason = invalid.errors()[0]["msg"].removeprefix("Value error, ")
                    yield f"{name}.{said}: {target!r} is not a value of {name}: {reason}"
                except Refusal as refusal:
                    yield f"{name}.{said}: {target!r} {refusal}"

    @property
    def label_delay_ms(self) -> int:
        """Label delay in milliseconds; 0 where there is no label."""
        return 0 if self.label is None else duration_ms(self.label.delay)

    def check_trains_fraud(self) -> None:
        """Refuse a mapping that fraud cannot be learned from.

        Raises:
            ConfigError: It has no label.
        """
        if self.label is None:
            raise ConfigError(
                f"{self.source}: training for fraud needs a label: label: {{column: ..., fraud: [1]}}"
            )

    def with_delay(self, delay: str | None) -> Self:
        """The same with another label delay; `None` leaves it as it is.

        Raises:
            ConfigError: It has no label, or this is no length of time.
        """
        if delay is None:
            return self
        if self.label is None:
            raise ConfigError(f"{self.source}: a label delay needs a label in the mapping")
        try:
            duration_ms(delay)
        except ValueError as wrong:
            raise ConfigError(f"label delay: {delay!r} {wrong}") from None
        return self.model_copy(update={"label": self.label.model_copy(update={"delay": delay})})

    def uses(self) -> dict[str, list[str]]:
        """Columns it reads, each with what for."""
        readers: list[tuple[str, Iterable[str]]] = [("event_time", self.event_time.used_columns())]
        readers += [(name, rule.used_columns()) for name, rule in self.fields.items()]
        readers += [(f"attributes.{name}", rule.used_columns()) for name, rule in self.attributes.items()]
        readers += [("label", self.label.used_columns())] if self.label else []
        readers += [("account_closed", self.account_closed.used_columns())] if self.account_closed else []
        readers += [("skip_if", rule.used_columns()) for rule in self.skip_if]
        used: dict[str, list[str]] = {}
        for name, columns in readers:
            for column in columns:
                used.setdefault(column, []).append(name)
        return used

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a file that lacks a column this mapping reads.

        Raises:
            ConfigError: Names every such column, what it is for, and the columns there are.
        """
        problems = []
        for column, readers in self.uses().items():
            who = " and ".join(dict.fromkeys(readers))
            if column not in columns:
                problems.append(f"{who}: the file has no column {column!r}{did_you_mean(column, columns)}")
            elif (times := list(columns).count(column)) > 1:
                problems.append(f"{who}: the file has {times} columns called {column!r}")
        if problems:
            raise ConfigError(f"{self.source}: {'; '.join(problems)} (its columns are {', '.join(columns)})")

    def rows(
        self,
        columns: Columns,
        first_row: int = 1,
        broken: Dict[int, str] = _NOTHING,
        *,
        plain: bool = False,
    ) -> Iterator[MappedRow]:
        """Map and validate one batch, row by row in the file's order. Never raises for a row.

        Args:
            columns: Cells by column, all of one length; at least those the mapping reads.
            first_row: The number in the file of the batch's first row.
            broken: Rows that could not be read at all, by position in the batch, with the reason.
            plain: Validate what is plain by `schemas.wire`, in a fraction of the time.
        """
        return self._mapper.rows(columns, first_row, broken, plain=plain)

    @cached_property
    def _mapper(self) -> RowMapper:
        return RowMapper(
            self.fields, self.event_time, self.attributes, self.label, self.account_closed, self.skip_if, self
        )


def _type_of(name: str) -> TypeAdapter[object]:
    info = Transaction.model_fields[name]
    kind: Any = Annotated[(info.annotation, Field(), *info.metadata)]
    return TypeAdapter(kind)


def did_you_mean(name: str, candidates: Sequence[str]) -> str:
    """A hint to append, or nothing.

    >>> did_you_mean("ammount", ["amount", "account"])
    "; did you mean 'amount'?"
    """
    lower = {candidate.lower(): candidate for candidate in reversed(candidates)}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""
