"""A customer's profile, the latest version of which counts."""

from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.fields import CountryCode, Identifier, Message, Moment, Part

Contact = Annotated[str, StringConstraints(max_length=256)]


class Customer(Message):
    """A profile. Contact data is personal data: kept encrypted, or not at all where there is no key."""

    customer_id: Identifier
    updated_at: Moment | None = None
    opened_on: date | None = None
    birth_year: int | None = Field(default=None, ge=1880, le=2100)
    country: CountryCode | None = None
    segment: Annotated[str, StringConstraints(max_length=32)] | None = None
    income: Decimal | None = Field(default=None, ge=0, allow_inf_nan=False, description="Yearly.")

    name: Contact | None = None
    email: Contact | None = None
    phone: Contact | None = None
    address: Contact | None = None


CONTACT_FIELDS = frozenset({"name", "email", "phone", "address"})


class SealedContact(Part):
    """Contact data under a key of its own, which is wrapped by a master key."""

    key: str = Field(description="Name of the master key.")
    wrapped: str
    fields: dict[str, str]


class Profile(Message):
    """What the worker keeps of a `Customer`: contact data only sealed."""

    customer_id: Identifier
    updated_at: Moment | None = None
    opened_on: date | None = None
    birth_year: int | None = None
    country: CountryCode | None = None
    segment: str | None = None
    income: Decimal | None = None
    contact: SealedContact | None = None
