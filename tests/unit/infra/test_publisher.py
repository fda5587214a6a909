import asyncio
import socket

import pytest
from aiokafka.errors import KafkaTimeoutError

from infra import publisher as module
from infra.publisher import Publisher
from schemas.errors import ConfigError, DependencyError, EventError


class FakeCluster:
    def topics(self) -> set[str]:
        return {"transactions"}

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1, 2, 3}


class FakeClient:
    async def fetch_all_metadata(self) -> FakeCluster:
        return FakeCluster()


class FakeBatch:
    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes, int | None]] = []
        self.closed = False

    def append(self, *, key: bytes, value: bytes, timestamp: int | None) -> object:
        assert not self.closed
        if len(self.records) == 5:
            return None
        self.records.append((key, value, timestamp))
        return object()

    def record_count(self) -> int:
        return len(self.records)

    def close(self) -> None:
        self.closed = True


class FakeProducer:
    """Acknowledges at the next flush, or fails as told."""

    made: list["FakeProducer"]

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        self.client = FakeClient()
        self.waiting: list[asyncio.Future[None]] = []
        self.batches: list[tuple[int, list[tuple[bytes, bytes, int | None]]]] = []
        self.stopped = False
        self.send_error: Exception | None = None
        self.delivery_error: Exception | None = None
        FakeProducer.made.append(self)

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True

    def create_batch(self) -> FakeBatch:
        return FakeBatch()

    async def send_batch(self, batch: FakeBatch, topic: str, *, partition: int) -> "asyncio.Future[None]":
        if self.send_error:
            raise self.send_error
        await asyncio.sleep(0)
        self.batches.append((partition, batch.records))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return future

    async def flush(self) -> None:
        for future in self.waiting:
            if self.delivery_error:
                future.set_exception(self.delivery_error)
            else:
                future.set_result(None)
        self.waiting.clear()


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> list[FakeProducer]:
    FakeProducer.made = []
    monkeypatch.setattr(module, "AIOKafkaProducer", FakeProducer)
    return FakeProducer.made


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_broker_that_is_not_there_is_said_in_one_sentence() -> None:
    port = closed_port()
    waits: list[tuple[str, float]] = []
    publisher = Publisher(
        f"127.0.0.1:{port}",
        connect_timeout_s=0.3,
        on_wait=lambda error, pause_s: waits.append((error, pause_s)),
    )
    with pytest.raises(DependencyError, match=rf"^Kafka at 127\.0\.0\.1:{port} does not answer: .*{port}"):
        await publisher.__aenter__()
    assert waits
    assert all(pause_s >= 0 for _, pause_s in waits)


async def test_a_port_that_answers_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DependencyError, match=f"Kafka at 127.0.0.1:{port} does not answer"):
            await Publisher(f"127.0.0.1:{port}", connect_timeout_s=0.2).__aenter__()


async def test_settings_are_safe_by_default(producers: list[FakeProducer]) -> None:
    async with Publisher("b:1", connection={"security_protocol": "SSL"}):
        pass
    settings = producers[0].settings
    assert (settings["acks"], settings["enable_idempotence"], settings["security_protocol"]) == (
        "all",
        False,
        "SSL",
    )
    assert producers[0].stopped


async def test_messages_are_counted_when_sent_and_when_acknowledged(producers: list[FakeProducer]) -> None:
    async with Publisher("b:1") as publisher:
        for _ in range(600):
            await publisher.publish("transactions", b"c1", b"{}")
        assert publisher.sent == 600
        assert publisher.acknowledged == 0
        await publisher.flush()
        assert publisher.acknowledged == 600


async def test_order_holds_within_a_partition_also_where_batches_are_sent_from_two_sides(
    producers: list[FakeProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0)
    async with Publisher("b:1") as publisher:
        for i in range(300):
            await publisher.publish("transactions", b"c%d" % (i % 7), b"%d" % i)
            if i % 3 == 0:
                await asyncio.sleep(0)
    by_partition: dict[int, list[int]] = {}
    for partition, records in producers[0].batches:
        by_partition.setdefault(partition, []).extend(int(value) for _, value, _ in records)
    assert sum(map(len, by_partition.values())) == 300
    assert all(values == sorted(values) for values in by_partition.values())


async def test_a_flush_waits_for_a_batch_that_stands_behind_another(
    producers: list[FakeProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINGER_S", 0)
    async with Publisher("b:1") as publisher:
        held = asyncio.Event()
        send_now = producers[0].send_batch

        async def send_when_there_is_room(
            batch: FakeBatch, topic: str, *, partition: int
        ) -> "asyncio.Future[None]":
            await held.wait()
            return await send_now(batch, topic, partition=partition)

        monkeypatch.setattr(producers[0], "send_batch", send_when_there_is_room)
        await publisher.publish("transactions", b"c1", b"{}")
        for _ in range(5):
            await asyncio.sleep(0)
        flushed = asyncio.create_task(publisher.flush())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not flushed.done()
        held.set()
        await flushed
        assert publisher.acknowledged == 1


async def test_a_lone_message_does_not_wait_for_company(producers: list[FakeProducer]) -> None:
    async with Publisher("b:1") as publisher:
        await publisher.publish("transactions", b"c1", b"{}", timestamp_ms=5)
        async with asyncio.timeout(5):
            while not producers[0].batches:
                await asyncio.sleep(0.001)
        assert producers[0].batches[0][1] == [(b"c1", b"{}", 5)]


async def test_a_missing_topic_is_refused_before_any_message(producers: list[FakeProducer]) -> None:
    with pytest.raises(ConfigError, match="has no topic labels: run 'tidegate topics create'"):
        await Publisher("b:1", topics=["transactions", "labels"]).__aenter__()
    assert producers[0].stopped
    async with Publisher("b:1") as publisher:
        with pytest.raises(ConfigError, match="has no topic labels"):
            await publisher.publish("labels", b"c1", b"{}")


async def test_a_message_that_was_not_delivered_is_an_error_at_the_end(producers: list[FakeProducer]) -> None:
    publisher = Publisher("b:1")

    async def run() -> None:
        async with publisher:
            producers[0].delivery_error = KafkaTimeoutError("too late")
            await publisher.publish("transactions", b"c1", b"{}")

    with pytest.raises(DependencyError, match=r"Kafka at b:1 does not answer: .*too late"):
        await run()
    assert (publisher.sent, publisher.acknowledged, producers[0].stopped) == (1, 0, True)


async def test_after_a_failure_nothing_more_is_taken(producers: list[FakeProducer]) -> None:
    publisher = Publisher("b:1")

    async def run() -> None:
        async with publisher:
            producers[0].send_error = KafkaTimeoutError()
            for _ in range(10):
                await publisher.publish("transactions", b"c1", b"{}")

    with pytest.raises(DependencyError, match="does not answer: KafkaTimeoutError"):
        await run()
    assert publisher.sent == 5


async def test_what_was_handed_over_is_sent_though_the_caller_failed(producers: list[FakeProducer]) -> None:
    publisher = Publisher("b:1")

    async def run() -> None:
        async with publisher:
            await publisher.publish("transactions", b"c1", b"{}")
            raise ConfigError("the file is damaged")

    with pytest.raises(ConfigError, match="the file is damaged"):
        await run()
    assert publisher.acknowledged == 1


async def test_a_message_too_large_is_the_message_s_own_fault(producers: list[FakeProducer]) -> None:
    async with Publisher("b:1") as publisher:
        with pytest.raises(EventError, match="200000 bytes long"):
            await publisher.publish("transactions", b"c1", b"x" * 200_000)
        await publisher.publish("transactions", b"c1", b"{}")


async def test_publishing_before_connecting_is_a_programming_error() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await Publisher("b:1").publish("transactions", b"c1", b"{}")
