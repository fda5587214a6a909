"""What several modules' tests of models look at."""

from collections.abc import Sequence

import pytest

from models.model_set import Models
from schemas.label import Label
from schemas.topics import LABELS, TRANSACTIONS
from schemas.transaction import Transaction
from tests.scoring import Scored, score_in_chunks, transactions_of
from tests.streaming import DAY_MS, START_MS, Stream, label

T, L = TRANSACTIONS.name, LABELS.name


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


@pytest.fixture
async def written(models: Models) -> Stream:
    """Sixty transactions of three customers, some twice, some bad, with labels among them."""
    stream = Stream(models)
    stream.transact(30)
    stream.kafka.put(T, 0, b"not json")
    stream.transact(1, first=4)
    stream.transact(29, first=30)
    await stream.start()
    await stream.run([7, 11, 5], topics=[T])
    for number in (1, 1, 4, 99, 7):
        stream.kafka.put(L, 0, label(f"t-{number}", customer="c-1", at_ms=START_MS + 5 * DAY_MS))
    stream.kafka.put(L, 0, b"bad")
    await stream.run()
    stream.transact(12, first=59)
    await stream.run()
    return stream
