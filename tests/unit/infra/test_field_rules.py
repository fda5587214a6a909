"""Every form of a field's rule: what it makes of cells, and which cells it refuses."""

from decimal import Decimal

import pytest

from infra.field_rules import to_wire
from infra.row_mapper import FIELDS
from schemas.transaction import Transaction
from tests.unit.infra.mappings import map_row, mapping, problem, value


@pytest.mark.parametrize(
    ("field", "rule", "cells", "expected"),
    [
        ("customer_id", "{column: a}", {"a": 17850.0}, "17850"),
        ("customer_id", "{column: a, prefix: 'c-'}", {"a": 7}, "c-7"),
        ("customer_id", "{columns: [a, b], join: '-'}", {"a": 7, "b": "x"}, "7-x"),
        ("customer_id", "{columns: [a, b]}", {"a": 7, "b": "x"}, "7 x"),
        ("account_id", "{columns: [a, b]}", {"a": 7, "b": None}, None),
        ("account_id", "a", {"a": "  "}, None),
        ("account_id", "a", {"a": float("nan")}, None),
        ("account_id", "{column: a, default: none}", {"a": ""}, "none"),
        ("account_id", "{column: a, default: none, prefix: x}", {"a": ""}, "none"),
        ("account_id", '{column: a, remove: "\'"}', {"a": "'C12'"}, "C12"),
        ("account_id", "{column: a, case: upper}", {"a": "ab1"}, "AB1"),
        ("account_id", "{column: a, case: lower}", {"a": "AB1"}, "ab1"),
        ("account_id", "{first_of: [a, b]}", {"a": "", "b": "x"}, "x"),
        ("account_id", "{first_of: [a, b]}", {"a": "", "b": None}, None),
        ("transaction_id", "{row_number: true, prefix: berka-}", {}, "berka-1"),
        ("transaction_id", "{row_number: true, zero_pad: 6}", {}, "000001"),
        ("currency", "{column: a, case: upper}", {"a": "czk"}, "CZK"),
        ("currency", "{column: a, values: {kr: NOK}, default: SEK}", {"a": "öre"}, "SEK"),
        ("merchant_country", "{constant: NO}", {}, "NO"),
        ("merchant_country", "{column: a, values: {EIRE: IE, Unspecified: null}}", {"a": "EIRE"}, "IE"),
        (
            "merchant_country",
            "{column: a, values: {EIRE: IE, Unspecified: null}}",
            {"a": "Unspecified"},
            None,
        ),
        ("merchant_category", "{column: a, zero_pad: 4}", {"a": 742}, "0742"),
        ("merchant_category", "{column: a, zero_pad: 4}", {"a": "742.0"}, "0742"),
        ("merchant_category", "{column: a, values: {fuel: 5541}}", {"a": "fuel"}, "5541"),
        ("merchant_category", "{column: a, values: {1: '5541', 2: '5411'}}", {"a": 2.0}, "5411"),
        ("amount", "a", {"a": 67.04}, "67.04"),
        ("amount", "a", {"a": Decimal("5.50")}, "5.50"),
        ("amount", "a", {"a": 1e3}, "1000.0"),
        ("amount", "{column: a, scale: 0.01}", {"a": 1234}, "12.34"),
        ("amount", "{column: a, absolute: true}", {"a": "-12.50"}, "12.50"),
        ("amount", "{column: a, remove: '$,'}", {"a": "$1,234.50"}, "1234.50"),
        ("amount", "{column: a, remove: '$', absolute: true}", {"a": "$-99.00"}, "99.00"),
        ("amount", "{product: [a, b]}", {"a": 6, "b": 2.55}, "15.30"),
        ("amount", "{product: [a, b], absolute: true}", {"a": -6, "b": 2.55}, "15.30"),
        ("amount", "{first_of: [a, b]}", {"a": "", "b": "7"}, "7"),
        ("direction", "{sign_of: a, positive: credit, negative: debit}", {"a": "-3"}, "debit"),
        ("direction", "{sign_of: a, positive: credit, negative: debit}", {"a": 3}, "credit"),
        ("direction", "{sign_of: a, positive: credit, negative: debit}", {"a": 0}, None),
        ("direction", "{sign_of: a, positive: credit, negative: debit, zero: debit}", {"a": 0}, "debit"),
        ("direction", "{sign_of: a, remove: $, positive: credit, negative: debit}", {"a": "$-3"}, "debit"),
        ("direction", "{filled: {a: credit, b: debit}}", {"a": "", "b": "3"}, "debit"),
        ("direction", "{filled: {a: credit, b: debit}}", {"a": "", "b": ""}, None),
        ("direction", "{column: a, values: {C: credit}, default: debit}", {"a": "D"}, "debit"),
        ("direction", "{column: a, values: {C: credit}, default: null}", {"a": "D"}, None),
        ("direction", "{column: a, values: {true: credit, false: debit}}", {"a": "TRUE"}, "credit"),
        ("direction", "{column: a, values: {true: credit, false: debit}}", {"a": False}, "debit"),
        ("longitude", "{column: a, split: ' ', part: 0}", {"a": "153.41  -27.95"}, 153.41),
        ("latitude", "{column: a, split: ' ', part: 1}", {"a": "153.41  -27.95"}, -27.95),
        ("latitude", "{column: a, split: '/', part: 1}", {"a": "153.41/-27.95"}, -27.95),
        ("latitude", "{column: a, range: [-90, 90]}", {"a": -573.0}, None),
        ("latitude", "a", {"a": 36.713001251220703}, 36.713001),
        ("card_present", "a", {"a": 1}, True),
        ("card_present", "a", {"a": "No"}, False),
        ("card_present", "{column: a, values: {Swipe Transaction: true}, default: false}", {"a": "x"}, False),
        ("balance_after", "a", {"a": -12}, "-12"),
    ],
)
def test_rules_make_values(field: str, rule: str, cells: dict[str, object], expected: object) -> None:
    assert value(field, rule, **cells) == expected


@pytest.mark.parametrize(
    ("field", "rule", "cells", "expected"),
    [
        ("customer_id", "a", {"a": ""}, "customer_id: column a is empty"),
        ("customer_id", "a", {"a": "x" * 65}, "customer_id: String should have at most 64 characters"),
        ("amount", "a", {"a": None}, "amount: column a is empty"),
        ("amount", "a", {"a": "twelve"}, "amount: column a is not a number"),
        ("amount", "a", {"a": "1e400"}, "amount: column a is too large or too small a number"),
        ("amount", "a", {"a": 0}, "amount: Input should be greater than 0"),
        ("amount", "a", {"a": "-1"}, "amount: Input should be greater than 0"),
        ("amount", "a", {"a": "0.001"}, "amount rounds to 0 in EUR"),
        ("amount", "{product: [a, b]}", {"a": 6, "b": None}, "amount: column a, b is empty"),
        ("direction", "{column: a, values: {C: credit}}", {"a": "D"},
         "direction: column a holds 'D', which values does not list"),
        ("direction", "a", {"a": "D"}, "direction: Input should be 'debit' or 'credit'"),
        ("account_id", "{column: a, required: true}", {"a": None}, "account_id: column a is empty"),
        ("latitude", "{column: a, split: ' ', part: 1}", {"a": "153.41"},
         "latitude: column a has no part 1 when split at ' '"),
        ("latitude", "a", {"a": 91}, "latitude: Input should be less than or equal to 90"),
        ("currency", "a", {"a": "EURO"}, "currency: not an ISO 4217 currency code"),
        ("merchant_id", "a", {"a": "4111 1111 1111 1111"}, "merchant_id holds a raw card number"),
        ("merchant_id", "a", {"a": 4111111111111111}, "merchant_id holds a raw card number"),
        ("merchant_id", "a", {"a": "caf\udce9"}, "the row is not UTF-8"),
    ],
)  # fmt: skip
def test_cells_that_cannot_be_are_refused_with_field_and_column(
    field: str, rule: str, cells: dict[str, object], expected: str
) -> None:
    assert problem(field, rule, **cells).startswith(expected)


@pytest.mark.parametrize(
    ("field", "cell", "hint"),
    [
        ("merchant_id", "4111111111111111", "'prefix' marks an id that only looks like one"),
        ("amount", "-1", "'absolute: true' drops a sign"),
        ("merchant_category", "groceries", "'values' says what the words of the file are here"),
        ("channel", "telepathy", "'values' says what the words of the file are here"),
    ],
)
def test_a_refusal_says_what_a_mapping_can_do_about_it(field: str, cell: str, hint: str) -> None:
    said = problem(field, "a", a=cell)
    assert f"; in the mapping, {hint}" in said
    assert cell not in said


def test_what_a_mapping_cannot_mend_has_no_such_hint() -> None:
    assert "in the mapping" not in problem("amount", "a", a="0.001")


def test_a_refusal_never_repeats_a_personal_cell() -> None:
    said = problem("amount", "a", a="Jana Nováková")
    assert "Jana" not in said


def test_all_problems_of_a_row_are_said() -> None:
    rules = mapping(latitude="a", direction="{column: b, values: {C: credit}}")
    row = map_row(rules, a="north", b="D", amount="x")
    assert row.problem is not None
    assert [part.split(":")[0] for part in row.problem.split("; ")] == ["amount", "direction", "latitude"]


def test_a_card_number_can_be_replaced_by_a_pseudonym() -> None:
    first = value("customer_id", "{column: a, pseudonym: some salt, prefix: 'c-'}", a=4111111111111111)
    assert first == value(
        "customer_id", "{column: a, pseudonym: some salt, prefix: 'c-'}", a="4111111111111111"
    )
    assert isinstance(first, str)
    assert first.startswith("c-")
    assert len(first) == 34


def test_every_field_has_a_type_on_the_wire() -> None:
    # A new number or flag in the schema would otherwise be sent as text unnoticed.
    kinds = {name: type(to_wire(name, "1")) for name in FIELDS}
    for name, kind in kinds.items():
        annotation = str(Transaction.model_fields[name].annotation)
        assert (kind is float) == ("float" in annotation), name
        assert (kind is bool) == ("bool" in annotation), name
