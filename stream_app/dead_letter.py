"""Refused records as dead letters."""

from typing import Any

from schemas.card_number import mask_card_numbers
from schemas.dead_letter import describe_payload
from schemas.errors import EventError
from schemas.fields import EARLIEST, LATEST, SCHEMA_VERSION, epoch_ms_to_rfc3339, to_epoch_ms
from schemas.parse import dump
from schemas.topics import CUSTOMERS, DEAD_LETTERS
from stream_app.ports import Outgoing
from stream_app.trace import trace_context

MAX_KEY_BYTES = 1024


def dead_letter(record: Any, refused: EventError) -> Outgoing:
    """The dead letter of a Kafka record; it has the record's partition and key.

    Everything in it comes from the record, so a repeat after a crash is byte for byte the same.
    """
    letter = {
        "schema_version": SCHEMA_VERSION,
        "reason": refused.reason,
        "detail": str(refused),
        "source": {"topic": record.topic, "partition": record.partition, "offset": record.offset},
        "published_at": _moment(record.timestamp),
        "key": _key_text(record.key),
        **_payload(record),
    }
    return Outgoing(
        DEAD_LETTERS.name, record.partition, _masked(record.key), dump(letter), trace_context(record.headers)
    )


def _payload(record: Any) -> dict[str, object]:
    if record.topic != CUSTOMERS.name or record.value is None:
        return describe_payload(record.value)
    # Contact data, perhaps in a form that nobody can tell: it is at the source, for who may see that.
    return {"payload": None, "payload_bytes": len(record.value), "payload_truncated": True}


def _moment(timestamp_ms: int | None) -> str | None:
    # The sender's, in whatever unit it took for milliseconds: microseconds are a year that no calendar has.
    if timestamp_ms is None or not to_epoch_ms(EARLIEST) <= timestamp_ms < to_epoch_ms(LATEST):
        return None
    return epoch_ms_to_rfc3339(timestamp_ms)


def _masked(key: bytes | None) -> bytes | None:
    # Cut like the payload: a key as long as a message may be would not fit into any message.
    return None if key is None else mask_card_numbers(key)[:MAX_KEY_BYTES]


def _key_text(key: bytes | None) -> str | None:
    masked = _masked(key)
    return None if masked is None else masked.decode("utf-8", errors="replace")
