"""A request to erase a customer."""

from hashlib import sha256

from pydantic import Field

from schemas.fields import Identifier, Message, Moment, to_epoch_ms


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


def erased_name(customer_id: str) -> str:
    """What is remembered of an erased customer: a digest, to know the id when it comes again.

    >>> erased_name("c-1") == erased_name("c-1") != erased_name("c-2")
    True
    """
    return sha256(b"erased\0" + customer_id.encode()).hexdigest()[:32]
