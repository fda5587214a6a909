"""Latency at fixed rates: from a transaction being due to its score being readable by somebody else."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.bench import Broker, broker_name, environment, scrape
from harness.paced import PacedBank, PacedPublisher, PacedRun, Published, ScoreReader, ScoresRead, paced
from harness.processes import WorkerProcess
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError

PARTITIONS: Final = 4
STEPS: Final = ("parse", "load", "score", "encode", "publish", "pack", "commit")
_PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}
_BUCKETS_MS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500, 1000, 2000, 5000, 10000)
_WARM_UP_S: Final = 2.0
_PAST_LIMIT_S: Final = 300.0
# Behind its own schedule by more than this, the publisher and not the worker is what is seen.
_LATE_MS: Final = 5.0
# What is read later than this after the last message was due was not keeping up.
_KEEPS_UP_MS: Final = 1000.0


@dataclass(frozen=True, slots=True)
class LatencyPlan:
    """What is measured.

    Attributes:
        customers, days: Of the bank whose transactions are processed before, as histories.
        rates: Events a second, one after the other over one worker.
        seconds: Of each; two more before them are not counted.
        bootstrap, redis_url: Of a deployment; both empty start embedded ones.
        metrics_url: Of a worker that runs there; empty starts one.
        settings: More settings of a worker that is started.
        broker: What is started where `bootstrap` is empty.
    """

    data_dir: Path
    models: Path
    customers: int
    days: int
    seed: int
    rates: tuple[float, ...]
    seconds: float
    bootstrap: str = ""
    redis_url: str = ""
    metrics_url: str = ""
    settings: Mapping[str, object] | None = None
    broker: Broker = Broker.AUTO


def run_latency(plan: LatencyPlan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure one rate after the other; ends early where the worker cannot follow.

    Raises:
        DependencyError: A part does not start, or the histories before are not processed in time.
    """
    return asyncio.run(_run(plan, say))


async def _run(plan: LatencyPlan, say: Callable[[str], None]) -> dict[str, Any]:
    with ExitStack() as parts:
        bootstrap, redis_url, broker = plan.bootstrap, plan.redis_url, ""
        if not bootstrap:
            stack = parts.enter_context(plan.broker.start(plan.data_dir))
            bootstrap, redis_url, broker = stack.bootstrap, stack.redis_url, broker_name(stack)
            say(f"broker: {broker}")
        await TopicsAdmin(bootstrap).create(PARTITIONS)
        partitions = await TopicsAdmin(bootstrap).source_partitions()
        metrics_url = plan.metrics_url
        run = f"l{secrets.token_hex(3)}"
        if not metrics_url:
            # A group and keys of its own: nothing of a deployment is touched but its topics.
            own = {"group": f"bench-{run}", "namespace": f"bench-{run}", "bootstrap": bootstrap}
            worker = WorkerProcess(
                plan.data_dir,
                {**own, "redis_url": redis_url, "models": plan.models.resolve(), **(plan.settings or {})},
            )
            parts.callback(worker.stop)
            await asyncio.to_thread(worker.start, 180.0)
            metrics_url = f"{worker.url}/metrics"
        bank = PacedBank(plan.customers, plan.days, plan.seed, partitions)
        publisher = parts.enter_context(PacedPublisher(bootstrap, bank))
        reader = parts.enter_context(ScoreReader(bootstrap, partitions))
        await reader.answer()
        measure = _Measure(publisher, reader, metrics_url, run)
        past = plan.customers * plan.days * 3 // 2
        say(f"histories: {past:,} transactions of {plan.customers:,} customers")
        await measure.past(past)
        results = []
        for rate in plan.rates:
            results.append(await measure.rate(rate, plan.seconds))
            say(line(results[-1]))
            if results[-1]["saturated"]:
                break
        return {
            "rates": results,
            "seconds": plan.seconds,
            "customers": plan.customers,
            "history_transactions": past,
            "partitions": partitions,
            "embedded": not plan.bootstrap,
            "broker": broker or bootstrap,
            "environment": environment(),
        }


class _Measure:
    """Runs against one worker."""

    def __init__(self, publisher: PacedPublisher, reader: ScoreReader, metrics_url: str, run: str) -> None:
        self._publisher, self._reader, self._metrics_url, self._run = publisher, reader, metrics_url, run

    async def past(self, count: int) -> None:
        run = PacedRun(f"{self._run}p", count, None, limit_s=_PAST_LIMIT_S)
        _, _, read = await paced(self._publisher, self._reader, run)
        if missing := int(np.isnan(read.at).sum()):
            raise DependencyError(
                f"{missing:,} of {count:,} transactions had no score after {_PAST_LIMIT_S:.0f} s: see the "
                "worker's log, or take fewer --customers or --days"
            )

    async def rate(self, rate: float, seconds: float) -> dict[str, Any]:
        skip = int(rate * _WARM_UP_S)
        run = PacedRun(f"{self._run}r{rate:g}", skip + int(rate * seconds), rate)
        before = await asyncio.to_thread(scrape, self._metrics_url)
        run, published, read = await paced(self._publisher, self._reader, run)
        after = await asyncio.to_thread(scrape, self._metrics_url)
        return summary(run, published, read, skip) | _worker(before, after, run.count)


def summary(run: PacedRun, published: Published, read: ScoresRead, skip: int) -> dict[str, Any]:
    """Figures of a run.

    Args:
        run: With the time at which it began.
        published: When its messages went out.
        read: When their scores were read.
        skip: So many messages at the beginning are not counted.
    """
    rate = run.rate or float("inf")
    due = run.begin + np.arange(run.count) / rate
    latency_ms = ((read.at - due) * 1000)[skip:]
    late_ms = ((published.handed_over - due) * 1000)[skip:]
    acknowledged_ms = ((published.acknowledged - due) * 1000)[skip:]
    missing = int(np.isnan(latency_ms).sum())
    # A score that never came is later than any that did.
    known = np.where(np.isnan(latency_ms), np.inf, latency_ms)
    counts = np.bincount(np.searchsorted(_BUCKETS_MS, known), minlength=len(_BUCKETS_MS) + 1)
    quarter = max(1, len(known) // 4)
    return {
        "rate": rate,
        "events": len(known),
        "missing": missing,
        "repeated": read.repeated,
        "latency_ms": percentiles(known),
        "histogram_ms": [
            {"up_to": bound, "events": int(count)}
            for bound, count in zip([*_BUCKETS_MS, None], counts, strict=True)
        ],
        "acknowledged_ms": percentiles(acknowledged_ms),
        "publisher_late_ms": percentiles(late_ms),
        "publisher_late": bool(np.percentile(late_ms, 99) > _LATE_MS),
        # Where the last quarter is slow throughout, what waits only grows.
        "saturated": bool(missing or np.median(known[-quarter:]) > _KEEPS_UP_MS),
    }


def percentiles(values_ms: "np.ndarray[Any, np.dtype[np.float64]]") -> dict[str, float | None]:
    """Percentiles in milliseconds; `None` for what was never reached.

    >>> percentiles(np.array([1.0, 2.0, np.inf]))["p50"], percentiles(np.array([1.0, np.inf]))["max"]
    (2.0, None)
    """
    # Of the values themselves: between a finite and an infinite one nothing can be interpolated.
    found = {n: float(np.percentile(values_ms, p, method="higher")) for n, p in _PERCENTILES.items()}
    return {name: round(value, 2) if np.isfinite(value) else None for name, value in found.items()}


def _worker(
    before: list[tuple[str, dict[str, str], float]],
    after: list[tuple[str, dict[str, str], float]],
    events: int,
) -> dict[str, Any]:
    """What the worker's own metrics say of a run."""

    def grown(name: str, **labels: str) -> float:
        def of(samples: list[tuple[str, dict[str, str], float]]) -> float:
            return sum(v for n, found, v in samples if n == name and found.items() >= labels.items())

        return of(after) - of(before)

    chunks = grown("tidegate_chunk_records_count", topic="transactions")
    return {
        "step_microseconds_per_event": {
            step: round(grown("tidegate_step_seconds_sum", step=step) / events * 1e6, 1) for step in STEPS
        },
        "step_milliseconds_per_chunk": {
            step: round(1000 * grown("tidegate_step_seconds_sum", step=step) / max(1.0, chunks), 2)
            for step in STEPS
        },
        "chunk_records_mean": round(events / max(1.0, chunks), 1),
        "worker_cpu_microseconds_per_event": round(grown("process_cpu_seconds_total") / events * 1e6, 1),
    }


def line(result: dict[str, Any]) -> str:
    """One rate in a line for people."""
    shown = ", ".join(
        f"{name.replace('_', '.')} {'never' if value is None else f'{value:g} ms'}"
        for name, value in result["latency_ms"].items()
    )
    notes = [f"{result['missing']:,} never came"] if result["missing"] else []
    notes += ["the worker does not keep up"] if result["saturated"] else []
    notes += ["the PUBLISHER WAS LATE: not a figure of the worker"] if result["publisher_late"] else []
    return f"{result['rate']:,.0f}/s: {shown}" + "".join(f"; {note}" for note in notes)
