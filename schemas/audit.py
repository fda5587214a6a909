"""A record of the audit trail, as others read it."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.fields import Message, Moment

Word = Annotated[str, StringConstraints(max_length=256)]


class AuditRecord(Message):
    """Who read, changed or erased what. Customers are under pseudonyms: who has the key finds them."""

    number: int = Field(ge=1, description="Place in the chain of one machine.")
    at: Moment
    event: Literal["asked", "answered", "token"]
    actor: Word = Field(description="The program that asked.")
    tenant: Word | None = None
    action: Word | None = Field(default=None, description="read, score, export, erase, reload ...")
    route: Word | None = None
    subjects: list[Word] = Field(default_factory=list, description="Pseudonyms of customers.")
    status: int | None = Field(default=None, description="Of the answer.")
    request_id: Word | None = None
    address: Word | None = Field(default=None, description="Where a token was asked for from.")
    outcome: Word | None = Field(default=None, description="Of a token: given or why it was refused.")
    key: Word = Field(description="Name of the key of both codes.")
    before: Word = Field(description="Code of the record before this one.")
    code: Word = Field(description="HMAC-SHA-256 over the record as the trail has it.")
