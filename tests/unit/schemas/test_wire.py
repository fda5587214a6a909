"""What is read quickly is what would have been read slowly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.record import to_records
from schemas.errors import EventError
from schemas.parse import dump, parse_message
from schemas.transaction import Transaction
from schemas.wire import WireTransaction, read_transaction

PLAIN = {
    "schema_version": 1,
    "transaction_id": "t-1",
    "customer_id": "c-1",
    "event_time": "2026-03-01T02:14:00Z",
    "amount": "1249.90",
    "currency": "EUR",
    "account_id": "a-1",
    "direction": "debit",
    "transaction_type": "purchase",
    "channel": "pos",
    "merchant_id": "m-1",
    "merchant_category": "5411",
    "merchant_country": "FR",
    "latitude": 48.85,
    "longitude": 2.35,
    "device_id": "d-1",
    "ip_address": "10.0.0.1",
    "card_token": "tok-1",
    "counterparty_id": "p-1",
    "card_present": True,
    "balance_before": "2.00",
    "balance_after": "-10.50",
    "attributes": {"risk": 0.5, "domain": "example.org", "vip": True, "gone": None},
    "revision": 2,
}
NEEDED = ("transaction_id", "customer_id", "event_time", "amount", "currency")
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-5, 10**13),
    st.floats(),
    st.text(max_size=140),
    st.sampled_from(list(PLAIN.values())),
    st.dictionaries(
        st.sampled_from(["risk", "Risk", "risk\n", "", "4111111111111111"]),
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=140),
    ),
    st.sampled_from(
        ["", "5411\n", "FR\n", "é" * 64, "é" * 65, "x" * 128, "x" * 129, "\x00", "JPY", "KWD", "eur"]
    ),
    st.sampled_from(
        [" 1.5", "1_0", "1e3", "+1", "01.50", ".5", "5.", "0.004", "0.00", "1.005", "NaN", "\u0661"]
    ),
    st.sampled_from(
        ["999999999999.99", "10000000000000", "-0.0", 10**15, 10**13, 0, -1, 1.0, 90.0000001, -180]
    ),
    st.sampled_from(
        [
            "2026-03-01T02:14:00.123Z",
            "2026-03-01 02:14:00Z",
            "2026-03-01T24:00:00Z",
            "2026-03-01T02:14:60Z",
            "2026-03-01T02:14:00,123Z",
            "2026-W01-1T02:14:00.1Z",
            "2026-02-30T02:14:00Z",
            "2026-03-01T02:14:00+00:00",
            "2026-03-01T02:14:00.120+00:00",
            "2026-03-01T02:14:00.12+00:00",
            "2026-03-01T02:14:00+01:00",
            "2026-03-01T02:14-00:00+00:00",
            "1979-12-31T23:59:59.999Z",
            "2099-12-31T23:59:59.999Z",
            "2026-03-01T02:14:00.12+Z",
            315_532_799_999,
            315_532_800_000,
            4_102_444_800_000,
        ]
    ),
    st.builds(
        lambda moment, zone: moment.isoformat(timespec="milliseconds") + zone,
        st.datetimes(),
        st.sampled_from(["Z", "+00:00", "-00:00", "+0000", "+02:00"]),
    ),
    st.decimals(0, 10**6, places=2).map(str),
)


def agree(raw: bytes) -> WireTransaction | None:
    """Read both ways; the quick one may leave a message to the other, but never differ from it."""
    quick = read_transaction(raw)
    if quick is None:
        return None
    found, minor = quick
    slow = parse_message(Transaction, raw)
    assert minor == slow.amount_minor
    assert to_records([found], [minor]).tobytes() == to_records([slow], [slow.amount_minor]).tobytes()
    assert (found.transaction_id, found.customer_id) == (slow.transaction_id, slow.customer_id)
    assert (float(found.amount), found.currency) == (float(slow.amount), slow.currency)
    assert found.event_time_ms == slow.event_time_ms
    return found


@given(
    st.dictionaries(st.sampled_from([*PLAIN, "note"]), ODD, max_size=4), st.sets(st.sampled_from(list(PLAIN)))
)
def test_it_never_differs_from_the_slow_way(odd, dropped):
    message = {k: v for k, v in PLAIN.items() if k not in dropped or k in NEEDED} | odd
    try:
        raw = dump(message)
    except TypeError:  # an integer that no JSON writer here writes
        raw = str(message).replace("'", '"').encode("utf-8", "replace")
    agree(raw)


@given(st.data())
def test_bytes_that_were_damaged_are_not_read_differently(data):
    raw = bytearray(dump(PLAIN))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    agree(bytes(raw))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"event_time": "2026-03-01T02:14:00.120+00:00"},
        {"event_time": 1_772_331_240_000},
        {"amount": 12},
        {"currency": "JPY", "amount": "12"},
    ],
)
def test_plain_messages_are_read(changed):
    assert agree(dump(PLAIN | changed))
    assert agree(dump({name: (PLAIN | changed)[name] for name in NEEDED}))


@pytest.mark.parametrize("name", ["merchant_id", "transaction_id", "account_id"])
@pytest.mark.parametrize(
    "digits", ["1772331240002", "41117723312400021", "1772331240002 1", "4111-1111-1111-1111"]
)
def test_a_time_of_thirteen_digits_hides_no_card_number(name, digits):
    raw = dump(PLAIN | {"event_time": 1_772_331_240_002, name: digits})
    assert read_transaction(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"[]",
        b"{}",
        b'\xef\xbb\xbf{"amount":1}',
        dump(PLAIN | {"note": 1}),
        dump(PLAIN | {"amount": 12.5}),
        dump(PLAIN | {"merchant_id": "4111 1111 1111 1111"}),
        dump(PLAIN | {"merchant_id": "x" * 70_000}),
        dump(PLAIN).replace(b'"m-1"', b'"\\ud83d"'),
        dump(PLAIN).replace(b'"m-1"', b'"\xff"'),
        dump(PLAIN) + b"x",
    ],
)
def test_what_is_not_plain_is_left_to_the_slow_way(raw):
    assert read_transaction(raw) is None


@pytest.mark.parametrize("name", NEEDED)
def test_of_a_name_that_comes_twice_both_take_the_same(name):
    other = {"event_time": "2027-01-01T00:00:00Z", "amount": "7.01", "currency": "USD"}.get(name, "other")
    for first, second in ((PLAIN[name], other), (other, PLAIN[name])):
        rest = dump({k: v for k, v in PLAIN.items() if k != name})[1:]
        assert agree(dump({name: first})[:-1] + b"," + dump({name: second})[1:-1] + b"," + rest)


def test_it_knows_every_field_of_a_transaction():
    assert set(WireTransaction.__struct_fields__) == set(Transaction.model_fields)


def test_a_refusal_is_still_worded_by_the_slow_way():
    raw = dump(PLAIN | {"currency": "EURO"})
    assert read_transaction(raw) is None
    with pytest.raises(EventError, match="currency: not an ISO 4217"):
        parse_message(Transaction, raw)
