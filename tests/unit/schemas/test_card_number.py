import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.card_number import card_number_field, is_card_number, mask_card_numbers, passes_luhn

CARD = "4111111111111111"
# Of 13 to 19 digits, all with a right check digit.
CARDS = [
    "4222222222222",
    "30569309025904",
    "378282246310005",
    CARD,
    "6304000000000000000",
    "5105105105105100",
]


def with_check_digit(digits: str) -> str:
    return next(digits + check for check in "0123456789" if passes_luhn(digits + check))


@given(st.text("0123456789", min_size=12, max_size=18), st.integers(1, 9))
def test_one_digit_is_the_check_digit_and_nine_are_not(digits, off):
    whole = with_check_digit(digits)
    other = whole[:-1] + str((int(whole[-1]) + off) % 10)

    assert is_card_number(whole)
    assert not is_card_number(other)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("separator", ["", " ", "-"])
def test_card_number_is_found_plain_spaced_and_dashed(card, separator):
    assert is_card_number(separator.join(card[i : i + 4] for i in range(0, len(card), 4)))
    assert is_card_number(f"  {card} ")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "4111111111111112",  # wrong check digit
        "411111111111",  # 12 digits
        with_check_digit("1" * 19),  # 20 digits
        f"tx-{CARD}",
        f"{CARD}x",
        "4111.1111.1111.1111",
        "4111  1111  1111  1111",
        "".join(chr(ord("０") + int(d)) for d in CARD),  # noqa: RUF001 - full-width digits
        "Zoë",
    ],
)
def test_other_text_is_not_a_card_number(value):
    assert not is_card_number(value)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in text)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"merchant_id": CARD}, "merchant_id"),
        ({"a": {"b": [{"c": "4111 1111 1111 1111"}]}}, "a.b.c"),
        ({"a": [[["4111-1111-1111-1111"]]]}, "a"),
        ({"a": int(CARD)}, "a"),
        ({"a": float(CARD)}, "a"),
        ({"a": 9223372036854775807123, "b": int(CARD)}, "b"),
        ({"note": {"amount": "1.00", "of": CARD}}, "note.of"),
        # Text in a field of numbers is no number.
        ({"amount": CARD}, "amount"),
        ({CARD: True}, "a field's name"),
        ({"a": {CARD: True}}, "a, in a field's name"),
        (CARD, "the message"),
        ([int(CARD)], "the message"),
    ],
)
def test_field_with_a_card_number_is_named(document, field):
    assert card_number_field(json.dumps(document).encode()) == field


@pytest.mark.parametrize("value", [CARD, "4111 1111 1111 1111", "4111-1111-1111-1111"])
def test_card_number_in_json_escapes_is_found_and_masked(value):
    raw = f'{{"a": {{"b": "{escaped(value)}"}}}}'.encode()

    assert card_number_field(raw) == "a.b"
    assert mask_card_numbers(raw) == b'{"a": {"b": "************1111"}}'


@pytest.mark.parametrize("name", ["risk", "amount", "balance_after", "income"])
def test_a_card_number_is_found_in_attributes_whatever_they_are_called(name):
    raw = json.dumps({"amount": 1, "attributes": {name: int(CARD)}}).encode()
    assert card_number_field(raw) == f"attributes.{name}"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"event_time": 1767225600003, "amount": 4111111111111111, "balance_after": 4222222222222},
        {"transaction_id": f"tx-{CARD}", "note": f"paid with {CARD}"},
        {"a": "4111111111111112", "b": 4111111111111112, "c": True, "d": None, "e": 4.5, "f": 1e300},
    ],
)
def test_message_without_a_card_number_has_no_such_field(document):
    assert card_number_field(json.dumps(document).encode()) is None


@pytest.mark.parametrize("raw", [b"", b"4111111111111111x", b"\xff" + CARD.encode(), b"[" * 10_000])
def test_what_is_not_json_has_no_fields(raw):
    assert card_number_field(raw) is None


def test_named_field_repeats_no_card_number_and_is_short():
    raw = json.dumps({f"x{CARD}" + "y" * 5000: {"z": CARD}}).encode()

    field = card_number_field(raw)

    assert field is not None
    assert CARD not in field
    assert len(field) <= 128


@pytest.mark.parametrize(
    ("raw", "masked"),
    [
        (b"4111111111111111", b"************1111"),
        (b"card 4111 1111 1111 1111, exp 12/30", b"card ************1111, exp 12/30"),
        (b"tx4111-1111-1111-1111x", b"tx************1111x"),
        (b"\xff\x00" + CARD.encode() + b"\xfe", b"\xff\x00************1111\xfe"),
        (b"1111111111111111 and 411111111111", b"1111111111111111 and 411111111111"),
        # Two in one breath: everything but the last four digits goes.
        (b"4111111111111111 5105105105105100", b"****************************5100"),
        (b'{"a": 4.111111111111111e15}', b'{"a": ************1111}'),
        (b"[411111111111111.1E+1,1.5e3]", b"[************1111,1.5e3]"),
        # Of a hexadecimal id, by chance a card number to a power of ten.
        (b'{"device_id": "d-41111113e8", "d": "41111113e8"}',) * 2,
        (b"1" * 64, b"1" * 64),
        (b"1" * 65, b"*" * 61 + b"1111"),
        # Escapes without a card number stay as they came.
        (b'{"a": "\\u0034\\u0020"}', b'{"a": "\\u0034\\u0020"}'),
    ],
)
def test_card_numbers_are_masked_in_any_bytes(raw, masked):
    assert mask_card_numbers(raw) == masked


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("value", [CARD, "4111 1111 1111 1111"])
def test_card_number_in_wide_characters_is_masked_and_the_rest_can_be_read(encoding, value):
    masked = mask_card_numbers(f'{{"note": "ä", "card": "{value}"}}'.encode(encoding))

    stars = value[:-4].translate(str.maketrans("41", "**")) + "1111"
    assert masked.decode(encoding) == f'{{"note": "ä", "card": "{stars}"}}'


@pytest.mark.parametrize("number", [CARD, f"{CARD}.0", "4.111111111111111e15", "41111111111111110E-1"])
def test_number_that_is_refused_is_masked_however_it_is_written(number):
    raw = f'{{"a": {number}}}'.encode()

    assert card_number_field(raw) == "a"
    assert not re.search(rb"4\.?1111111", mask_card_numbers(raw))


@given(st.binary(), st.sampled_from(CARDS), st.binary())
def test_no_card_number_survives_masking(before, card, after):
    assert card.encode() not in mask_card_numbers(before + card.encode() + after)


@given(st.binary())
def test_masking_twice_changes_nothing(raw):
    assert mask_card_numbers(mask_card_numbers(raw)) == mask_card_numbers(raw)


@pytest.mark.parametrize("digit", [b"1", b"1\0\0\0", b"1.", b"1e"])
def test_megabyte_of_digits_is_masked_in_no_time(digit):
    # No run of ones passes Luhn: every part of it would be tried.
    began = time.process_time()
    mask_card_numbers(digit * (1_000_000 // len(digit)))

    assert time.process_time() - began < 0.5
