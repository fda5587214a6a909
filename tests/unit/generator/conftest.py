"""One stream of a small bank, from September to the end of the year, for all tests that only look."""

from collections import defaultdict

import pytest

from generator.bank import Bank
from generator.events import BankEvent
from generator.settings import BankSettings


@pytest.fixture(scope="session")
def bank() -> Bank:
    return Bank(BankSettings(customers=500, seed=21, days=122, churn_rate=0.08))


@pytest.fixture(scope="session")
def stream(bank: Bank) -> list[BankEvent]:
    return list(bank.events())


@pytest.fixture(scope="session")
def transactions(stream: list[BankEvent]) -> list[BankEvent]:
    return [event for event in stream if event.topic == "transactions"]


@pytest.fixture(scope="session")
def labels(stream: list[BankEvent]) -> list[BankEvent]:
    return [event for event in stream if event.topic == "labels"]


@pytest.fixture(scope="session")
def by_customer(transactions: list[BankEvent]) -> dict[str, list[BankEvent]]:
    found: dict[str, list[BankEvent]] = defaultdict(list)
    for event in transactions:
        found[str(event.message["customer_id"])].append(event)
    return found
