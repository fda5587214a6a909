"""What a mapping may say, and what is refused before any work."""

from pathlib import Path
from typing import Any

import pytest

from features.attributes import attribute_features, attribute_values
from infra.mapping import Mapping, did_you_mean
from infra.row_mapper import FIELDS
from schemas.errors import ConfigError
from schemas.parse import dump, parse_message
from schemas.transaction import Transaction
from tests.unit.infra.mappings import map_row, mapping, written

COLUMNS = ["id", "customer", "ts", "amount", "category", "note"]


def test_short_form_is_a_column() -> None:
    row = map_row(mapping(merchant_id="note"), note="Shop 7")
    assert row.message == {
        "transaction_id": "t1",
        "customer_id": "c1",
        "event_time": "2026-03-01T10:00:00.000Z",
        "amount": "12.50",
        "currency": "EUR",
        "merchant_id": "Shop 7",
    }


def test_column_names_that_look_like_numbers_are_text() -> None:
    assert mapping(merchant_id="2020").uses()["2020"] == ["merchant_id"]


@pytest.mark.parametrize("missing", ["transaction_id", "customer_id", "event_time", "amount", "currency"])
def test_required_fields_are_required(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"mapping: {missing}: is required"):
        mapping(**{missing: None})


def test_every_missing_field_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match="amount: is required; currency: is required"):
        mapping(amount=None, currency=None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"ammount": "x"},
            r"ammount: no such field or option; did you mean 'amount'\?.*fields are transaction_id",
        ),
        ({"skip": "x"}, r"skip: no such field or option; did you mean 'skip_if'\?"),
        ({"source": "x"}, "source: no such field or option"),
        ({"fields": "{}"}, "fields: no such field or option"),
        ({"schema_version": "x"}, "schema_version: no such field"),
        ({"amount": "{column: a, scal: 2}"}, r"amount.scal: no such option; did you mean 'scale'\?"),
        (
            {"event_time": "{column: a, fromat: iso}"},
            r"event_time.fromat: no such option; did you mean 'format'\?",
        ),
        ({"label": "note"}, r"label: say which column and which of its cells mean fraud: \{column"),
        ({"label": "{column: a, fraud: 1, tim: b}"}, r"label.tim: no such option; did you mean 'time'\?"),
        (
            {"label": "{column: a, fraud: 1, time: {column: b, zone: UTC}}"},
            r"label.time.zone: .*'timezone'\?",
        ),
        ({"skip_if": "{column: a, equal: 1}"}, r"skip_if.0.equal: no such option; did you mean 'equals'\?"),
        ({"csv": "{delimeter: ;}"}, r"csv.delimeter: no such option; did you mean 'delimiter'\?"),
        ({"amount": "{}"}, "amount: needs exactly one of column, columns, product.*gives none"),
        ({"amount": "{column: a, constant: 1}"}, "needs exactly one of .*; it gives column and constant"),
        ({"event_time": "{column: a, columns: [b]}"}, "it gives column and columns"),
        ({"amount": "[a, b]"}, "amount.column: Input should be a valid string"),
        ({"event_time": "{column: a, format: datetime}"}, "'datetime' is none of iso, epoch_s"),
        ({"event_time": "{column: a, format: hours}"}, "since goes with a format of seconds"),
        ({"event_time": "{column: a, format: months, since: 2020-01-31}"}, "months need a day that each"),
        ({"event_time": "{column: a, since: 2020-01-01T00:00:00Z}"}, "since goes with a format of seconds"),
        (
            {"event_time": "{column: a, timezone: Prague}"},
            "event_time.timezone: no time zone is called 'Prague'",
        ),
        ({"timezone": "Mars"}, "timezone: no time zone is called 'Mars'"),
        ({"decimal": ";"}, "decimal: Input should be '.' or ','"),
        ({"kind": "customers"}, "kind: Input should be 'transactions'"),
        ({"label": "{column: a}"}, "label.fraud: Field required"),
        ({"label": "{column: a, fraud: []}"}, "label.fraud: .*at least 1"),
        ({"label": "{column: a, fraud: 1, delay: week}"}, "label.delay: is not a length of time"),
        ({"skip_if": "{column: a}"}, "skip_if.0: needs exactly one of at_least.*gives none"),
        ({"skip_if": "[{column: a, equals: 1, empty: true}]"}, "it gives empty and equals"),
        ({"csv": "{encoding: klingon}"}, "csv.encoding: no encoding is called 'klingon'"),
        ({"csv": "{encoding: hex}"}, "csv.encoding: no encoding is called 'hex'"),
        ({"csv": "{delimiter: ab}"}, "csv.delimiter"),
        ({"currency": "{constant: }"}, "currency: constant is empty"),
        ({"currency": "{constant: EUR, prefix: x}"}, "prefix: not with constant"),
        ({"transaction_id": "{row_number: true, split: x, part: 1}"}, "part, split: not with row_number"),
        ({"direction": "{sign_of: a, positive: debit}"}, "sign_of needs positive and negative"),
        ({"direction": "{column: a, positive: debit}"}, "positive: only with sign_of"),
        ({"latitude": "{column: a, split: ' '}"}, "split and part go together"),
        ({"latitude": "{column: a, range: [90, -90]}"}, "range is .lowest, highest."),
        ({"attributes": "{Risk: a}"}, "attributes: 'Risk' cannot be a name: lower-case letters"),
        (
            {"attributes": "{balance_before: a}"},
            "'balance_before' is a field of transactions: write it beside",
        ),
        (
            {"attributes": "[none]"},
            "column 'none' would be called 'none', which is the word for no attribute",
        ),
        ({"attributes": "a"}, r"attributes: write names of columns, \[a, b\], or rules under names"),
        ({"attributes": ""}, r"attributes: write names of columns"),
        (
            {"attributes": "[{column: a}]"},
            "attributes: a list holds names of columns; write a rule under a name",
        ),
        (
            {"attributes": "{risk: {constant: '" + "x" * 129 + "'}}"},
            "attributes.risk.constant: .* at most 128",
        ),
        ({"attributes": "{risk: {colum: a}}"}, r"attributes.risk.colum: no such option; did you mean"),
        ({"attributes": "[Risk Score, risk_score]"}, "would both be called 'risk_score': give them names"),
        (
            {"attributes": "[1st]"},
            "column '1st' would be called '1st', which cannot be a name: .*{name: column}",
        ),
        ({"attributes": "[\u91d1\u984d]"}, "would be called '', which cannot be a name"),
        ({"note": None, "account_id": "{column: a, join: '-'}"}, "join is for columns"),
    ],
)
def test_a_wrong_mapping_is_refused_and_says_where(change: dict[str, str | None], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        mapping(**change)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"direction": "{column: a, values: {x: in}}"},
            "direction.values: x: 'in' is not a value of direction",
        ),
        ({"direction": "{column: a, values: {x: debit}, default: out}"}, "direction.default: 'out' is not"),
        (
            {"direction": "{sign_of: a, positive: debit, negative: minus}"},
            "direction.negative: 'minus' is not",
        ),
        ({"direction": "{filled: {a: debit, b: kredit}}"}, "direction.filled: b: 'kredit' is not"),
        (
            {"currency": "{constant: Euro}"},
            "currency.constant: 'Euro' is not a value of currency: not an ISO 4217",
        ),
        ({"currency": "{constant: EURO}"}, "currency.constant"),
        ({"merchant_country": "{constant: France}"}, "merchant_country.constant: 'France'"),
        ({"merchant_category": "{column: a, values: {x: 742}}"}, "merchant_category.values: x: 742 is not"),
        ({"amount": "{constant: -1}"}, "amount.constant: -1 is not a value of amount"),
        ({"amount": "{constant: much}"}, "amount.constant: 'much' is not a number"),
        ({"card_present": "{constant: perhaps}"}, "card_present.constant: 'perhaps'"),
        ({"latitude": "{column: a, default: 91}"}, "latitude.default: 91 is not"),
    ],
)
def test_values_the_schema_does_not_allow_are_refused(change: dict[str, str | None], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        mapping(**change)


def test_values_the_schema_allows_pass_in_any_notation() -> None:
    mapping(
        merchant_category="{column: a, values: {x: 5411, y: '0742', z: 0742}}",
        merchant_country="{constant: NO}",
        card_present="{column: a, values: {x: true, y: no}}",
        direction="{column: a, values: {x: debit, y: null}}",
    )


def test_a_missing_column_is_named_with_the_ones_there_are() -> None:
    rules = mapping(merchant_id="catgory")
    with pytest.raises(ConfigError) as refused:
        rules.check(COLUMNS)
    assert str(refused.value) == (
        "mapping: merchant_id: the file has no column 'catgory'; did you mean 'category'? "
        "(its columns are id, customer, ts, amount, category, note)"
    )


def test_all_missing_columns_are_named_at_once_with_every_reader() -> None:
    rules = mapping(
        merchant_id="shop",
        device_id="shop",
        label="{column: fraud, fraud: 1, time: known}",
        skip_if="[{column: state, equals: x}]",
        latitude="{product: [north, amount]}",
        direction="{filled: {paid: debit, amount: credit}}",
    )
    with pytest.raises(ConfigError) as refused:
        rules.check(COLUMNS)
    said = str(refused.value)
    for expected in ("merchant_id and device_id: the file has no column 'shop'", "latitude: ", "direction: "):
        assert expected in said
    for expected in (
        "label: the file has no column 'fraud'",
        "label: the file has no column 'known'",
        "skip_if: ",
    ):
        assert expected in said


def test_a_column_twice_in_the_file_is_refused_only_where_it_is_read() -> None:
    mapping().check([*COLUMNS, "note", "note"])
    with pytest.raises(ConfigError, match="customer_id: the file has 2 columns called 'customer'"):
        mapping().check([*COLUMNS, "customer"])


def test_a_mapping_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "bank.yaml"
    path.write_text(written(currency=None))
    with pytest.raises(ConfigError, match=r"^bank\.yaml: currency: is required"):
        Mapping.load(path)


def test_hints_ignore_case_and_stay_silent_when_nothing_is_near() -> None:
    assert did_you_mean("AMOUNT_", ["Amount"]) == "; did you mean 'Amount'?"
    assert did_you_mean("zzz", ["Amount"]) == ""


def test_every_field_of_a_transaction_can_be_mapped() -> None:
    simple = {name: name for name in FIELDS if name not in {"event_time"}}
    rules = mapping(**simple)
    assert set(rules.fields) | {"event_time"} == set(FIELDS)


def test_attributes_are_called_as_their_columns_unless_they_are_given_names() -> None:
    named = mapping(attributes="{risk: Risk Score, domain: {column: E-Mail, split: '@', part: 1}}")
    listed = mapping(attributes="[Risk Score, E-Mail]")
    assert list(named.attributes) == ["risk", "domain"]
    assert list(listed.attributes) == ["risk_score", "e_mail"]
    assert listed.uses()["E-Mail"] == ["attributes.e_mail"]
    with pytest.raises(ConfigError, match=r"attributes\.risk: the file has no column 'Risk Score'"):
        named.check(["id", "customer", "ts", "amount", "E-Mail"])


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"a": "12.50", "b": "example.org"}, {"one": 12.5, "two": "example.org"}),
        ({"a": 12.5, "b": True}, {"one": 12.5, "two": True}),
        ({"a": "007", "b": "1e3"}, {"one": 7.0, "two": 1000.0}),
        ({"a": 1e300, "b": float("inf")}, {"one": "1e+300"}),
        ({"a": "1e-70", "b": "True"}, {"one": "1e-70", "two": "True"}),
        ({"a": 1526776247603, "b": "12345678901234"}, {"one": 1526776247603, "two": 12345678901234}),
        ({"a": "", "b": "x"}, {"two": "x"}),
        ({"a": 1 / 3, "b": float("nan")}, {"one": 0.3333333333}),
        ({"a": None, "b": "NA"}, None),
    ],
)
def test_a_cell_of_an_attribute_is_a_number_where_it_is_one(
    cells: dict[str, object], said: dict[str, object] | None
) -> None:
    row = map_row(mapping(empty="[NA]", attributes="{one: a, two: b}"), **cells)
    assert row.transaction is not None
    assert row.transaction.attributes == said


def test_numbers_of_attributes_have_the_files_decimal_point() -> None:
    row = map_row(mapping(decimal="','", attributes="{one: a, two: b}"), amount="1,00", a="2,5", b="2.5x")
    assert row.transaction is not None
    assert row.transaction.attributes == {"one": 2.5, "two": "2.5x"}


def test_an_attribute_that_is_too_long_refuses_its_row_and_says_which() -> None:
    row = map_row(mapping(attributes="{one: a}"), a="x" * 129)
    assert row.problem is not None
    assert row.problem.startswith("attributes.one: ")


@pytest.mark.parametrize(
    ("rule", "cell", "said"),
    [
        ("{column: a, prefix: p}", "0012", "p0012"),
        ("{column: a, zero_pad: 6}", 411111.0, "411111"),
        ("{column: a, zero_pad: 6}", "12", "000012"),
        ("{column: a, case: lower}", "1E5", "1e5"),
        ("{column: a, scale: 0.001}", 1526776247604, 1526776248.0),
        ("{column: a, split: '@', part: 1}", "who@example.org", "example.org"),
    ],
)
def test_what_is_made_letter_by_letter_stays_as_it_is_made(rule: str, cell: object, said: object) -> None:
    row = map_row(mapping(attributes=f"{{one: {rule}}}"), a=cell)
    assert row.transaction is not None
    assert row.transaction.attributes == {"one": said}


def test_a_card_number_is_not_cut_to_look_like_none() -> None:
    for cell in ("4111111111111111", 4111111111111111, 4111111111111111.0):
        row = map_row(mapping(attributes="{one: a}"), a=cell)
        assert row.problem is not None
        assert "attributes.one holds a raw card number" in row.problem
    rules = mapping(attributes="{one: {column: a, pseudonym: salt}}")
    one, other = (map_row(rules, a=cell).transaction for cell in ("4111111111111111", "4111111111111112"))
    assert one is not None
    assert other is not None
    assert one.attributes != other.attributes


@pytest.mark.parametrize(
    "cell", ["12.50", 12.5, "0012", 12, "True", "true", True, "x ", " x", "1e-70", 1e300]
)
def test_a_file_and_a_message_say_the_same_of_a_cell(cell: Any) -> None:
    chosen = attribute_features("one")
    row = map_row(mapping(attributes="{one: a}"), a=cell)
    assert row.message is not None
    assert row.transaction is not None
    sent = parse_message(Transaction, dump({**row.message, "attributes": {"one": cell}}))
    of_file, of_message = (attribute_values(chosen, [t]) for t in (row.transaction, sent))
    assert of_file.tobytes() == of_message.tobytes()
