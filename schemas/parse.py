"""Bytes to messages: the one place that decides what is accepted and words the refusal."""

from typing import TypeVar

import orjson
from pydantic import ValidationError

from schemas.card_number import card_number_field, mask_card_numbers
from schemas.errors import EventError
from schemas.fields import Message

MAX_MESSAGE_BYTES = 64 * 1024
FUTURE_TOLERANCE_MS = 24 * 3600 * 1000

# The codes that `money.to_minor` gives for what only rounding or the currency decides.
_AMOUNT_REASONS = {"greater_than": "amount_not_positive", "less_than_equal": "amount_too_large"}

M = TypeVar("M", bound=Message)


def parse_message(model: type[M], raw: bytes | None) -> M:
    """Validate one message.

    Raises:
        EventError: With a reason code and a sentence that names the field. The sentence never
            repeats a value: values may be personal data.
    """
    if not raw:
        raise EventError("empty", "the message has no value; send one JSON object per message")
    if len(raw) > MAX_MESSAGE_BYTES:
        raise EventError(
            "too_large", f"the message is {len(raw)} bytes long; the limit is {MAX_MESSAGE_BYTES}"
        )
    if (field := card_number_field(raw)) is not None:
        raise EventError("card_number", f"{field} holds a raw card number; send a token instead (card_token)")
    try:
        return model.model_validate_json(raw)
    except ValidationError as invalid:
        raise refusal(invalid, raw) from None


def refusal(invalid: ValidationError, raw: bytes | None = None) -> EventError:
    """An error a person understands, from pydantic's list."""
    errors = invalid.errors(include_url=False, include_input=False, include_context=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        return _not_json(raw or b"", first["msg"])
    if first["type"] in {"model_type", "model_attributes_type"} and not first["loc"]:
        return EventError(
            "not_an_object", "the message is JSON but not an object; send one object per message"
        )
    reason = _AMOUNT_REASONS.get(first["type"]) if first["loc"] == ("amount",) else None
    problems = [f"{_place(error['loc'])}: {_tidy(error['msg'])}" for error in errors]
    return EventError(reason or "invalid_field", "; ".join(problems))


def _place(loc: tuple[int | str, ...]) -> str:
    # Names of attributes are the sender's text; behind one stands what kind of value it was taken for.
    loc = loc[:2] if loc[:1] == ("attributes",) else loc
    return mask_card_numbers(".".join(map(str, loc)).encode()).decode() or "message"


def _tidy(text: str) -> str:
    return text.removeprefix("Value error, ")


def _not_json(raw: bytes, message: str) -> EventError:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        return EventError("invalid_encoding", f"the message is not UTF-8 (byte {bad.start})")
    return EventError("not_json", f"the message is not JSON: {_tidy(message)}")


def check_not_future(time_ms: int, published_ms: int | None, field: str = "event_time") -> None:
    """Refuse an event that says it happened more than a day after it was published.

    The broker's time of the message is used, not a clock, so that a replay decides the same.

    Raises:
        EventError: The event is from the future.
    """
    if published_ms is not None and published_ms > 0 and time_ms > published_ms + FUTURE_TOLERANCE_MS:
        raise EventError(
            "event_from_the_future",
            f"{field}: more than a day after the message was published; check the sender's clock and unit",
        )


def dump(document: object) -> bytes:
    """JSON bytes as every topic carries them."""
    return orjson.dumps(document)
