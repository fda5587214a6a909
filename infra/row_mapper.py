"""Rows of a table to validated transactions: a mapping's rules, compiled and run column by column."""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dict
from datetime import datetime
from typing import Literal, NamedTuple

from infra.cells import Refusal, duration_ms
from infra.field_rules import FieldRule
from infra.mapping_rules import Columns, Context, Convert, TimeRule
from infra.row_rules import LabelRule, SkipRule
from schemas.errors import EventError
from schemas.fields import from_epoch_ms, to_epoch_ms, to_rfc3339
from schemas.label import Label
from schemas.parse import dump, parse_message
from schemas.transaction import Transaction
from schemas.wire import WireTransaction, read_transaction

FIELDS = tuple(name for name in Transaction.model_fields if name not in {"schema_version", "attributes"})
"""Those that a column makes; attributes are made of several."""
REQUIRED = tuple(name for name in FIELDS if Transaction.model_fields[name].is_required())
_SEEN = 10_000
"""Cells after which a cache is judged."""
LabelWord = Literal["fraud", "genuine"]
_WORDS = ("merchant_category", "transaction_type", "channel", "direction", "merchant_country")
"""Fields that take certain values only, for which files have words of their own."""
_HINTS = {
    "holds a raw card number": "'prefix' marks an id that only looks like one, 'pseudonym' hides a real one, "
    "'scale' makes a number smaller",
    "amount: Input should be greater than 0": "'absolute: true' drops a sign, 'direction' says what it "
    "meant, and 'range: [0.001, 1e12]' with 'default: 0.01' takes a cent for nothing",
} | {f"{field}: ": "'values' says what the words of the file are here" for field in _WORDS}
"""What a mapping can do about a refusal, by words of it."""


class RowLabel(NamedTuple):
    """What the file knows about a transaction, and since when."""

    value: LabelWord
    time_ms: int


class MappedRow(NamedTuple):
    """One row of a file.

    Attributes:
        row_number: From 1, the first row of data; refused rows count.
        message: The transaction as it is published; `None` if skipped or refused.
        raw: The same as bytes.
        transaction: The same, validated.
        amount_minor: Its amount in minor units.
        event_time_ms: Its event time in milliseconds since 1970.
        closed_ms: When its customer closed the account, if the file says so.
        problem: Why the row was refused; `None` if it was not.
        skipped: The mapping leaves it out on purpose.
    """

    row_number: int
    message: dict[str, object] | None = None
    raw: bytes = b""
    transaction: Transaction | WireTransaction | None = None
    amount_minor: int = 0
    event_time_ms: int = 0
    label: RowLabel | None = None
    closed_ms: int | None = None
    problem: str | None = None
    skipped: bool = False


def label_message(transaction: Transaction | WireTransaction, label: RowLabel) -> bytes:
    """The label as it is published.

    Raises:
        EventError: Its time is not allowed.
    """
    return _label(
        label.time_ms,
        customer_id=transaction.customer_id,
        transaction_id=transaction.transaction_id,
        label=label.value,
    )


def closed_message(customer_id: str, closed_ms: int) -> bytes:
    """The label that a customer closed the account, as it is published.

    Raises:
        EventError: Its time is not allowed.
    """
    return _label(closed_ms, customer_id=customer_id, label="account_closed")


def _label(time_ms: int, **said: str) -> bytes:
    raw = dump({**said, "label_time": to_rfc3339(from_epoch_ms(time_ms))})
    parse_message(Label, raw)
    return raw


class RowMapper:
    """The rules of one mapping as functions over columns."""

    def __init__(
        self,
        fields: Dict[str, FieldRule],
        event_time: TimeRule,
        attributes: Dict[str, FieldRule],
        label: LabelRule | None,
        account_closed: TimeRule | None,
        skip_if: Sequence[SkipRule],
        context: Context,
    ) -> None:
        plan: dict[str, tuple[FieldRule | TimeRule, Convert]] = {
            "event_time": (event_time, event_time.convert(context))
        }
        for name, field in fields.items():
            plan[name] = (field, field.convert(name, context))
        self._plan = [
            _Step(name, *plan[name], name in REQUIRED or (name in fields and fields[name].required))
            for name in FIELDS
            if name in plan
        ]
        self._attributes = {
            name: _Step(
                f"attributes.{name}", rule, rule.convert(f"attributes.{name}", context), rule.required
            )
            for name, rule in attributes.items()
        }
        self._skips = [(rule.column, rule.matches(context)) for rule in skip_if]
        self._label = None if label is None else (label.column, label.convert(context))
        self._delay_ms = 0 if label is None else duration_ms(label.delay)
        self._label_time = None
        if label is not None and label.time is not None:
            self._label_time = _Step("label.time", label.time, label.time.convert(context), required=False)
        self._closed = None
        if account_closed is not None:
            convert = account_closed.convert(context)
            self._closed = _Step("account_closed", account_closed, convert, required=False)

    def rows(
        self, columns: Columns, first_row: int, broken: Dict[int, str], *, plain: bool = False
    ) -> Iterator[MappedRow]:
        """See `Mapping.rows`."""
        size = len(next(iter(columns.values()), ()))
        refused: dict[int, str] = {}
        values = [step.run(columns, first_row, size, refused) for step in self._plan]
        names = [step.name for step in self._plan]
        if self._attributes:
            names.append("attributes")
            values.append(self._attributes_of(columns, first_row, size, refused))
        # Most columns are filled or empty as a whole; then no row has to be looked through for what it lacks.
        empty = [i for i, column in enumerate(values) if None in column and column.count(None) == size]
        if len(empty) < len(values):
            names = [name for i, name in enumerate(names) if i not in empty]
            values = [column for i, column in enumerate(values) if i not in empty]
        whole = not any(None in column for column in values)
        labels: Sequence[LabelWord | None] = [None] * size
        if self._label is not None:
            column, convert = self._label
            labels = list(map(convert, columns[column]))
        known: Sequence[object] = [None] * size
        if self._label_time is not None:
            known = self._label_time.run(columns, first_row, size, refused)
        closed: Sequence[object] | None = None
        if self._closed is not None:
            closed = self._closed.run(columns, first_row, size, refused)
        skipped = self._skipped(columns)
        # Before its cells, of which it has none.
        refused.update(broken)
        skipped -= broken.keys()
        for i, row in enumerate(zip(*values, strict=True)):
            number = first_row + i
            if i in skipped:
                yield MappedRow(number, skipped=True)
            elif i in refused:
                yield MappedRow(number, problem=refused[i])
            else:
                cells = zip(names, row, strict=True)
                message = dict(cells if whole else [cell for cell in cells if cell[1] is not None])
                mapped = self._validated(number, message, labels[i], known[i], plain)
                if closed is not None and isinstance(moment := closed[i], str):
                    mapped = mapped._replace(closed_ms=_epoch_ms(moment))
                yield mapped

    def _attributes_of(
        self, columns: Columns, first_row: int, size: int, refused: dict[int, str]
    ) -> list[object]:
        values = [step.run(columns, first_row, size, refused) for step in self._attributes.values()]
        said = (zip(self._attributes, row, strict=True) for row in zip(*values, strict=True))
        return [{name: value for name, value in row if value is not None} or None for row in said]

    def _skipped(self, columns: Columns) -> set[int]:
        return {
            i
            for column, matches in self._skips
            for i, match in enumerate(map(matches, columns[column]))
            if match
        }

    def _validated(
        self, number: int, message: dict[str, object], word: LabelWord | None, known: object, plain: bool
    ) -> MappedRow:
        transaction: Transaction | WireTransaction
        try:
            raw = dump(message)
            if plain and (quick := read_transaction(raw)) is not None:
                transaction, amount_minor = quick
            else:
                transaction = parse_message(Transaction, raw)
                # What rounds to nothing in its currency passes the schema, and is refused by the worker.
                amount_minor = transaction.amount_minor
        except EventError as bad:
            return MappedRow(number, problem=_with_hint(str(bad)))
        except TypeError:
            return MappedRow(number, problem="the row is not UTF-8; say csv: {encoding: ...} in the mapping")
        event_ms = transaction.event_time_ms
        if word is None:
            return MappedRow(number, message, raw, transaction, amount_minor, event_ms)
        known_ms = event_ms + self._delay_ms
        if isinstance(known, str):
            # Files round such times to the day: still, nothing is known before it happened.
            known_ms = max(event_ms, _epoch_ms(known))
        return MappedRow(number, message, raw, transaction, amount_minor, event_ms, RowLabel(word, known_ms))


def _epoch_ms(moment: str) -> int:
    return to_epoch_ms(datetime.fromisoformat(moment))


def _with_hint(refused: str) -> str:
    """What is wrong with a row, and what a mapping can do about it."""
    hints = [hint for words, hint in _HINTS.items() if words in refused]
    return f"{refused}; in the mapping, {', '.join(dict.fromkeys(hints))}" if hints else refused


class _Step(NamedTuple):
    """One field: where its cells come from and what becomes of them."""

    name: str
    rule: FieldRule | TimeRule
    convert: Convert
    required: bool

    def run(self, columns: Columns, first_row: int, size: int, refused: dict[int, str]) -> list[object]:
        """The field's values of a batch; adds to `refused` the rows whose cell it refuses."""
        cells = self.rule.cells(columns, first_row, size)
        try:
            if self.rule.is_constant:
                return [self.convert(None)] * size
            values = list(map(_quickest(self.convert), cells))
            if not self.required or None not in values:
                return values
        except Refusal:
            pass
        # Some cell is bad. Once more, slower, to find out which.
        return [self._one(i, cell, refused) for i, cell in enumerate(cells)]

    def _one(self, i: int, cell: object, refused: dict[int, str]) -> object:
        value = None
        try:
            value = self.convert(cell)
            problem = "is empty" if value is None and self.required else None
        except Refusal as refusal:
            problem = str(refusal)
        if problem is not None:
            problem = f"{self._where()} {problem}"
            refused[i] = f"{refused[i]}; {problem}" if i in refused else problem
        return value

    def _where(self) -> str:
        columns = ", ".join(dict.fromkeys(self.rule.used_columns()))
        return f"{self.name}: column {columns}" if columns else f"{self.name}:"


def _quickest(convert: Convert) -> Convert:
    """The function behind a cache that hardly helps: remembering cells that do not come again costs more."""
    if not hasattr(convert, "cache_info") or not hasattr(convert, "__wrapped__"):
        return convert
    seen = convert.cache_info()
    wrapped: Convert = convert.__wrapped__
    return wrapped if seen.misses > max(seen.hits, _SEEN) else convert
