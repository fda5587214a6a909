"""A mapping of the required fields, for tests that are about another one."""

from infra.mapping import Mapping
from infra.row_mapper import MappedRow

BASE = {
    "transaction_id": "id",
    "customer_id": "customer",
    "event_time": "ts",
    "amount": "amount",
    "currency": "{constant: EUR}",
}
ROW = {"id": "t1", "customer": "c1", "ts": "2026-03-01T10:00:00Z", "amount": "12.50"}


def written(**changes: str | None) -> str:
    """The YAML of the base mapping with some lines changed, added, or left out where `None`."""
    return "\n".join(f"{name}: {rule}" for name, rule in {**BASE, **changes}.items() if rule is not None)


def mapping(**changes: str | None) -> Mapping:
    return Mapping.parse(written(**changes))


def map_row(rules: Mapping, **cells: object) -> MappedRow:
    """The only row of a file with these cells, and the base's where not given."""
    (row,) = rules.rows({name: [cell] for name, cell in {**ROW, **cells}.items()})
    return row


def value(field: str, rule: str, **cells: object) -> object:
    """What a rule makes of cells; the base's columns are there too."""
    row = map_row(mapping(**{field: rule}), **cells)
    assert row.problem is None
    assert row.message is not None
    return row.message.get(field)


def problem(field: str, rule: str, **cells: object) -> str:
    row = map_row(mapping(**{field: rule}), **cells)
    assert row.message is None
    assert row.problem is not None
    return row.problem
