"""A request to erase a customer."""

from hashlib import sha256

from pydantic import Field

from schemas.fields import Identifier, Message, Moment, to_epoch_ms
from schemas.parse import check_not_future, parse_message


class Erasure(Message):
    """Erase everything that is kept of a customer, and take nothing older than the request again."""

    erasure_id: Identifier
    customer_id: Identifier
    requested_at: Moment
    requested_by: Identifier | None = Field(default=None, description="The program that asked.")

    @property
    def requested_at_ms(self) -> int:
        """When it was asked for, in milliseconds since 1970."""
        return to_epoch_ms(self.requested_at)


def read_erasure(raw: bytes | None, published_ms: int | None) -> Erasure:
    """A request as it stands on its topic.

    Args:
        raw: The message.
        published_ms: The broker's time of it.

    Raises:
        EventError: It cannot be read, or is of a time more than a day after it was published: if it were
            taken, nothing that the customer does until then would be scored.
    """
    erasure = parse_message(Erasure, raw)
    check_not_future(erasure.requested_at_ms, published_ms, "requested_at")
    return erasure


def erased_name(customer_id: str) -> str:
    """What is remembered of an erased customer: a digest, to know the id when it comes again.

    >>> erased_name("c-1") == erased_name("c-1") != erased_name("c-2")
    True
    """
    return sha256(b"erased\0" + customer_id.encode()).hexdigest()[:32]
