"""A file into a real broker."""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from aiokafka import AIOKafkaConsumer
from typer.testing import CliRunner

from cli.publish import publish
from infra.embedded import EmbeddedBroker
from infra.partitioning import partition_for
from infra.topics_admin import TopicsAdmin
from tests.unit.infra.mappings import written

pytestmark = pytest.mark.integration

ROWS, PARTITIONS = 1000, 4


def test_every_row_arrives_once_with_its_label_keyed_by_customer(tmp_path: Path) -> None:
    data, rules = tmp_path / "data.csv", tmp_path / "map.yaml"
    rules.write_text(written(label="{column: fraud, fraud: 1, genuine: [], delay: 1h}"))
    data.write_text(
        "id,customer,ts,amount,fraud\n"
        + "".join(
            f"t{i},c{i % 37},2026-03-01T{i // 60:02}:{i % 60:02}:00Z,{i + 1},{int(i % 10 == 0)}\n"
            for i in range(ROWS)
        )
    )
    app = typer.Typer()
    app.command()(publish)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        command = [str(data), "--mapping", str(rules), "--bootstrap", broker.address, "--labels", "--json"]
        too_early = CliRunner().invoke(app, command)
        assert "has no topic labels and no transactions" in str(too_early.exception)

        asyncio.run(TopicsAdmin(broker.address).create(PARTITIONS))
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.exception
        summary = orjson.loads(result.stdout)
        assert (summary["published"], summary["labels_published"], summary["refused"]) == (ROWS, 100, 0)
        transactions = asyncio.run(read(broker.address, "transactions", ROWS))
        labels = asyncio.run(read(broker.address, "labels", 100))

    assert {message["transaction_id"] for _, _, message in transactions} == {f"t{i}" for i in range(ROWS)}
    assert {message["transaction_id"] for _, _, message in labels} == {f"t{i}" for i in range(0, ROWS, 10)}
    for partition, key, message in transactions + labels:
        assert key.decode() == message["customer_id"]
        assert partition == partition_for(message["customer_id"], PARTITIONS)
    by_customer: dict[str, list[str]] = defaultdict(list)
    for _, _, message in transactions:
        by_customer[message["customer_id"]].append(message["event_time"])
    assert all(times == sorted(times) for times in by_customer.values())


async def read(bootstrap: str, topic: str, count: int) -> list[tuple[int, bytes, dict[str, Any]]]:
    """Records of a topic, in the order of each partition; one more than there should be would show."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    records: list[tuple[int, bytes, dict[str, Any]]] = []
    try:
        async with asyncio.timeout(20):
            while len(records) < count:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records += [(r.partition, r.key, orjson.loads(r.value)) for r in batch]
    finally:
        await consumer.stop()
    assert len(records) == count
    return records
