"""The generated bank as commands use it."""

from datetime import UTC, datetime, timedelta

from generator.events import BankEvent
from generator.settings import BankSettings
from schemas.customer import Customer
from schemas.label import Label
from schemas.transaction import Transaction

_FIXED_START = datetime(2025, 3, 1, tzinfo=UTC)


def bank_settings(customers: int, days: int, seed: int, end: datetime | None = None) -> BankSettings:
    """Settings of a bank that ends at `end`, or starts at a fixed day so that seeds repeat."""
    start = _FIXED_START
    if end is not None:
        start = end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    return BankSettings(customers=customers, days=days, seed=seed, start=start)


def parsed(event: BankEvent) -> Transaction | Label | Customer:
    """An event's message, validated."""
    if event.topic == "transactions":
        return Transaction.model_validate(event.message)
    return (Label if event.topic == "labels" else Customer).model_validate(event.message)
