import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import EventError
from schemas.money import CURRENCIES, MAX_AMOUNT_MINOR, to_major
from schemas.parse import dump, parse_message
from schemas.transaction import ATTRIBUTE_NAME, Transaction
from schemas.wire import read_transaction

REQUIRED = {
    "transaction_id": "t-1",
    "customer_id": "c-1",
    "event_time": "2026-03-01T10:30:00+01:00",
    "amount": "12.30",
    "currency": "EUR",
}
short = st.text(min_size=1, max_size=64)


def transaction(**fields: object) -> Transaction:
    return Transaction.model_validate_json(json.dumps({**REQUIRED, **fields}))


def test_required_fields_are_enough():
    t = transaction()

    assert (t.amount_minor, t.event_time_ms, t.is_credit) == (1230, 1_772_357_400_000, False)
    assert t.schema_version == 1
    assert t.merchant_id is None


@pytest.mark.parametrize("field", REQUIRED)
def test_each_required_field_is_required_and_may_not_be_null(field):
    without = {name: value for name, value in REQUIRED.items() if name != field}
    for document in (without, {**REQUIRED, field: None}):
        with pytest.raises(ValidationError) as refused:
            Transaction.model_validate_json(json.dumps(document))
        assert [error["loc"] for error in refused.value.errors()] == [(field,)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("transaction_id", ""),
        ("transaction_id", "x" * 65),
        ("transaction_id", 17),
        ("customer_id", ""),
        ("customer_id", ["c-1"]),
        ("amount", "twelve"),
        ("amount", ""),
        ("amount", True),
        ("amount", [1]),
        ("amount", "12,30"),
        ("amount", "NaN"),
        ("amount", "-Infinity"),
        ("currency", "eur"),
        ("currency", "EURO"),
        ("currency", "ZZZ"),
        ("currency", ""),
        ("account_id", ""),
        ("direction", "DEBIT"),
        ("transaction_type", "gift"),
        ("channel", "fax"),
        ("merchant_id", "x" * 129),
        ("merchant_category", "541"),
        ("merchant_category", "54111"),
        ("merchant_category", "\u0665\u0664\u0661\u0661"),
        ("merchant_category", 5411),
        ("merchant_country", "fr"),
        ("merchant_country", "FRA"),
        ("latitude", 90.1),
        ("longitude", -180.1),
        ("latitude", "north"),
        ("card_present", "perhaps"),
        ("balance_after", "Infinity"),
        ("schema_version", 2),
        ("schema_version", "1"),
        ("schema_version", None),
    ],
)
def test_wrong_field_is_refused_by_name(field, value):
    with pytest.raises(ValidationError) as refused:
        transaction(**{field: value})
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


@pytest.mark.parametrize(
    ("attributes", "place", "words"),
    [
        ({"Risk": 1}, "attributes", "lower-case letters"),
        ({"1st": 1}, "attributes", "beginning with a letter"),
        ({"risk\n": 1}, "attributes", "lower-case letters"),
        ({"x" * 49: 1}, "attributes", "at most 48"),
        ({"risk": [1]}, "attributes.risk", "a number, true or false, a text, or null"),
        ({"risk": {"deep": 1}}, "attributes.risk", "a number, true or false, a text, or null"),
        ({"risk": "x" * 129}, "attributes.risk", "at most 128 characters"),
        ({f"a{i}": i for i in range(257)}, "attributes", "at most 256"),
        ([1], "attributes", "an object"),
        ({"a4111111111111111": "x" * 129}, "attributes.a************1111", "at most 128"),
    ],
)
def test_wrong_attributes_are_refused_by_both_readers_and_named(attributes, place, words):
    raw = dump({**REQUIRED, "attributes": attributes})
    with pytest.raises(EventError) as refused:
        parse_message(Transaction, raw)
    assert str(refused.value).startswith(f"{place}: ")
    assert words in str(refused.value)
    assert read_transaction(raw) is None


def test_attributes_are_numbers_flags_texts_and_nothing():
    said = {"risk": 3, "share": 0.25, "vip": True, "domain": "example.org", "gone": None, "digits": "0042"}
    assert transaction(attributes=said).attributes == said
    assert transaction().attributes is None


def test_unknown_fields_are_accepted_and_kept_out():
    t = transaction(loyalty={"points": [1, 2, {"deep": None}]}, schema="x")

    assert t == transaction()
    assert "loyalty" not in t.model_dump()


def test_ids_that_contain_digits_are_accepted():
    for transaction_id in ("4111111111111112", "tx-4111111111111111", "0", "2026-03-01/000000000001"):
        assert transaction(transaction_id=transaction_id).transaction_id == transaction_id


@pytest.mark.parametrize(
    ("fields", "is_credit"),
    [
        ({}, False),
        ({"direction": "credit"}, True),
        ({"direction": "debit", "transaction_type": "salary"}, False),
        ({"direction": "credit", "transaction_type": "purchase"}, True),
        ({"transaction_type": "salary"}, True),
        ({"transaction_type": "deposit"}, True),
        ({"transaction_type": "refund"}, True),
        ({"transaction_type": "transfer"}, False),
        ({"transaction_type": "fee"}, False),
    ],
)
def test_money_comes_in_by_direction_else_by_type(fields, is_credit):
    assert transaction(**fields).is_credit is is_credit


@pytest.mark.parametrize("amount", ["0.1", 0.1, "1e-1", "0.10"])
def test_amount_keeps_its_decimals_as_text_or_number(amount):
    assert transaction(amount=amount).amount == Decimal("0.1")


def test_message_cannot_be_changed():
    with pytest.raises(ValidationError):
        transaction().amount = Decimal(1)


@st.composite
def transactions(draw):
    currency = draw(st.sampled_from(sorted(CURRENCIES)))
    optional = {
        "account_id": short,
        "direction": st.sampled_from(["debit", "credit"]),
        "transaction_type": st.sampled_from(["purchase", "salary", "fee"]),
        "channel": st.sampled_from(["pos", "atm"]),
        "merchant_id": st.text(max_size=128),
        "merchant_category": st.text("0123456789", min_size=4, max_size=4),
        "merchant_country": st.text("ABCXYZ", min_size=2, max_size=2),
        "latitude": st.floats(-90, 90),
        "longitude": st.floats(-180, 180),
        "device_id": st.text(max_size=128),
        "card_present": st.booleans(),
        "balance_before": st.decimals(-(10**9), 10**9, places=2),
        "balance_after": st.decimals(-(10**9), 10**9, places=2),
        "attributes": st.dictionaries(
            st.from_regex(ATTRIBUTE_NAME, fullmatch=True),
            st.booleans()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=128)
            | st.none(),
            max_size=4,
        ),
    }
    return Transaction(
        transaction_id=draw(short),
        customer_id=draw(short),
        event_time=draw(st.integers(315_532_800_000, 4_102_444_799_999)),
        amount=to_major(draw(st.integers(1, MAX_AMOUNT_MINOR)), currency),
        currency=currency,
        **draw(st.fixed_dictionaries({}, optional=optional)),
    )


@given(transactions())
def test_written_and_read_again_it_is_the_same(t):
    again = Transaction.model_validate_json(t.model_dump_json())

    assert again == t
    assert (again.amount_minor, again.event_time_ms) == (t.amount_minor, t.event_time_ms)
