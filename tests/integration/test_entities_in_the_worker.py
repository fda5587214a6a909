"""Features of merchants and devices from real workers: those of one replay in time order, whatever dies."""

import json
import math
from datetime import UTC, datetime

import pytest

from features.arena import HistoryArena
from features.engine import Engine
from features.entity_counts import Entities
from features.entity_features import ENTITY_FEATURES
from generator.bank import Bank
from generator.settings import BankSettings
from schemas.transaction import Transaction
from tests.deployment import Deployment, Outputs
from tests.replay import replay_chunks

pytestmark = pytest.mark.integration
BANK = BankSettings(customers=150, days=45, seed=8, start=datetime(2026, 1, 1, tzinfo=UTC))
NAMES = [feature.name for feature in ENTITY_FEATURES]


@pytest.fixture
def deployment(tmp_path, entity_registry):
    running = Deployment(tmp_path, entity_registry._root, durable=False)
    running.stack.start()
    yield running
    running.close()


def offline():
    """Vectors of the bank's transactions, without labels."""
    engine = Engine(entities=ENTITY_FEATURES)
    sent = [Transaction.model_validate(e.message) for e in Bank(BANK).events() if e.topic == "transactions"]
    chunks = replay_chunks(sent, engine, HistoryArena(), Entities(ENTITY_FEATURES))
    return {
        t.transaction_id: [None if math.isnan(v) else v for v in row[-len(NAMES) :].tolist()]
        for chunk, features in chunks
        for t, row in zip(chunk, features.X, strict=True)
    }


@pytest.mark.slow
async def test_vectors_of_killed_workers_are_those_of_one_replay_in_time_order(deployment):
    await deployment.create_topics()
    sent = [e for e in Bank(BANK).events() if e.topic == "transactions"]
    await deployment.publish(
        (e.topic, str(e.message["customer_id"]).encode(), json.dumps(e.message).encode()) for e in sent
    )
    given = {"entities": "merchant,device,counterparty", "score_features": True}
    async with Outputs(deployment.stack.bootstrap) as outputs:
        for point in ("before-commit", "after-commit"):
            dying = deployment.worker(crash_point=point, chunk_records=200, **given)
            dying.start()
            await outputs.until(lambda worker=dying: not worker.running, 60, f"death at {point}")
        with deployment.worker(chunk_records=200, **given):
            await outputs.until_scored([e.message["transaction_id"] for e in sent])
    assert not outputs.conflicting()
    assert set(outputs.scored().values()) == {1}
    found = {
        score["transaction_id"]: [score["features"][name] for name in NAMES]
        for _, score in outputs.records["scores.fraud"]
    }
    assert found == offline()
    assert max(values[NAMES.index("merchant_txn_count_30d")] or 0 for values in found.values()) > 20
