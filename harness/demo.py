"""The demo: a bank, everything that scores it, and what came of it."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from generator.bank import Bank
from generator.settings import BankSettings
from harness.feed import Feed, Sent
from harness.processes import ApiProcess, WorkerProcess
from harness.view import Screen
from harness.watch import Seen, Watcher
from infra.embedded import EmbeddedStack
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError
from schemas.fields import to_epoch_ms

PARTITIONS = 4
ENTITIES = "merchant,device"
_DRAIN_S = 120.0
_LIVE_DAYS = 4.0


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What is run.

    Attributes:
        data_dir: Data and logs of all parts.
        models: Registry with a fraud and a churn model.
        bank: Its last day is today.
        seconds: How long the live part lasts.
        hold: Whether to keep everything up afterwards until told to stop.
    """

    data_dir: Path
    models: Path
    bank: BankSettings
    seconds: float
    hold: bool = False


async def run_demo(plan: DemoPlan, show: Callable[[Screen], None], hold: asyncio.Event) -> dict[str, Any]:
    """Run the plan and sum it up.

    Raises:
        DependencyError: A part did not start.
    """
    with EmbeddedStack(plan.data_dir, durable=False) as stack:
        await TopicsAdmin(stack.bootstrap).create(PARTITIONS)
        settings = {
            "bootstrap": stack.bootstrap,
            "redis_url": stack.redis_url,
            "models": plan.models.resolve(),
            "partitions": PARTITIONS,
            "entities": ENTITIES,
        }
        worker = WorkerProcess(plan.data_dir, settings)
        api = ApiProcess(plan.data_dir, settings)
        with contextlib.ExitStack() as parts:
            # Both take some seconds to load: side by side.
            starting = [asyncio.to_thread(part.start, 120.0) for part in (worker, api)]
            for part in (worker, api):
                parts.callback(part.stop)
            await asyncio.gather(*starting)
            urls = {"API": f"{api.url}/docs", "metrics": f"{worker.url}/metrics"}
            return await _Run(plan, stack, worker, urls, show, hold).run()


class _Run:
    """One run over started parts."""

    def __init__(
        self,
        plan: DemoPlan,
        stack: EmbeddedStack,
        worker: WorkerProcess,
        urls: dict[str, str],
        show: Callable[[Screen], None],
        hold: asyncio.Event,
    ) -> None:
        self._plan, self._stack, self._worker, self._urls = plan, stack, worker, urls
        self._show, self._hold = show, hold
        self._phase = "starting"
        self._rates: list[tuple[float, int]] = []

    async def run(self) -> dict[str, Any]:
        now_ms = to_epoch_ms(datetime.now(UTC))
        live_from = now_ms - int(_LIVE_DAYS * 86_400_000)
        producer = AIOKafkaProducer(
            bootstrap_servers=self._stack.bootstrap, linger_ms=5, max_batch_size=1 << 18, acks="all"
        )
        await producer.start()
        feed = Feed(producer, Bank(self._plan.bank), now_ms)
        watcher = Watcher(self._stack.bootstrap, PARTITIONS, feed.sent.due)
        watching = asyncio.create_task(watcher.run())
        drawing = asyncio.create_task(self._draw(feed.sent, watcher.seen))
        try:
            self._phase = f"the bank's past: {self._plan.bank.days} days as fast as it goes"
            await feed.past(live_from)
            await feed.bad()
            await self._drained(watcher, feed.sent)
            history = _rate(watcher.seen)
            self._phase = f"live: the last {_LIVE_DAYS:.0f} days in {self._plan.seconds:.0f} s"
            await feed.present(live_from, now_ms, self._plan.seconds)
            await self._drained(watcher, feed.sent)
            if self._plan.hold:
                self._phase = "everything is scored and stays up: press Ctrl-C to end"
                await self._hold.wait()
            return summary(feed.sent, watcher.seen, history)
        finally:
            for task in (watching, drawing):
                task.cancel()
            await asyncio.gather(watching, drawing, return_exceptions=True)
            await producer.stop()

    async def _drained(self, watcher: Watcher, sent: Sent) -> None:
        if not await watcher.until(sent.transactions, sent.bad, _DRAIN_S):
            state = "runs" if self._worker.running else "has ended"
            raise DependencyError(
                f"only {len(watcher.seen.scores)} of {sent.transactions} transactions were scored in time; "
                f"the worker {state}, its log is {self._worker.log_path}"
            )

    async def _draw(self, sent: Sent, seen: Seen) -> None:
        while True:
            self._rates = [*self._rates[-10:], (time.monotonic(), len(seen.scores))]
            (t0, n0), (t1, n1) = self._rates[0], self._rates[-1]
            rate = (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
            self._show(Screen(self._phase, self._urls, sent, seen, rate))
            await asyncio.sleep(0.25)


def _rate(seen: Seen) -> float:
    span = seen.last_score - seen.first_score
    return len(seen.scores) / span if span > 0 else 0.0


def summary(sent: Sent, seen: Seen, history_rate: float) -> dict[str, Any]:
    """Figures of a finished run; `ok` is whether everything came out once."""
    flagged = {t for t, decision in seen.scores.items() if decision != "allow"}
    frauds = set(sent.frauds)
    caught = flagged & frauds
    by_typology: Counter[str] = Counter(sent.frauds.values())
    caught_by: Counter[str] = Counter(sent.frauds[t] for t in caught)
    latency = np.array(seen.latency_s) * 1000
    ok = (
        sent.transactions > 0
        and len(seen.scores) == sent.transactions
        and not seen.repeated
        and seen.dead_letters.total() == sent.bad
        and seen.churn > 0
    )
    return {
        "ok": ok,
        "events_in": sent.transactions,
        "fraud_scores_out": len(seen.scores),
        "repeated_scores": seen.repeated,
        "churn_scores_out": seen.churn,
        "alerts": dict(seen.alerts),
        "dead_letters": dict(seen.dead_letters),
        "bad_messages_sent": sent.bad,
        "labels_in": sent.labels,
        "events_per_second": round(history_rate),
        "latency_ms": {
            "events": len(latency),
            "p50": round(float(np.percentile(latency, 50)), 1) if len(latency) else None,
            "p99": round(float(np.percentile(latency, 99)), 1) if len(latency) else None,
        },
        "fraud": {
            "frauds": len(frauds),
            "flagged": len(flagged),
            "precision": round(len(caught) / len(flagged), 3) if flagged else None,
            "recall": round(len(caught) / len(frauds), 3) if frauds else None,
            "recall_by_typology": {
                name: round(caught_by[name] / count, 3) for name, count in sorted(by_typology.items())
            },
            "lookalikes_flagged": round(
                len(flagged & set(sent.lookalikes) - frauds) / max(1, len(sent.lookalikes)), 4
            ),
        },
    }
