"""Measurements of the whole path, seen from outside."""

import asyncio
import os
import platform
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from generator.bank import Bank
from generator.settings import BankSettings
from harness.demo import PARTITIONS
from harness.feed import Feed
from harness.processes import WorkerProcess
from infra.embedded import EmbeddedBroker, EmbeddedStack
from infra.kafka_jars import is_available
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError
from schemas.topics import CUSTOMERS, FRAUD_SCORES

_LIMIT_S = 300.0


class Broker(StrEnum):
    """The broker of a measurement that starts its own."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    KAFKA = "kafka"

    def start(self, folder: Path) -> EmbeddedStack:
        """The parts; `auto` is Apache Kafka where it can run, and Tansu elsewhere."""
        kafka = self is Broker.KAFKA or (self is Broker.AUTO and is_available())
        return EmbeddedStack(folder, durable=False, kafka=kafka)


def broker_name(stack: EmbeddedStack) -> str:
    """For people."""
    return "Tansu" if isinstance(stack.broker, EmbeddedBroker) else "Apache Kafka"


@dataclass(frozen=True, slots=True)
class ThroughputPlan:
    """A backlog to drain.

    Attributes:
        customers, days: Size of the bank: about two transactions a customer and day.
        runs: Repetitions; the figure is their median.
        entities: That the models have features of.
        workers: Processes that share the partitions.
        broker: That holds it.
    """

    data_dir: Path
    models: Path
    customers: int
    days: int
    seed: int
    runs: int
    entities: str = ""
    workers: int = 1
    broker: Broker = Broker.EMBEDDED


def run_throughput(plan: ThroughputPlan) -> dict[str, Any]:
    """Publish a backlog, then start workers and time their scores.

    The publisher is idle while they are timed. The rate is that of scores read by an independent
    consumer, from the first to the last; that each transaction has one is looked at afterwards.
    """
    runs = [asyncio.run(_throughput(plan, number)) for number in range(plan.runs)]
    runs.sort(key=lambda run: run["events_per_second"])
    median = runs[len(runs) // 2]
    return {
        **median,
        "runs": [run["events_per_second"] for run in runs],
        "customers": plan.customers,
        "workers": plan.workers,
        "environment": environment(),
    }


async def _throughput(plan: ThroughputPlan, number: int) -> dict[str, Any]:
    folder = plan.data_dir / f"run-{number}"
    with plan.broker.start(folder) as stack:
        await TopicsAdmin(stack.bootstrap).create(PARTITIONS)
        sent = await _backlog(plan, stack.bootstrap)
        settings = {
            "bootstrap": stack.bootstrap,
            "redis_url": stack.redis_url,
            "models": plan.models.resolve(),
            "partitions": PARTITIONS,
            "entities": plan.entities,
        }
        workers = [WorkerProcess(folder, settings, f"worker-{n}") for n in range(plan.workers)]

        def processor_s() -> dict[str, float]:
            return {
                "workers": sum(worker.cpu_s() for worker in workers),
                "broker": stack.broker.cpu_s(),
                "valkey": stack.redis.cpu_s(),
                "reader": time.process_time(),
            }

        reading = asyncio.create_task(_read_scores(stack.bootstrap, sent, processor_s))
        try:
            await asyncio.gather(*(asyncio.to_thread(worker.start, 120.0) for worker in workers))
            drained = await reading
            metrics = [await asyncio.to_thread(scrape, f"{worker.url}/metrics") for worker in workers]
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            for worker in workers:
                worker.stop()
        steps: defaultdict[str, float] = defaultdict(float)
        chunks = 0.0
        for name, labels, value in (sample for worker in metrics for sample in worker):
            if name == "tidegate_step_seconds_sum":
                steps[labels["step"]] += value / sent * 1e6
            elif name == "tidegate_chunk_records_count" and labels["topic"] == "transactions":
                chunks += value
        return {
            **drained,
            "broker": broker_name(stack),
            "step_microseconds_per_event": {step: round(value, 2) for step, value in steps.items()},
            "chunk_records_mean": round(sent / chunks),
        }


async def _backlog(plan: ThroughputPlan, bootstrap: str) -> int:
    """Publish a bank without its customers' profiles; returns its number of transactions."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, max_batch_size=1 << 18)
    await producer.start()
    bank = BankSettings(
        customers=plan.customers, days=plan.days, seed=plan.seed, start=datetime(2026, 1, 1, tzinfo=UTC)
    )
    # A profile is read once for each customer, beside the transactions: where each customer has a few of
    # these, profiles would be a third of what is measured.
    feed = Feed(producer, Bank(bank), bank.end_ms, {CUSTOMERS.name})
    await feed.past(bank.end_ms)
    await producer.stop()
    return feed.sent.transactions


async def _read_scores(
    bootstrap: str, wanted: int, processor_s: Callable[[], dict[str, float]]
) -> dict[str, Any]:
    """Read fraud scores until there are so many; the rate, and the processor time that went by meanwhile.

    Scores are only counted while the clock runs: reading them would take a share of the two cores.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100)
    await consumer.start()
    scores: list[bytes] = []
    before: dict[str, float] = {}
    first_s, first, deadline = 0.0, 0, time.monotonic() + _LIMIT_S
    try:
        partitions = [TopicPartition(FRAUD_SCORES.name, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while len(scores) < wanted:
            fetched = await consumer.getmany(timeout_ms=200)
            scores += [record.value for records in fetched.values() for record in records]
            if scores and not before:
                first_s, first, before = time.monotonic(), len(scores), processor_s()
            if time.monotonic() > deadline:
                raise DependencyError(
                    f"only {len(scores)} of {wanted} events were scored in {_LIMIT_S:.0f} s; the "
                    "workers' logs say why"
                )
        span, after = time.monotonic() - first_s, processor_s()
    finally:
        await consumer.stop()
    if len({orjson.loads(score)["transaction_id"] for score in scores}) != wanted:
        raise DependencyError("some transactions have two scores and some have none")
    timed = max(1, wanted - first)
    return {
        "events": wanted,
        "events_per_second": round(timed / span),
        "cpu_microseconds_per_event": {
            part: round((after[part] - before[part]) / timed * 1e6, 1) for part in after
        },
    }


def scrape(url: str) -> list[tuple[str, dict[str, str], float]]:
    """Samples of a metrics page: name, labels, value."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own worker on loopback
        text = answer.read().decode()
    return [(s.name, s.labels, s.value) for f in text_string_to_metric_families(text) for s in f.samples]


def environment() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
    }
