"""Three workers, Kafka and Valkey under load: what the fault tests break, heal, drain and check."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, KafkaTimeoutError
from redis import Redis
from redis.exceptions import RedisError

from generator.bank import Bank
from generator.events import BankEvent
from generator.settings import BankSettings
from harness.processes import WorkerProcess
from infra.embedded import EmbeddedBroker, EmbeddedRedis
from infra.kafka_cluster import KafkaCluster
from infra.log_tail import LogTail
from infra.topics_admin import TopicsAdmin
from tests.faults.checker import INPUTS, Verdict, check, read_log
from tests.faults.proxy import Proxy
from tests.faults.report import Row

PARTITIONS = 4
POINTS = ("before-publish", "after-publish", "before-commit", "after-commit")
SESSION_S = 6
# Limit of a start on a machine whose cores others use: it is not what is measured.
START_S = 300.0
RATE = 500
# Less than the retention of histories: what is in the log is in the state.
BANK = BankSettings(customers=4000, days=110, seed=17, start=datetime(2026, 1, 1, tzinfo=UTC))


class FaultWorker(WorkerProcess):
    """A worker with another environment or another version of the code.

    Args:
        root: Folder of the source that it runs; `None` for this one.
        environment: Variables beside the settings.
    """

    stop_timeout_s = 30.0

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        name: str,
        environment: Mapping[str, str] | None = None,
        root: Path | None = None,
    ) -> None:
        super().__init__(folder, settings, name)
        self._extra = dict(environment or {})
        self._root = root

    def _environment(self) -> dict[str, str]:
        environment = super()._environment() | self._extra
        # The worker's extra has no scikit-learn, which XGBoost imports where it is there: three seconds.
        without = self.directory.parent / "extra"
        without.mkdir(exist_ok=True)
        (without / "sklearn.py").write_text("raise ModuleNotFoundError(__name__)\n")
        roots = [str(self._root or Path(__file__).resolve().parents[2]), str(without)]
        return environment | {"PYTHONPATH": os.pathsep.join(roots)}

    def variables(self) -> dict[str, str]:
        """Its environment, for another command against the same servers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self._environment()

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("event") == event]


@dataclass
class Faults:
    """What a test did.

    Attributes:
        injected: How many times.
        resumed_s: From the end of each fault to progress of every partition, in seconds.
        note: What else was measured.
    """

    injected: int = 0
    resumed_s: list[float] = field(default_factory=list)
    note: str = ""


class World:
    """Broker, Valkey, workers, and a load that runs until it is stopped."""

    def __init__(
        self,
        folder: Path,
        models: Path,
        *,
        kafka: bool = True,
        brokers: int = 1,
        redis_dir: Path | None = None,
        proxied: bool = False,
        settings: Mapping[str, object] | None = None,
        bank: BankSettings = BANK,
        containers: bool = False,
    ) -> None:
        self.folder = folder
        self.kafka = kafka
        self.containers = containers
        self.broker: Any
        self.redis: Any
        if containers:
            # What is between processes of this machine, or in their files, is tested without containers.
            if brokers > 1 or proxied or redis_dir:
                pytest.skip("reaches into servers that are processes of this machine")
            from tests.faults.containers import ContainerKafka, ContainerRedis

            self.broker, self.redis = ContainerKafka(), ContainerRedis()
        else:
            self.broker = KafkaCluster(folder, brokers) if kafka else EmbeddedBroker(folder)
            self.redis = EmbeddedRedis(redis_dir or folder)
        self.brokers = brokers
        self.redis_proxy = Proxy(self.redis.port)
        self.kafka_proxy = Proxy(self.broker.nodes[0].port) if kafka else None
        self.proxied = proxied
        self.models = models
        self.settings = dict(settings or {})
        self.workers: list[FaultWorker] = []
        self.rate = float(RATE)
        self.partitions = PARTITIONS
        self.random = random.Random(BANK.seed)  # noqa: S311
        self.events: Iterator[BankEvent] = iter(Bank(bank).events())
        self._made = 0
        self._sent = 0

    @property
    def bootstrap(self) -> str:
        return str(self.broker.address)

    @property
    def sent(self) -> int:
        """Messages published up to now, all topics."""
        return self._sent

    def start(self) -> None:
        if self.proxied:
            assert self.kafka_proxy is not None
            self.redis_proxy.start()
            self.kafka_proxy.start()
            node = self.broker.nodes[0]
            node.properties["advertised.listeners"] = (
                f"CLIENT://{self.kafka_proxy.address},INTERNAL://127.0.0.1:{node.internal_port}"
            )
        self.redis.start(START_S)
        self.broker.start(START_S)
        topics = TopicsAdmin(self.bootstrap, timeout_s=60.0)
        # Tests call this with their own loop running.
        with ThreadPoolExecutor(1) as beside:
            beside.submit(asyncio.run, topics.create(PARTITIONS, self.brokers)).result()

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        for part in (self.broker, self.redis):
            part.remove() if self.containers else part.kill()
        if self.proxied:
            self.redis_proxy.close()
            assert self.kafka_proxy is not None
            self.kafka_proxy.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def worker(
        self, environment: Mapping[str, str] | None = None, root: Path | None = None, **settings: object
    ) -> FaultWorker:
        """A worker that is not started yet."""
        worker = FaultWorker(
            self.folder,
            self.worker_settings() | settings,
            f"worker-{self._made}",
            environment,
            root,
        )
        self._made += 1
        self.workers.append(worker)
        return worker

    def worker_settings(self) -> dict[str, object]:
        """Settings of every worker."""
        redis_url = f"redis://{self.redis_proxy.address}/0" if self.proxied else self.redis.url
        bootstrap = self.kafka_proxy.address if self.proxied and self.kafka_proxy else self.bootstrap
        return {
            "bootstrap": bootstrap,
            "redis_url": redis_url,
            "models": self.models,
            "partitions": PARTITIONS,
            "session_timeout_s": SESSION_S,
            "redis_timeout_s": 2,
            "publish_timeout_s": 10,
            "retry_most_s": 1,
            "chunk_records": 200,
            "log_format": "json",
            **self.settings,
        }

    async def run_worker(self, **settings: object) -> FaultWorker:
        worker = self.worker(**settings)  # type: ignore[arg-type]
        await asyncio.to_thread(worker.start, START_S)
        return worker

    async def workers_running(self, wanted: int = 3) -> list[FaultWorker]:
        """Have as many workers run, each with partitions or knowing that it gets none."""
        for worker in self.workers:
            if not worker.running:
                worker.kill()
        self.workers = [worker for worker in self.workers if worker.running]
        missing = [self.worker() for _ in range(wanted - len(self.workers))]
        await asyncio.gather(*(asyncio.to_thread(worker.start, START_S) for worker in missing))
        for worker in missing:
            await self.until(lambda w=worker: bool(w.said("worker ready")), START_S, f"{worker.name} ready")
        for extra in self.workers[wanted:]:
            extra.stop()
        self.workers = self.workers[:wanted]
        return self.workers

    async def again(self, worker: FaultWorker) -> None:
        """Start a worker that ended; what runs workers in production does."""
        await asyncio.to_thread(worker.start, START_S)

    async def kill_at_random(self, kills: int, faults: Faults) -> None:
        """SIGKILL workers, start them again, and do not wait for that before the next one."""
        back: dict[FaultWorker, asyncio.Task[None]] = {}
        for _ in range(kills):
            await self.until(
                lambda: any(w not in back or back[w].done() for w in self.workers),
                START_S,
                "a worker to kill",
            )
            victim = self.random.choice([w for w in self.workers if w not in back or back[w].done()])
            # When it comes is what is random about it.
            await asyncio.sleep(self.random.uniform(0.0, 2.0))
            victim.kill()
            faults.injected += 1
            back[victim] = asyncio.create_task(self.again(victim))
            await self.resumed(faults)
        await asyncio.gather(*back.values())

    async def die_at(self, points: Iterable[str], faults: Faults) -> None:
        """Add a worker for each of these points, at which it kills itself."""
        dying = [self.worker(crash_point=point) for point in points]
        # One may die before it was asked whether it lives.
        starts = [asyncio.to_thread(worker.start, START_S) for worker in dying]
        await asyncio.gather(*starts, return_exceptions=True)
        await self.until(lambda: not any(worker.running for worker in dying), START_S, f"death at {points}")
        assert {worker.exit_code for worker in dying} <= {-9, None}, self._last_words()
        faults.injected += len(dying)
        await self.resumed(faults)

    async def until(self, condition: Any, timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            held = condition()
            if asyncio.iscoroutine(held):
                held = await held
            if held:
                return
            assert time.monotonic() < deadline, (
                f"{what} did not happen in {timeout_s} s\n{self._last_words()}"
            )
            await asyncio.sleep(0.05)

    def _last_words(self) -> str:
        said = []
        for worker in self.workers:
            said.append(f"{worker.name}: running={worker.running} exit={worker.exit_code}")
            said += [f"  {json.dumps(line)[:400]}" for line in worker.lines()[-6:]]
        return "\n".join(said)

    def positions(self) -> dict[int, int]:
        """Next offset of the transactions of each partition, as Redis has it; 0 where it has none."""
        found = {}
        with Redis(port=self.redis.port, socket_timeout=2) as client:
            for p in range(self.partitions):
                found[p] = int(client.hget(f"{{tg:{p}}}:meta", "next:transactions") or 0)
        return found

    async def resumed(self, faults: Faults, timeout_s: float = 180) -> None:
        """Wait until every partition has moved on from where it is now, and note how long that took."""
        started = time.monotonic()
        before: dict[int, int] = {}

        def moved() -> bool:
            nonlocal before
            try:
                now = self.positions()
            except (RedisError, OSError):
                return False
            before = before or now
            return all(now[p] > before[p] for p in before)

        await self.until(moved, timeout_s, "progress of every partition")
        faults.resumed_s.append(time.monotonic() - started)

    @contextlib.asynccontextmanager
    async def stalls(self) -> AsyncIterator[dict[int, float]]:
        """While the body runs under load: the longest time that each partition stood still, in seconds."""
        longest = dict.fromkeys(range(self.partitions), 0.0)
        moved_at = dict.fromkeys(longest, time.monotonic())
        stop = asyncio.Event()

        async def watch() -> None:
            before = self.positions()
            while not stop.is_set():
                await asyncio.sleep(0.1)
                now, here = time.monotonic(), await asyncio.to_thread(self.positions)
                for p in longest:
                    longest[p] = max(longest[p], now - moved_at[p])
                    if here[p] != before[p]:
                        moved_at[p] = now
                before = here

        task = asyncio.create_task(watch())
        try:
            yield longest
        finally:
            stop.set()
            await task

    @contextlib.asynccontextmanager
    async def load(self, rate: float | None = None, workers: int = 3) -> AsyncIterator[Faults]:
        """Publish a bank's events at this rate while the body runs; it begins when workers make progress."""
        if workers:
            await self.workers_running(workers)
        self.rate = rate or float(RATE)
        stop = asyncio.Event()
        task = asyncio.create_task(self._publish(stop))
        faults = Faults()
        try:
            if workers:
                await self.resumed(Faults())
            yield faults
        finally:
            stop.set()
            await task

    async def burst(self, events: int) -> None:
        """Publish as many events at once."""
        self.rate = 1e9
        stop = asyncio.Event()
        await self._publish(stop, events)

    async def _publish(self, stop: asyncio.Event, most: int | None = None) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            linger_ms=5,
            enable_idempotence=self.kafka,
            acks="all",
            request_timeout_ms=20_000,
        )
        await producer.start()
        pending: set[asyncio.Future[Any]] = set()
        unacknowledged: dict[str, asyncio.Future[Any]] = {}
        started, sent = time.monotonic(), 0
        try:
            while not stop.is_set() and (most is None or sent < most):
                due = 200 if most is not None else int((time.monotonic() - started) * self.rate) - sent
                if due <= 0 or len(pending) > 20_000:
                    await asyncio.sleep(0.01)
                    pending = {future for future in pending if not future.done()}
                    started = max(started, time.monotonic() - (sent + self.rate) / self.rate)
                    continue
                for _ in range(min(due, 200)):
                    event = next(self.events)
                    key = str(event.message["customer_id"]).encode()
                    named = str(event.message.get("transaction_id"))
                    if event.topic == "labels" and named in unacknowledged:
                        # Nobody has a finding about what is not in the log yet.
                        await asyncio.wait([unacknowledged[named]], timeout=30)
                    try:
                        future = await producer.send(event.topic, json.dumps(event.message).encode(), key=key)
                    except KafkaTimeoutError:
                        # The broker is away for longer than the buffer lasts: so much less is in the log.
                        sent += 1
                        continue
                    pending.add(future)
                    if event.topic == "transactions":
                        unacknowledged[named] = future
                        future.add_done_callback(lambda _, name=named: unacknowledged.pop(name, None))
                    sent += 1
                    self._sent += 1
                await asyncio.sleep(0)
            # What the broker refused is not in the log, and the log is what counts.
            await asyncio.wait_for(asyncio.gather(*pending, return_exceptions=True), 60)
        finally:
            with contextlib.suppress(KafkaError):
                await producer.stop()

    async def publish(self, topic: str, messages: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Publish `(key, value)` in order."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        await producer.start()
        try:
            for key, value in messages:
                await producer.send_and_wait(topic, value, key=key)
        finally:
            await producer.stop()

    def tidegate(self, *arguments: str) -> int:
        """Run a command of the product against this world; returns its exit code."""
        environment = FaultWorker(self.folder, self.worker_settings(), "command").variables()
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        (self.folder / "logs" / f"{arguments[0]}.log").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.returncode

    async def no_members(self) -> None:
        """Wait until Kafka has dropped the workers that were killed."""

        async def none() -> bool:
            return await TopicsAdmin(self.bootstrap).group_members("tidegate") == 0

        await self.until(none, 60, "an empty group")

    async def committed(self) -> None:
        """Wait until the group has committed something of every partition of transactions."""

        partitions = [TopicPartition("transactions", p) for p in range(self.partitions)]

        async def all_committed() -> bool:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                # Named: the embedded broker cannot be asked for all of them.
                offsets = await admin.list_consumer_group_offsets("tidegate", partitions=partitions)
            finally:
                await admin.close()
            return all(
                (held := offsets.get(partition)) is not None and held.offset > 0 for partition in partitions
            )

        await self.until(all_committed, 60, "a commit of every partition")

    async def drained(self, timeout_s: float = 300) -> None:
        """Wait until the store has everything that is in the log."""
        tail = LogTail(self.bootstrap, timeout_s=60)
        await tail.start()
        try:
            tps = [(topic, p) for topic in INPUTS for p in range(self.partitions)]
            bounds = await tail.bounds(tps)
        finally:
            await tail.stop()

        def done() -> bool:
            with Redis(port=self.redis.port, socket_timeout=5) as client:
                for (topic, p), (_, end) in bounds.items():
                    if end and int(client.hget(f"{{tg:{p}}}:meta", f"next:{topic}") or 0) < end:
                        return False
            return True

        await self.until(done, timeout_s, "the end of the log")

    async def verdict(self, *, committed_only: bool = False, moved: bool = False) -> Verdict:
        """What the checker says of everything that is there now."""
        log = await read_log(self.bootstrap, committed_only=committed_only)
        with Redis(port=self.redis.port, socket_timeout=30) as client:
            return check(log, client, moved=moved)

    async def finish(self, name: str, faults: Faults, **more: Any) -> Verdict:
        """Drain, check, write the row, and fail where an invariant does not hold."""
        await self.drained()
        verdict = await self.verdict(**more)
        broker = "Apache Kafka" if self.kafka else "embedded"
        Row.of(name, faults, verdict, broker + " in a container" * self.containers).write()
        assert verdict.clean, f"{name}: {verdict}"
        return verdict


def out_of_order(events: Iterator[BankEvent], random_: random.Random) -> Iterator[BankEvent]:
    """Transactions shuffled within some hours, one in a hundred held back by days; the rest follows."""
    held: list[BankEvent] = []
    while True:
        window = [event for _, event in zip(range(2000), events, strict=False)]
        if not window:
            yield from held
            return
        shuffled = [event for event in window if event.topic == "transactions"]
        late, shuffled = shuffled[::100], [e for i, e in enumerate(shuffled) if i % 100]
        random_.shuffle(shuffled)
        yield from shuffled
        held += late
        if len(held) > 200:
            yield from held[:100]
            del held[:100]
        # A label must not come before its transaction, which may still be held back.
        known = {event.message["transaction_id"] for event in held}
        for event in window:
            if event.topic != "transactions" and event.message.get("transaction_id") not in known:
                yield event


class Pool:
    """A world that healthy tests share: starting one takes as long as a fault."""

    def __init__(self) -> None:
        self._world: World | None = None

    def take(self, folder: Path, models: Path, *, kafka: bool, containers: bool) -> World:
        if self._world is not None and self._world._sent > 100_000:
            self.drop()
        if self._world is None:
            self._world = World(folder, models, kafka=kafka, containers=containers)
            try:
                self._world.start()
            except BaseException:
                self.drop()
                raise
        return self._world

    def drop(self) -> None:
        if self._world is not None:
            self._world.close()
        self._world = None
