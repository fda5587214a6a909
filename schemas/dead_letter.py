"""What could not be accepted: why, from where, and the bytes themselves."""

import base64
import codecs
import hashlib
from typing import Literal

from pydantic import Field

from schemas.card_number import mask_card_numbers
from schemas.fields import Message, Moment
from schemas.score import Source

MAX_PAYLOAD_BYTES = 64 * 1024
"""Longest payload kept. JSON may write six characters for a byte: this stays below a broker's 1 MB."""

ReasonCode = Literal[
    "not_json",
    "not_an_object",
    "empty",
    "too_large",
    "invalid_encoding",
    "invalid_field",
    "amount_not_positive",
    "amount_too_large",
    "event_from_the_future",
    "card_number",
    "duplicate_transaction",
    "unknown_transaction",
    "unknown_customer",
]


class DeadLetter(Message):
    """One refused message. Nothing is lost: what is cut off here is still at `source`."""

    reason: ReasonCode
    detail: str = Field(description="What is wrong, where, and what to do.")
    source: Source
    published_at: Moment | None = Field(
        default=None, description="The log's time of the refused message; null where it cannot be one."
    )
    key: str | None = None
    payload: str | None = Field(
        description="The message's bytes, card numbers masked; null for a null value and for profiles."
    )
    payload_encoding: Literal["utf-8", "base64"] = "utf-8"
    payload_bytes: int = Field(ge=0, description="Length before cutting.")
    payload_truncated: bool = False
    payload_sha256: str | None = Field(default=None, description="Of the bytes as received.")


def describe_payload(value: bytes | None) -> dict[str, object]:
    """The payload fields of a `DeadLetter` for the bytes received.

    A message with a card number has no digest: a hash of a short secret can be searched for.
    """
    if value is None:
        return {"payload": None, "payload_bytes": 0}
    masked = mask_card_numbers(value)
    cut = masked[:MAX_PAYLOAD_BYTES]
    described: dict[str, object] = {
        "payload_bytes": len(value),
        "payload_truncated": len(masked) > MAX_PAYLOAD_BYTES,
    }
    if masked == value:
        described["payload_sha256"] = hashlib.sha256(value).hexdigest()
    try:
        # Not final where it was cut: the cut may go through a character.
        decoder = codecs.getincrementaldecoder("utf-8")()
        described["payload"] = decoder.decode(cut, final=len(cut) == len(masked))
    except UnicodeDecodeError:
        described["payload"] = base64.b64encode(cut).decode()
        described["payload_encoding"] = "base64"
    return described
