import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.customer import Customer
from schemas.dead_letter import ReasonCode
from schemas.errors import EventError
from schemas.fields import Message
from schemas.label import Label
from schemas.parse import FUTURE_TOLERANCE_MS, MAX_MESSAGE_BYTES, check_not_future, dump, parse_message
from schemas.transaction import Transaction

CARD = "4111111111111111"
EVENT = {
    "transaction_id": "t-1",
    "customer_id": "c-1",
    "event_time": "2026-03-01T10:30:00+01:00",
    "amount": "12.30",
    "currency": "EUR",
}
REASONS = get_args(ReasonCode)
INBOUND = (Transaction, Label, Customer)


def refused(model: type[Message], raw: bytes | None) -> EventError | None:
    """The refusal of a message, `None` where it is accepted; any other error fails the test."""
    try:
        message = parse_message(model, raw)
        if isinstance(message, Transaction):
            assert message.amount_minor > 0
    except EventError as refusal:
        return refusal
    return None


def refusal(raw: bytes | None) -> tuple[str, str]:
    found = refused(Transaction, raw)
    assert found is not None
    return found.reason, str(found)


def event(**fields: Any) -> bytes:
    return json.dumps({**EVENT, **fields}).encode()


@pytest.mark.parametrize(
    ("raw", "reason", "sentence"),
    [
        (None, "empty", "the message has no value; send one JSON object per message"),
        (b"", "empty", "the message has no value; send one JSON object per message"),
        (b"   ", "not_json", "the message is not JSON: Invalid JSON: EOF while parsing a value"),
        (b"{", "not_json", "the message is not JSON: Invalid JSON: EOF while parsing an object"),
        (b'{"a": 1} x', "not_json", "the message is not JSON: Invalid JSON: trailing characters"),
        (b"transaction_id=t-1", "not_json", "the message is not JSON: "),
        (b'{"a": "\\ud800"}', "not_json", "the message is not JSON: "),
        (b"[" * 10_000, "not_json", "the message is not JSON: Invalid JSON: recursion limit exceeded"),
        (
            b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
            "not_json",
            "the message is not JSON: Invalid JSON: recursion limit exceeded",
        ),
        (b'{"a": ' + b"1" * 5000 + b"}", "not_json", "the message is not JSON: "),
        (b"\xff\xfe{}", "invalid_encoding", "the message is not UTF-8 (byte 0)"),
        (b'{"merchant_id": "caf\xe9"}', "invalid_encoding", "the message is not UTF-8 (byte 20)"),
        (b"null", "not_an_object", "the message is JSON but not an object; send one object per message"),
        (b"[]", "not_an_object", "the message is JSON but not an object; send one object per message"),
        (b'"text"', "not_an_object", "the message is JSON but not an object; send one object per message"),
        (b"17", "not_an_object", "the message is JSON but not an object; send one object per message"),
        (b"NaN", "not_an_object", "the message is JSON but not an object; send one object per message"),
        (event(note="x" * MAX_MESSAGE_BYTES), "too_large", f"bytes long; the limit is {MAX_MESSAGE_BYTES}"),
        (event(amount=0), "amount_not_positive", "amount: Input should be greater than 0"),
        (event(amount="-12.30"), "amount_not_positive", "amount: Input should be greater than 0"),
        (event(amount=1e308), "amount_too_large", "amount: Input should be less than or equal to"),
        (event(amount="1e999999999999"), "amount_too_large", "amount: Input should be less than"),
        (event(amount=float("nan")), "invalid_field", "amount: Input should be a finite number"),
        (event(amount=float("inf")), "invalid_field", "amount: Input should be a finite number"),
        (event(amount="NaN"), "invalid_field", "amount: Input should be a finite number"),
        (
            event(currency="eur"),
            "invalid_field",
            "currency: not an ISO 4217 currency code in capitals, for example EUR",
        ),
        (event(event_time="2026-03-01T09:30:00"), "invalid_field", "event_time: a time needs an offset"),
        (event(event_time="2026-03-01"), "invalid_field", "event_time: a time is RFC 3339 text"),
        (event(channel="fax"), "invalid_field", "channel: Input should be 'pos', 'ecommerce'"),
        (b"{}", "invalid_field", "transaction_id: Field required; customer_id: Field required; event_time: "),
        (
            event(card_token=CARD),
            "card_number",
            "card_token holds a raw card number; send a token instead (card_token)",
        ),
        (event(extra={"pan": int(CARD)}), "card_number", "extra.pan holds a raw card number"),
        (
            event(transaction_id="4111 1111 1111 1111"),
            "card_number",
            "transaction_id holds a raw card number",
        ),
        (f'"{CARD}"'.encode(), "card_number", "the message holds a raw card number"),
    ],
)
def test_refusal_has_a_reason_and_a_sentence(raw, reason, sentence):
    found, said = refusal(raw)

    assert found == reason
    assert found in REASONS
    assert sentence in said


def test_longest_message_is_accepted():
    padding = MAX_MESSAGE_BYTES - len(event(note=""))

    assert parse_message(Transaction, event(note="x" * padding)).transaction_id == "t-1"
    assert refusal(event(note="x" * (padding + 1)))[0] == "too_large"


@pytest.mark.parametrize("digits", [4299, 4300, 4301])
def test_longest_number_that_a_parser_reads_stops_nothing(digits):
    raw = event(note=0).replace(b'"note": 0', b'"note": ' + b"7" * digits)
    found = refused(Transaction, raw)

    assert found is None or found.reason == "not_json"


def test_several_problems_are_told_at_once():
    _, said = refusal(event(currency="eur", latitude=91, amount="x"))

    assert [problem.split(": ")[0] for problem in said.split("; ")] == ["amount", "currency", "latitude"]


SECRET = "Zq7-Zq7"


@pytest.mark.parametrize("field", [*Transaction.model_fields, "unknown", "unknown nested"])
@pytest.mark.parametrize("wrap", [str, lambda v: [v], lambda v: {v: v}, lambda v: v * 40])
def test_sentence_never_repeats_what_was_sent(field, wrap):
    value = wrap(SECRET)
    raw = event(**({"x": {field: value, "pan": CARD}} if field.startswith("unknown") else {field: value}))
    found = str(refused(Transaction, raw) or "")

    assert SECRET not in found
    assert CARD not in found


@given(st.binary(max_size=300), st.sampled_from(INBOUND))
def test_random_bytes_raise_nothing_but_event_errors(raw, model):
    found = refused(model, raw)

    assert found is None or (found.reason in REASONS and str(found))


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(),
    st.sampled_from([CARD, "2026-03-01T09:30:00Z", "9" * 400, "1e400", "EUR", "-0", "0x10", "\x00"]),
)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(_json, st.sampled_from(INBOUND))
def test_random_json_raises_nothing_but_event_errors(document, model):
    found = refused(model, json.dumps(document).encode())

    assert found is None or found.reason in REASONS


@given(st.dictionaries(st.sampled_from([*Transaction.model_fields]), _json, max_size=4))
def test_random_values_in_known_fields_raise_nothing_but_event_errors(fields):
    found = refused(Transaction, event(**fields))

    assert found is None or found.reason in REASONS


@pytest.mark.parametrize(
    ("event_time_ms", "published_ms"),
    [
        (5_000, 5_000),
        (5_000 + FUTURE_TOLERANCE_MS, 5_000),
        (10**13, None),  # the broker gave no time
        (10**13, -1),
        (10**13, 0),
    ],
)
def test_event_up_to_a_day_ahead_of_its_publication_is_accepted(event_time_ms, published_ms):
    check_not_future(event_time_ms, published_ms)


def test_event_more_than_a_day_ahead_of_its_publication_is_refused():
    with pytest.raises(EventError) as found:
        check_not_future(5_001 + FUTURE_TOLERANCE_MS, 5_000)

    assert found.value.reason == "event_from_the_future"
    assert str(found.value).startswith("event_time: more than a day after the message was published")


def test_dumped_message_is_json():
    assert json.loads(dump({"ö": [1.5, None]})) == {"ö": [1.5, None]}
