"""`tidegate verify` against a real broker, Valkey and worker."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer
from redis import Redis
from typer.testing import CliRunner

from cli.main import app
from features.codec import HEADER, History, decode, encode
from generator.settings import BankSettings
from infra.partitioning import partition_for
from tests.deployment import PARTITIONS, Deployment, Outputs, eventually

pytestmark = pytest.mark.integration
BANK = BankSettings(customers=60, days=40, seed=21, start=datetime(2026, 1, 1, tzinfo=UTC))

EARLY = (
    {
        "customer_id": "early",
        "transaction_id": "t-early",
        "label": "fraud",
        "label_time": "2026-02-10T00:00:00Z",
    },
    {
        "customer_id": "early",
        "transaction_id": "t-early",
        "event_time": "2026-02-09T00:00:00Z",
        "amount": "5.00",
        "currency": "EUR",
    },
)


@pytest.fixture
def deployment(tmp_path, registry):
    running = Deployment(tmp_path, registry._root, durable=False)
    running.stack.start()
    yield running
    running.close()


async def verified(deployment, *more):
    """Exit code and result of the command."""
    arguments = [
        "verify",
        "--bootstrap",
        deployment.stack.bootstrap,
        "--redis-url",
        deployment.stack.redis_url,
    ]
    arguments += ["--models", str(deployment.models), "--json", *more]
    # In a thread: the command has an event loop of its own.
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    if not result.stdout:
        raise result.exception or AssertionError(result.output)
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


async def test_a_healthy_run_verifies_and_one_flipped_bit_or_tampered_score_is_found(deployment):
    await deployment.create_topics()
    counts = await deployment.publish_bank(BANK)
    assert counts["labels"] > 0
    worker = deployment.worker(score_features=True)
    worker.start(120)
    with worker:
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
            # A label that is read before its transaction is refused: no history has it.
            early, late = EARLY
            await deployment.publish([("labels", early["customer_id"].encode(), json.dumps(early).encode())])
            counts["labels"] += 1
            await outputs.until(lambda: outputs.dead()["unknown_transaction"] == 1, 30, "a dead letter")
            deployment.log.add(late)
            await deployment.publish(
                [("transactions", late["customer_id"].encode(), json.dumps(late).encode())]
            )
            await outputs.until_scored(deployment.log.ids)
        await eventually(
            lambda: deployment.committed("labels") == counts["labels"], 30, "labels in histories"
        )
        # While the worker runs.
        code, result = await verified(deployment)
    events = len(deployment.log.ids)
    assert (code, result["first_difference"], result["differences"]) == (0, None, 0)
    assert (result["transactions"], result["scores"], result["vectors"]) == (events, events, events)
    assert result["histories"] == len(deployment.log.totals)
    assert not result["not_compared"]

    # The worker is stopped. One bit of one stored history:
    with Redis.from_url(deployment.stack.redis_url) as redis:

        def kept(customer, kind):
            return f"{{tg:{partition_for(customer, PARTITIONS)}}}:{kind}:{customer}"

        # Of a customer whose newest record is not in the packed block.
        customer = next(
            c for c in sorted(deployment.log.totals) if len(redis.get(kept(c, "h"))) > HEADER.itemsize
        )
        key, block = kept(customer, "h"), kept(customer, "b")
        healthy, packed = redis.get(key), redis.get(block)
        bit = 8 * (len(healthy) - 40) + 5
        redis.setbit(key, bit, 1 - redis.getbit(key, bit))
        code, result = await verified(deployment)
        first = result["first_difference"]
        assert (code, result["differences"]) == (1, 1)
        assert (first["kind"], first["customer_id"]) == ("history", customer)
        assert first["values"]
        # One bit of one amount, and a lifetime count.
        history = decode(healthy + (packed or b""))
        records = history.records.copy()
        records["amount_minor"][-1] ^= 1
        redis.set(key, encode(History(replace(history.totals, count=history.totals.count + 1), records)))
        redis.delete(block)
        code, result = await verified(deployment)
        first = result["first_difference"]
        assert (code, first["customer_id"]) == (1, customer)
        amount, count = first["values"].values()
        assert [name.split()[-1] for name in first["values"]] == ["amount_minor", "totals.count"]
        assert amount == [int(records["amount_minor"][-1]), int(history.records["amount_minor"][-1])]
        assert count == [history.totals.count + 1, history.totals.count]
        assert first["history"][-1]["amount_minor"] == amount[1]
        redis.set(key, healthy)
        if packed is not None:
            redis.set(block, packed)

    partition, score = outputs.records["scores.fraud"][100]
    forged = {**score, "score": score["score"] / 2 + 0.25}
    producer = AIOKafkaProducer(bootstrap_servers=deployment.stack.bootstrap)
    await producer.start()
    await producer.send_and_wait("scores.fraud", json.dumps(forged).encode(), partition=partition)
    await producer.stop()
    code, result = await verified(deployment)
    first = result["first_difference"]
    assert (code, result["differences"]) == (1, 1)
    assert (first["kind"], first["transaction_id"]) == ("score", score["transaction_id"])
    assert first["offset"] == score["source"]["offset"]
    assert first["values"] == {"score": [forged["score"], score["score"]]}
    assert all(
        r["time_ms"] < datetime.fromisoformat(score["event_time"]).timestamp() * 1000
        for r in first["history"]
    )


async def test_after_an_erasure_all_others_are_equal_and_nothing_of_the_erased_is_told(deployment):
    await deployment.create_topics()
    await deployment.publish_bank(replace(BANK, customers=20, days=20))
    customer = sorted(deployment.log.totals)[0]
    worker = deployment.worker()
    worker.start(120)
    with worker:
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
        request = {"erasure_id": "e-1", "customer_id": customer, "requested_at": "2026-06-01T00:00:00Z"}
        await deployment.publish([("erasures", customer.encode(), json.dumps(request).encode())])
        await eventually(lambda: deployment.committed("erasures") == 1, 30, "an erasure")
        code, result = await verified(deployment)
    assert (code, result["first_difference"]) == (0, None)
    assert result["histories"] == len(deployment.log.totals) - 1
    left_out = result["not_compared"]["of an erased customer"]
    assert result["scores"] == len(deployment.log.ids) - left_out
    assert left_out > 0


async def test_without_anything_to_compare_it_says_so(deployment):
    await deployment.create_topics()
    result = await asyncio.to_thread(
        CliRunner().invoke,
        app,
        ["verify", "--bootstrap", deployment.stack.bootstrap, "--redis-url", deployment.stack.redis_url],
    )
    assert "no worker has run" in str(result.exception)
