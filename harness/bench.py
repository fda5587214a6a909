"""Measurements of the whole path, seen from outside."""

import asyncio
import os
import platform
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from generator.bank import Bank
from generator.settings import BankSettings
from harness.demo import PARTITIONS
from harness.feed import Feed
from harness.processes import WorkerProcess
from harness.watch import Watcher
from infra.embedded import EmbeddedStack
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError

_LIMIT_S = 300.0


@dataclass(frozen=True, slots=True)
class ThroughputPlan:
    """A backlog to drain.

    Attributes:
        customers, days: Size of the bank: about two transactions a customer and day.
        runs: Repetitions; the figure is their median.
        entities: That the models have features of.
    """

    data_dir: Path
    models: Path
    customers: int
    days: int
    seed: int
    runs: int
    entities: str = ""


def run_throughput(plan: ThroughputPlan) -> dict[str, Any]:
    """Publish a backlog, then start one worker and time its scores.

    The publisher is idle while the worker is timed. The rate is that of scores read by an
    independent consumer, from the first to the last.
    """
    runs = [asyncio.run(_throughput(plan, number)) for number in range(plan.runs)]
    runs.sort(key=lambda run: run["events_per_second"])
    median = runs[len(runs) // 2]
    return {
        "events_per_second": median["events_per_second"],
        "runs": [run["events_per_second"] for run in runs],
        "events": median["events"],
        "step_microseconds_per_event": median["steps"],
        "chunk_records_mean": median["chunk_records_mean"],
        "environment": environment(),
    }


async def _throughput(plan: ThroughputPlan, number: int) -> dict[str, Any]:
    with EmbeddedStack(plan.data_dir / f"run-{number}", durable=False) as stack:
        await TopicsAdmin(stack.bootstrap).create(PARTITIONS)
        producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap, linger_ms=20, max_batch_size=1 << 18)
        await producer.start()
        bank = BankSettings(
            customers=plan.customers, days=plan.days, seed=plan.seed, start=datetime(2026, 1, 1, tzinfo=UTC)
        )
        feed = Feed(producer, Bank(bank), bank.end_ms)
        await feed.past(bank.end_ms)
        await producer.stop()
        worker = WorkerProcess(
            plan.data_dir / f"run-{number}",
            {
                "bootstrap": stack.bootstrap,
                "redis_url": stack.redis_url,
                "models": plan.models.resolve(),
                "partitions": PARTITIONS,
                "entities": plan.entities,
            },
        )
        watcher = Watcher(stack.bootstrap, PARTITIONS, {})
        watching = asyncio.create_task(watcher.run())
        try:
            await asyncio.to_thread(worker.start, 120.0)
            if not await watcher.until(feed.sent.transactions, 0, _LIMIT_S):
                raise DependencyError(
                    f"only {len(watcher.seen.scores)} of {feed.sent.transactions} events were scored in "
                    f"{_LIMIT_S:.0f} s; the worker's log is {worker.log_path}"
                )
            metrics = await asyncio.to_thread(scrape, f"{worker.url}/metrics")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            worker.stop()
        span = watcher.seen.last_score - watcher.seen.first_score
        events = len(watcher.seen.scores)
        steps = {
            labels["step"]: round(seconds / events * 1e6, 2)
            for name, labels, seconds in metrics
            if name == "tidegate_step_seconds_sum"
        }
        chunks = next(
            v
            for n, labels, v in metrics
            if n == "tidegate_chunk_records_count" and labels["topic"] == "transactions"
        )
        return {
            "events": events,
            "events_per_second": round(events / span),
            "steps": steps,
            "chunk_records_mean": round(events / chunks),
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
