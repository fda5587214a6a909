import orjson
import pytest

from schemas.dead_letter import DeadLetter
from schemas.errors import EventError
from stream_app.dead_letter import MAX_KEY_BYTES, dead_letter
from tests.streaming import Record

REFUSED = EventError("not_json", "the message is not JSON")
BATCH_BYTES = 900_000


def letter_of(
    value: bytes | None, key: bytes | None = b"c-1", timestamp: int = 1_767_225_600_000
) -> DeadLetter:
    outgoing = dead_letter(Record("transactions", 3, 17, value, key, timestamp), REFUSED)
    assert (outgoing.topic, outgoing.partition) == ("transactions.dlq", 3)
    assert len(outgoing.value) + len(outgoing.key or b"") < BATCH_BYTES
    return DeadLetter.model_validate_json(outgoing.value)


def test_letter_says_what_why_and_from_where() -> None:
    letter = letter_of(b"{oops")
    assert letter.reason == "not_json"
    assert letter.detail == "the message is not JSON"
    assert letter.source.model_dump() == {"topic": "transactions", "partition": 3, "offset": 17}
    assert letter.published_at is not None
    assert letter.published_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert (letter.key, letter.payload) == ("c-1", "{oops")


def test_it_has_the_key_of_the_record() -> None:
    assert dead_letter(Record("transactions", 3, 17, b"", b"c-1"), REFUSED).key == b"c-1"
    assert dead_letter(Record("transactions", 3, 17, b"", None), REFUSED).key is None


def test_a_repeat_is_byte_for_byte_the_same() -> None:
    record = Record("labels", 0, 1, b"{oops", b"c-1")
    assert dead_letter(record, REFUSED) == dead_letter(record, REFUSED)


# The last three are microseconds, nanoseconds and what a sender without a clock says.
@pytest.mark.parametrize("timestamp", [0, -1, 1_781_341_200_000_000, 2**63 - 1, 1])
def test_unknown_time_is_null_and_so_is_one_that_cannot_be(timestamp: int) -> None:
    assert letter_of(b"", timestamp=timestamp).published_at is None


def test_card_numbers_are_masked_in_payload_and_key() -> None:
    outgoing = dead_letter(
        Record("transactions", 0, 0, b'{"card": "4111111111111111"}', b"4111111111111111"), REFUSED
    )
    assert outgoing.key == b"************1111"
    assert b"4111111111111111" not in outgoing.value
    letter = orjson.loads(outgoing.value)
    assert letter["key"] == "************1111"
    assert "payload_sha256" not in letter


@pytest.mark.parametrize("key", [b"k" * 950_000, b"\x00" * 900_000, b"\xff" * 900_000])
def test_a_key_as_long_as_a_message_still_fits(key: bytes) -> None:
    """A letter too large for a batch could never be published: the worker would end for ever again."""
    letter = letter_of(b"\x00" * 900_000, key)
    assert letter.key is not None
    assert len(letter.key) <= MAX_KEY_BYTES
    assert letter.payload_truncated


def test_bytes_that_are_no_text_are_kept_too() -> None:
    letter = letter_of(b"\xff\xfe", b"\xff")
    assert (letter.payload, letter.payload_encoding) == ("//4=", "base64")
    assert letter.key == "�"


def test_null_value() -> None:
    letter = letter_of(None)
    assert letter.payload is None
    assert letter.payload_bytes == 0


@pytest.mark.parametrize("value", [b'{"email": "some.body@example.org"}', b"some.body@example.org, not JSON"])
def test_a_profile_is_not_repeated(value: bytes) -> None:
    outgoing = dead_letter(Record("customers", 3, 17, value, b"c-1"), REFUSED)
    assert b"some.body" not in outgoing.value
    letter = DeadLetter.model_validate_json(outgoing.value)
    assert (letter.payload, letter.payload_bytes, letter.payload_truncated) == (None, len(value), True)
    assert letter.payload_sha256 is None
