import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import MAX_PAYLOAD_BYTES, DeadLetter, describe_payload
from schemas.score import Source

CARD = b"4111111111111111"
SOURCE = Source(topic="transactions", partition=3, offset=17)


def letter(value: bytes | None) -> DeadLetter:
    return DeadLetter(reason="not_json", detail="no", source=SOURCE, **describe_payload(value))


def test_payload_is_kept_as_it_came():
    found = letter('{"note": "Zoë"}'.encode())

    assert found.payload == '{"note": "Zoë"}'
    assert (found.payload_encoding, found.payload_bytes, found.payload_truncated) == ("utf-8", 16, False)
    assert found.payload_sha256 == hashlib.sha256('{"note": "Zoë"}'.encode()).hexdigest()


def test_null_value_stays_null():
    found = letter(None)

    assert (found.payload, found.payload_bytes, found.payload_sha256) == (None, 0, None)


def test_empty_value_is_not_null():
    assert (letter(b"").payload, letter(b"").payload_bytes) == ("", 0)


def test_bytes_that_are_no_text_are_kept_as_base64():
    found = letter(b"\xff\x00\xfe")

    assert found.payload_encoding == "base64"
    assert base64.b64decode(found.payload) == b"\xff\x00\xfe"


@pytest.mark.parametrize(
    "value",
    [
        b'{"merchant_id": "' + CARD + b'"}',
        b'{"note": "the card 4111-1111-1111-1111 was lost"}',
        b'{"note": 4111111111111111',
        b'{"merchant_id": 4.111111111111111e15}',
        b"\xff\xff" + CARD + b"\xff",
        b"{" + b'"x' * 10 + CARD,
    ],
)
def test_card_numbers_are_masked_and_leave_no_digest(value):
    found = letter(value)
    kept = base64.b64decode(found.payload) if found.payload_encoding == "base64" else found.payload.encode()

    assert b"************1111" in kept
    assert b"4111" not in kept.replace(b"*1111", b"")
    assert found.payload_sha256 is None


def test_long_payload_is_cut_between_characters():
    value = b"x" + "é".encode() * MAX_PAYLOAD_BYTES
    found = letter(value)

    assert found.payload == "x" + "é" * (MAX_PAYLOAD_BYTES // 2 - 1)
    assert found.payload_truncated
    assert found.payload_bytes == len(value)
    assert found.payload_sha256 == hashlib.sha256(value).hexdigest()


def test_long_payload_that_is_no_text_loses_no_byte_of_what_is_kept():
    value = b"\xff\x00" * MAX_PAYLOAD_BYTES
    found = letter(value)

    assert found.payload_encoding == "base64"
    assert base64.b64decode(found.payload) == value[:MAX_PAYLOAD_BYTES]


def test_payload_of_the_longest_length_is_not_called_cut():
    assert not letter(b"x" * MAX_PAYLOAD_BYTES).payload_truncated
    assert letter(b"x" * (MAX_PAYLOAD_BYTES + 1)).payload_truncated


@given(st.binary(max_size=200))
def test_any_bytes_make_a_letter_that_reads_back(value):
    found = letter(value)

    assert DeadLetter.model_validate_json(found.model_dump_json()) == found
    if found.payload_sha256 is not None:
        kept = (
            found.payload.encode() if found.payload_encoding == "utf-8" else base64.b64decode(found.payload)
        )
        assert kept == value
