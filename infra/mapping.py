"""A mapping: how the columns of anyone's file become transactions, read from YAML and checked before any work."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import orjson
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from infra.cells import Refusal, duration_ms
from infra.mapping_rules import (
    Columns,
    Context,
    Convert,
    FieldRule,
    LabelRule,
    Options,
    SkipRule,
    TimeRule,
    _as_column,
)
from infra.plain_yaml import load_plain_yaml, parse_plain_yaml
from infra.tabular import CsvFormat
from schemas.errors import ConfigError, EventError
from schemas.fields import from_epoch_ms, to_epoch_ms, to_rfc3339
from schemas.label import Label
from schemas.parse import dump, parse_message
from schemas.transaction import Transaction

FIELDS = tuple(name for name in Transaction.model_fields if name != "schema_version")
REQUIRED = tuple(name for name in FIELDS if Transaction.model_fields[name].is_required())
_NOTHING: Dict[int, str] = {}


class RowLabel(NamedTuple):
    """What the file knows about a transaction, and since when."""

    value: Literal["fraud", "genuine"]
    time_ms: int


class MappedRow(NamedTuple):
    """One row of a file.

    Attributes:
        row_number: From 1, the first row of data; refused rows count.
        message: The transaction as it is published; `None` if skipped or refused.
        raw: The same as bytes.
        transaction: The same, validated.
        problem: Why the row was refused; `None` if it was not.
        skipped: The mapping leaves it out on purpose.
    """

    row_number: int
    message: dict[str, object] | None = None
    raw: bytes = b""
    transaction: Transaction | None = None
    label: RowLabel | None = None
    problem: str | None = None
    skipped: bool = False


class Mapping(Context):
    """A mapping file. In YAML the fields of the message stand beside the options, not under `fields`."""

    source: str
    kind: Literal["transactions"] = "transactions"
    csv: CsvFormat = CsvFormat()
    event_time: Annotated[TimeRule, BeforeValidator(_as_column)]
    fields: dict[str, Annotated[FieldRule, BeforeValidator(_as_column)]]
    label: LabelRule | None = None
    skip_if: Annotated[
        tuple[SkipRule, ...], BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)
    ] = ()

    _parts: ClassVar[dict[str, type[BaseModel]]] = {
        "event_time": TimeRule, "label": LabelRule, "skip_if": SkipRule, "csv": CsvFormat, "fields": FieldRule,
    }  # fmt: skip

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
            f"{name}: no such field or option{did_you_mean(name, [*FIELDS, *options])}"
            for name in document
            if name not in FIELDS and name not in options
        ]
        problems += [f"{name}: is required" for name in REQUIRED if document.get(name) is None]
        if problems:
            known = f"fields are {', '.join(FIELDS)}; options are {', '.join(options)}"
            raise ConfigError(f"{source}: {'; '.join(problems)} ({known})")
        simple = {name: rule for name, rule in document.items() if name in FIELDS and name != "event_time"}
        rest = {name: value for name, value in document.items() if name not in simple}
        try:
            mapping = cls.model_validate({**rest, "fields": simple, "source": source})
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
                part: type[BaseModel] = TimeRule if "time" in place[1:-1] else cls._parts[str(error["loc"][0])]
                message = f"no such option{did_you_mean(place[-1], part.model_fields)}"
                message += f" (options are {', '.join(part.model_fields)})"
            yield f"{'.'.join(place)}: {message}"

    def _wrong_targets(self) -> Iterator[str]:
        """Values of the mapping itself that the message's schema does not allow."""
        for name, rule in self.fields.items():
            info = Transaction.model_fields[name]
            allowed: TypeAdapter[object] = TypeAdapter(Annotated[info.annotation, *info.metadata])
            for said, target in rule.targets():
                if target is None:
                    if said == "constant":
                        yield f"{name}.constant: is empty"
                    continue
                try:
                    wire = rule.finish(name, target) if said != "default" else target
                    allowed.validate_json(orjson.dumps(wire if isinstance(wire, bool) else str(wire)))
                except ValidationError as invalid:
                    reason = invalid.errors()[0]["msg"].removeprefix("Value error, ")
                    yield f"{name}.{said}: {target!r} is not allowed in {name}: {reason}"
                except Refusal as refusal:
                    yield f"{name}.{said}: {target!r} {refusal}"

    def uses(self) -> dict[str, list[str]]:
        """Columns it reads, each with what for."""
        readers: list[tuple[str, Iterable[str]]] = [("event_time", self.event_time.used_columns())]
        readers += [(name, rule.used_columns()) for name, rule in self.fields.items()]
        readers += [("label", self.label.used_columns())] if self.label else []
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
            if column not in columns:
                problems.append(
                    f"{' and '.join(readers)}: the file has no column {column!r}{did_you_mean(column, columns)}"
                )
            elif columns.count(column) > 1:
                problems.append(f"{' and '.join(readers)}: the file has {column!r} {columns.count(column)} times")
        if problems:
            raise ConfigError(f"{self.source}: {'; '.join(problems)} (its columns are {', '.join(columns)})")

    @cached_property
    def _plan(self) -> list[tuple[str, str, TimeRule | FieldRule, Convert]]:
        rules: dict[str, tuple[TimeRule | FieldRule, Convert, bool]] = {
            name: (rule, rule.convert(name, self), rule.required or name in REQUIRED)
            for name, rule in self.fields.items()
        }
        rules["event_time"] = (self.event_time, self.event_time.convert(self), True)
        plan = []
        for name in FIELDS:
            if name in rules:
                rule, convert, required = rules[name]
                where = f"{name}: column {', '.join(dict.fromkeys(rule.used_columns()))}"
                plan.append((name, where, rule, _required(convert) if required else convert))
        return plan

    def rows(
        self, columns: Columns, first_row: int = 1, broken: Dict[int, str] = _NOTHING
    ) -> Iterator[MappedRow]:
        """Map and validate one batch, row by row in the file's order. Never raises for a row.

        Args:
            columns: Cells by column, all of one length; at least those the mapping reads.
            first_row: The batch's first row's number in the file.
            broken: Rows that could not be read at all, by position in the batch, with the reason.
        """
        size = len(next(iter(columns.values()), ()))
        refused = dict(broken)
        values = [
            _evaluate(convert, rule.cells(columns, first_row, size), where, refused)
            for _, where, rule, convert in self._plan
        ]
        labels, label_times = self._labels(columns, size, refused)
        skipped = self._skipped(columns, size)
        names = [name for name, *_ in self._plan]
        for i, (row, label, label_time) in enumerate(
            zip(zip(*values, strict=True), labels, label_times, strict=True)
        ):
            number = first_row + i
            if i in skipped and i not in broken:
                yield MappedRow(number, skipped=True)
            elif i in refused:
                yield MappedRow(number, problem=refused[i])
            else:
                message = {name: value for name, value in zip(names, row, strict=True) if value is not None}
                yield self._validated(number, message, label, label_time)

    def _validated(
        self, number: int, message: dict[str, object], label: Any, label_time: object
    ) -> MappedRow:
        try:
            raw = dump(message)
            transaction = parse_message(Transaction, raw)
            # What rounds to nothing in its currency passes the schema, and is refused by the worker.
            _ = transaction.amount_minor
        except EventError as bad:
            return MappedRow(number, problem=str(bad))
        except TypeError:
            return MappedRow(number, problem="the row is not valid UTF-8; give csv: {encoding: ...}")
        if label is None:
            return MappedRow(number, message, raw, transaction)
        known_ms = self._known_ms(transaction.event_time_ms, label_time)
        return MappedRow(number, message, raw, transaction, RowLabel(label, known_ms))

    @cached_property
    def _label_delay_ms(self) -> int:
        return duration_ms(self.label.delay) if self.label else 0

    def _known_ms(self, event_ms: int, label_time: object) -> int:
        if isinstance(label_time, str):
            # Files round such times to the day: nothing is known before it happened.
            return max(event_ms, _ms(label_time))
        return event_ms + self._label_delay_ms
