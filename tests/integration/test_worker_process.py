"""A worker as a real process against a real broker and Valkey."""

import json
from datetime import UTC, datetime

import pytest

from generator.settings import BankSettings
from infra.partitioning import partition_for
from tests.deployment import PARTITIONS, Deployment, Outputs

pytestmark = pytest.mark.integration
BANK = BankSettings(customers=120, days=30, seed=8, start=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def deployment(tmp_path, registry):
    running = Deployment(tmp_path, registry._root, durable=False)
    running.stack.start()
    yield running
    running.close()


def transaction(number, customer="c-1", **fields):
    message = {
        "schema_version": 1,
        "transaction_id": f"t-{number}",
        "customer_id": customer,
        "event_time": f"2026-03-01T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "amount": "10.00",
        "currency": "EUR",
    }
    return {name: value for name, value in {**message, **fields}.items() if value is not ...}


def encoded(number, **fields):
    return json.dumps(transaction(number, **fields)).encode()


async def test_every_event_is_scored_once_in_its_partition_and_counted_once(deployment):
    await deployment.create_topics()
    counts = await deployment.publish_bank(BANK)
    with deployment.worker():
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
            await outputs.until(lambda: len(outputs.records["scores.churn"]) > 0, 10, "churn scores")
    assert counts["transactions"] == len(deployment.log.ids) > 2000
    assert set(outputs.scored().values()) == {1}
    assert not outputs.dead()
    assert deployment.outcomes() == dict(deployment.log.totals)
    for partition, score in outputs.records["scores.fraud"]:
        assert partition == score["source"]["partition"] == partition_for(score["customer_id"], PARTITIONS)
    for partition in range(PARTITIONS):
        offsets = [s["source"]["offset"] for p, s in outputs.records["scores.fraud"] if p == partition]
        assert offsets == sorted(offsets)


# Each one dead letter with this reason; what the detail must name.
BAD = [
    (b"not json", "not_json", "JSON"),
    (b"[1, 2]", "not_an_object", "object"),
    (b'"text"', "not_an_object", "object"),
    (b"{}", "invalid_field", "transaction_id"),
    (encoded(1001, customer_id=5), "invalid_field", "customer_id"),
    (encoded(1002, currency=...), "invalid_field", "currency"),
    (encoded(1003, amount="0"), "amount_not_positive", "amount"),
    (encoded(1004, amount=-3), "amount_not_positive", "amount"),
    (encoded(1005, amount=float("nan")), "invalid_field", "amount"),
    (encoded(1006, amount=1e308), "amount_too_large", "amount"),
    (encoded(1007, event_time="2026-03-01T10:00:00"), "invalid_field", "offset"),
    (encoded(1008, event_time="1970-01-20T10:00:00Z"), "invalid_field", "event_time"),
    (encoded(1009, event_time="2100-01-01T00:00:00Z"), "invalid_field", "event_time"),
    (encoded(1010, event_time="2099-01-01T00:00:00Z"), "event_from_the_future", "event_time"),
    (encoded(1011, note="x" * 900_000), "too_large", "limit"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not_json", "recursion"),
    (b'{"transaction_id": "\xff\xfe"}', "invalid_encoding", "UTF-8"),
    (None, "empty", "value"),
    (encoded(1012, card_token="4111 1111 1111 1111"), "card_number", "card_token"),
    (encoded(1013, unknown={"deep": [4111111111111111]}), "card_number", "unknown"),
    (encoded(0), "duplicate_transaction", "transaction_id"),
]


async def test_each_bad_message_is_one_dead_letter_and_its_neighbours_are_scored(deployment):
    await deployment.create_topics()
    key = b"c-1"
    messages = [("transactions", key, encoded(0, unheard_of={"of": [1, None]}))]
    for number, (value, _, _) in enumerate(BAD, start=1):
        messages += [("transactions", key, value), ("transactions", key, encoded(number))]
    messages.append(
        (
            "labels",
            key,
            json.dumps(
                {
                    "customer_id": "c-1",
                    "transaction_id": "t-nobody",
                    "label": "fraud",
                    "label_time": "2026-03-02T00:00:00Z",
                }
            ).encode(),
        )
    )
    await deployment.publish(messages)
    worker = deployment.worker()
    with worker:
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored([f"t-{n}" for n in range(len(BAD) + 1)])
            await outputs.until(lambda: outputs.dead().total() >= len(BAD) + 1, 30, "dead letters")
        assert worker.running
    expected = sorted([reason for _, reason, _ in BAD] + ["unknown_transaction"])
    assert sorted(outputs.dead().elements()) == expected
    letters = {letter["source"]["offset"]: letter for _, letter in outputs.records["transactions.dlq"]}
    for number, (_, reason, named) in enumerate(BAD):
        letter = letters[2 * number + 1]
        assert (letter["reason"], named in letter["detail"]) == (reason, True), letter["detail"]
    everything = json.dumps(outputs.records) + worker.log_path.read_text()
    assert "4111 1111 1111 1111" not in everything
    assert "4111111111111111" not in everything
    assert set(outputs.scored().values()) == {1}


async def test_records_are_scored_however_their_sender_compresses_them(deployment):
    await deployment.create_topics()
    ways = (None, "gzip", "snappy", "lz4", "zstd")
    for number, way in enumerate(ways):
        await deployment.publish([("transactions", b"c-1", encoded(number))], way)
    with deployment.worker():
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored([f"t-{n}" for n in range(len(ways))])
    assert not outputs.dead()


async def test_messages_without_key_are_passed_on_and_scored_once(deployment):
    await deployment.create_topics()
    small = BankSettings(customers=40, days=8, seed=9, start=datetime(2026, 1, 1, tzinfo=UTC))
    await deployment.publish_bank(small, keyed=False)
    with deployment.worker():
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
    assert set(outputs.scored().values()) == {1}
    assert deployment.outcomes() == dict(deployment.log.totals)


@pytest.mark.slow
async def test_worker_killed_again_and_again_loses_and_repeats_nothing(deployment):
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    points = ["after-publish", "before-commit", "after-commit", "before-publish"]
    async with Outputs(deployment.stack.bootstrap) as outputs:
        for point in points:
            # Small chunks: every one of these dies in the middle of the log.
            dying = deployment.worker(crash_point=point, chunk_records=200)
            dying.start()
            await outputs.until(lambda worker=dying: not worker.running, 60, f"death at {point}")
        with deployment.worker():
            await outputs.until_scored(deployment.log.ids)
    assert not outputs.conflicting()
    assert set(outputs.scored().values()) == {1}
    assert deployment.outcomes() == dict(deployment.log.totals)


async def test_stopped_worker_exits_with_zero_and_another_goes_on(deployment):
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    async with Outputs(deployment.stack.bootstrap) as outputs:
        first = deployment.worker(chunk_records=100)
        first.start()
        await outputs.until(lambda: len(outputs.scored()) > 300, 60, "first scores")
        process = first._process
        first.stop(timeout_s=15)
        assert process.returncode == 0
        assert any(line["event"] == "worker stopping" and line["drained"] for line in deployment.logs(first))
        with deployment.worker():
            await outputs.until_scored(deployment.log.ids)
    assert set(outputs.scored().values()) == {1}
    assert deployment.outcomes() == dict(deployment.log.totals)


async def test_worker_without_models_says_what_to_do(deployment, tmp_path):
    worker = deployment.worker(models=tmp_path / "none")
    with pytest.raises(Exception, match=r"ended with code 3(.|\n)*tidegate train"):
        worker.start()
