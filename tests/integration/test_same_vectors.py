"""One file, three ways: `features compute`, the worker behind Kafka, and the REST interface.

    pytest -m long tests/integration/test_same_vectors.py

runs it over 50,000 events instead of some 2,000.
"""

import asyncio
import itertools
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from pyarrow import parquet
from typer.testing import CliRunner

from cli.main import app
from generator.bank import Bank
from generator.settings import BankSettings
from infra.bank_files import write_bank
from infra.history_store import RedisHistoryStore
from infra.intake import Intake
from infra.mapping import Mapping
from models.churn import is_customer_feature
from tests.deployment import PARTITIONS, Deployment, eventually
from tests.serving import serving

pytestmark = pytest.mark.integration
MAPPING = Path(__file__).parents[2] / "docs" / "examples" / "generated_bank.yaml"


@dataclass
class Run:
    """How many events, and every how many of them the REST interface is asked."""

    customers: int
    days: int
    at_least: int
    every: int


@pytest.fixture
def deployment(tmp_path, registry):
    running = Deployment(tmp_path, registry._root, durable=False)
    running.stack.start()
    yield running
    running.close()


async def command(*arguments: str) -> dict:
    """The JSON of a command; in a thread, since it has an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout.splitlines()[-1])


async def scores_of(bootstrap: str, count: int, names: list[str]) -> dict[str, tuple[bytes, float]]:
    """Vector and score of so many different transactions, from `scores.fraud`."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=50)
    await consumer.start()
    found: dict[str, tuple[bytes, float]] = {}
    try:
        partitions = [TopicPartition("scores.fraud", p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        deadline = time.monotonic() + 60 + count / 100
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} events were scored"
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    score = orjson.loads(record.value)
                    assert list(score["features"]) == names
                    row = np.array([np.nan if v is None else v for v in score["features"].values()])
                    assert found.setdefault(score["transaction_id"], (row.tobytes(), score["score"])) == (
                        row.tobytes(),
                        score["score"],
                    )
    finally:
        await consumer.stop()
    return found


@pytest.mark.parametrize(
    "run",
    [
        Run(customers=40, days=28, at_least=1_500, every=9),
        pytest.param(Run(customers=560, days=60, at_least=50_000, every=20), marks=pytest.mark.long),
    ],
    ids=["short", "50,000 events"],
)
async def test_file_worker_and_rest_give_the_same_vectors_bit_for_bit(deployment, models, tmp_path, run):
    settings = BankSettings(
        customers=run.customers, days=run.days, seed=31, start=datetime(2026, 1, 1, tzinfo=UTC)
    )
    bank, out = tmp_path / "bank.parquet", tmp_path / "vectors.parquet"
    rows = write_bank(Bank(settings).events, bank, lambda time_ms: None)
    assert rows >= run.at_least

    await deployment.create_topics()
    published = await command(
        "publish", str(bank), "--mapping", str(MAPPING), "--bootstrap", deployment.stack.bootstrap, "--labels"
    )
    assert published["published"] == rows
    worker = deployment.worker(score_features=True)
    worker.start(120)
    with worker:
        summary = await command(
            "features", "compute", "--data", str(bank), "--mapping", str(MAPPING), "--out", str(out)
        )
        assert (summary["written"], summary["labels"]) == (rows, published["labels_published"])
        names = list(models.engine.names)
        scored = await scores_of(deployment.stack.bootstrap, rows, names)
        # The last score is out before its partition is said to be complete.
        said = {"event": "histories are complete"}.items()
        await eventually(
            lambda: sum(said <= line.items() for line in deployment.logs(worker)) == PARTITIONS,
            60,
            "histories are complete",
        )

    table = parquet.read_table(out)
    assert table.column_names[3:] == names
    X = np.column_stack([table[name].to_numpy(zero_copy_only=False) for name in names])
    ids = table["transaction_id"].to_pylist()
    # Unknown is one NaN on both sides.
    different = [i for i, id_ in enumerate(ids) if scored[id_][0] != (X[i] + 0.0).tobytes()]
    assert [(ids[i], _which(X[i], scored[ids[i]][0], names)) for i in different[:5]] == []
    assert len(scored) == len(ids) == rows

    asked = await _rest(deployment, models, bank, X, {i: s for i, (_, s) in scored.items()}, run.every)
    print(f"{rows:,} vectors of file and worker equal, {asked:,} of them asked of the REST interface")
    assert asked >= rows / run.every / 2


def _which(row: np.ndarray, other: bytes, names: list[str]) -> list[tuple[str, float, float]]:
    pairs = zip(names, row.tolist(), np.frombuffer(other).tolist(), strict=True)
    return [(n, a, b) for n, a, b in pairs if a != b and (a == a or b == b)]


async def _rest(
    deployment: Deployment, models, bank: Path, X: np.ndarray, scores: dict[str, float], every: int
) -> int:
    """Ask for features as of an event's time and for its score, long after; returns how many were asked."""
    with Intake(bank, Mapping.load(MAPPING)) as intake:
        events = list(intake)
    for before, after in itertools.pairwise(events):
        assert before.event_time_ms <= after.event_time_ms
    currencies: dict[str, set[str]] = {}
    for event in events:
        currencies.setdefault(event.transaction.customer_id, set()).add(event.transaction.currency)
    # A lookup knows of no event: what compares with one is unknown to it.
    known = [i for i, feature in enumerate(models.engine.features) if is_customer_feature(feature)]
    assert len(known) > 50
    store, asked = RedisHistoryStore(deployment.stack.redis_url), 0
    try:
        async with serving(store, models, datetime.now(UTC)) as client:
            for row in range(0, len(events), every):
                event = events[row]
                customer = event.transaction.customer_id
                answer = await client.post("/inference/fraud-detection", content=event.raw)
                assert answer.json()["score"] == scores[event.transaction.transaction_id]
                if len(currencies[customer]) == 1:
                    answer = await client.get(
                        f"/customers/{quote(customer)}/features", params={"as_of": event.event_time_ms}
                    )
                    vector = [np.nan if v is None else v for v in answer.json()["features"].values()]
                    assert np.array(vector)[known].tobytes() == (X[row][known] + 0.0).tobytes()
                    asked += 1
    finally:
        await store.close()
    return asked
