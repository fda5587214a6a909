"""What several modules' tests of models look at."""

from collections.abc import Sequence

import pytest

from models.model_set import Models
from schemas.label import Label
from schemas.transaction import Transaction
from tests.scoring import Scored, score_in_chunks, transactions_of


@pytest.fixture(scope="session")
def stream(bank_messages: Sequence[Transaction | Label]) -> list[Transaction]:
    """Five weeks of six customers, the one with most frauds among them."""
    frauds = {m.transaction_id for m in bank_messages if getattr(m, "label", None) == "fraud"}
    everything = transactions_of(bank_messages, 10_000)
    hit = max(
        {t.customer_id for t in everything},
        key=lambda c: sum(t.customer_id == c and t.transaction_id in frauds for t in everything),
    )
    chosen = {hit, *sorted({t.customer_id for t in everything})[:5]}
    first = next(t for t in everything if t.transaction_id in frauds and t.customer_id == hit)
    near = [t for t in everything if t.customer_id in chosen]
    start = max(0, near.index(first) - 60)
    return near[start : start + 260]


@pytest.fixture(scope="session")
def whole(stream: list[Transaction], eager: Models) -> Scored:
    """The same, scored as one chunk."""
    return score_in_chunks(stream, [], eager)
