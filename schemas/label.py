"""What was found out later: a transaction was fraud, or was not; a customer has left."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.fields import Identifier, Message, Moment, to_epoch_ms
from schemas.parse import check_not_future, parse_message

LabelValue = Literal["fraud", "genuine", "account_closed"]


class Label(Message):
    """One finding. Fraud labels name a transaction; `account_closed` names only the customer."""

    label_id: Identifier | None = Field(default=None, description="For the sender's own reference.")
    customer_id: Identifier
    transaction_id: Identifier | None = None
    label: LabelValue
    label_time: Moment = Field(description="When it became known, not when the transaction happened.")
    source: Literal["chargeback", "analyst", "customer", "system"] | None = None

    @model_validator(mode="after")
    def _names_its_subject(self) -> Self:
        if self.label != "account_closed" and self.transaction_id is None:
            raise ValueError("a fraud or genuine label needs the transaction_id it is about")
        return self

    @property
    def label_time_ms(self) -> int:
        """When it became known, in milliseconds since 1970."""
        return to_epoch_ms(self.label_time)


def read_label(raw: bytes | None, published_ms: int | None) -> Label:
    """A label as it stands on its topic.

    Args:
        raw: The message.
        published_ms: The broker's time of it.

    Raises:
        EventError: It cannot be read, or is told of a time more than a day after it was published: if it were
            taken, it would keep the right one of the same transaction out until then.
    """
    label = parse_message(Label, raw)
    check_not_future(label.label_time_ms, published_ms, "label_time")
    return label
