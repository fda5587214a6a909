"""Three workers, Kafka and Valkey under load: what the fault tests break, heal, drain and check."""

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis import Redis
from redis.exceptions import RedisError

from generator.settings import BankSettings
from infra.embedded import EmbeddedBroker, EmbeddedRedis
from infra.kafka_cluster import KafkaCluster
from infra.log_tail import LogTail
from infra.topics_admin import TopicsAdmin
from tests.faults.checker import INPUTS, Verdict, check, read_log
from tests.faults.fault_worker import FaultWorker
from tests.faults.proxy import Proxy
from tests.faults.report import Faults, Row
from tests.faults.traffic import BANK, RATE, Traffic

PARTITIONS = 4
POINTS = ("before-publish", "after-publish", "before-commit", "after-commit")
SESSION_S = 6
# Limit of a start on a machine whose cores others use: it is not what is measured.
START_S = 300.0


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
        self.traffic = Traffic(bank)
        self.partitions = PARTITIONS
        self.random = random.Random(BANK.seed)  # noqa: S311
        self._made = 0

    @property
    def bootstrap(self) -> str:
        return str(self.broker.address)

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
        self.traffic.rate = rate or float(RATE)
        stop = asyncio.Event()
        task = asyncio.create_task(self.traffic.run(self.bootstrap, stop, idempotent=self.kafka))
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
        self.traffic.rate = 1e9
        stop = asyncio.Event()
        await self.traffic.run(self.bootstrap, stop, idempotent=self.kafka, most=events)

    async def publish(self, topic: str, messages: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Publish `(key, value)` in order."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        await producer.start()
        try:
            for key, value in messages:
                await producer.send_and_wait(topic, value, key=key)
        finally:
            await producer.stop()

    async def in_transaction(
        self, messages: Iterable[tuple[bytes | None, bytes | None]], *, commit: bool
    ) -> None:
        """Publish `(key, value)` as transactions in one Kafka transaction, which is committed or aborted."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, transactional_id="upstream")
        await producer.start()
        try:
            await producer.begin_transaction()
            for key, value in messages:
                await producer.send_and_wait("transactions", value, key=key)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
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
