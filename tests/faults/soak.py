"""Workers under a steady load for long: memory and lag must not grow.

    python -m tests.faults.soak --minutes 60 --rate 2000

Prints one JSON object a minute and a summary; ends with 1 where memory or lag grew, or the checker found
something. On Apache Kafka where Java and Maven are there, else on the embedded broker.

The bank is as large as its events pass the retention of histories in a third of the time: from then on the
store lets go of as much as it takes in. A day of the bank passes in seconds, and every day rescores every
customer's churn: seven of its customers are one here, so that this is a part of the load and not most of it.
What the machine was busy with is recorded beside: lag on a machine whose processors others use says nothing
about the worker.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis import Redis

from generator.events import BankEvent
from infra.log_tail import LogTail
from models.registry import ModelRegistry
from tests.faults.checker import Verdict, check, read_log
from tests.faults.traffic import BANK
from tests.faults.world import World

_LOOK_S = 10.0
# What is cached has a bound, histories fill up; what is measured before says nothing.
_WARM = 0.4
_GROWTH = 1.15
_MOST_LAG_S = 5.0
_RETENTION_DAYS = 120
_EVENTS_A_DAY = 1.33  # of a customer of the generated bank
_BANK_CUSTOMERS = 7
_TICKS = os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int | None) -> float:
    """Resident memory of a process."""
    if pid is None:
        return 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def busier(events: Iterator[BankEvent], customers: int) -> Iterator[BankEvent]:
    """The same events, as of fewer customers who have as many more each."""
    for event in events:
        number = int(str(event.message["customer_id"])[1:]) % customers
        yield replace(event, message={**event.message, "customer_id": f"c{number:07d}"})


async def lag(world: World, tail: LogTail) -> int:
    """Transactions in the log that the store does not have."""
    bounds = await tail.bounds([("transactions", p) for p in range(world.partitions)])
    positions = world.positions()
    return sum(end - positions[p] for (_, p), (_, end) in bounds.items())


def cpu_s(pid: int | None) -> float:
    """Processor time that a process has had, in seconds."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return round((int(fields[11]) + int(fields[12])) / _TICKS, 2)


def waited_s(pid: int | None) -> float:
    """How long the threads of a process stood ready while others had the processors, in seconds."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat") if pid else ():
        total += int(path.read_text().split()[1])
    return round(total / 1e9, 2)


def machine() -> dict[str, float]:
    """Load of the last minute and the seconds of all processors since start, busy and stolen."""
    fields = [int(x) / _TICKS for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(fields) - fields[3] - fields[4]
    return {"load": round(os.getloadavg()[0], 1), "busy_s": round(busy, 1), "steal_s": round(fields[7], 1)}


async def soak(world: World, minutes: float, rate: int, workers: int) -> list[dict[str, Any]]:
    """Look every 10 s while the load runs."""
    seen: list[dict[str, Any]] = []
    tail = LogTail(world.bootstrap)
    await tail.start()
    try:
        async with world.load(rate, workers=workers):
            began = time.monotonic()
            while (at := time.monotonic() - began) < minutes * 60:
                with Redis(port=world.redis.port) as client:
                    used = client.info("memory")["used_memory"]
                seen.append(
                    {
                        "second": round(at),
                        "lag": await lag(world, tail),
                        "workers_mb": [rss_mb(worker.pid) for worker in world.workers],
                        "redis_rss_mb": rss_mb(world.redis.pid),
                        "redis_used_mb": round(used / 2**20, 1),
                        "sent": world.traffic.sent,
                        "processed": sum(world.positions().values()),
                        "workers_cpu_s": [cpu_s(worker.pid) for worker in world.workers],
                        "workers_waited_s": [waited_s(worker.pid) for worker in world.workers],
                        **machine(),
                    }
                )
                if len(seen) % 6 == 1:
                    print(json.dumps(seen[-1]), flush=True)
                await asyncio.sleep(_LOOK_S)
    finally:
        await tail.stop()
    return seen


def summary(seen: list[dict[str, Any]], rate: int) -> dict[str, Any]:
    """What grew between the end of the warm-up and the end."""
    warm = seen[int(len(seen) * _WARM) :]
    third = max(1, len(warm) // 3)

    def mean(rows: list[dict[str, Any]], name: str) -> float:
        values = [max(row[name]) if isinstance(row[name], list) else row[name] for row in rows]
        return round(sum(values) / len(values), 1)

    seconds = seen[-1]["second"] - seen[0]["second"]

    def spent(name: str) -> float:
        first, last = (
            row[name] if isinstance(row[name], list) else [row[name]] for row in (seen[0], seen[-1])
        )
        return round((sum(last) - sum(first)) / max(1, seconds), 3)

    result: dict[str, Any] = {
        "seconds": seconds,
        "events_per_s": round((seen[-1]["processed"] - seen[0]["processed"]) / max(1, seconds)),
        "sent_per_s": round(spent("sent")),
        "largest_lag": max(row["lag"] for row in warm),
        "workers_cores": spent("workers_cpu_s"),
        "workers_waiting_for_cores": spent("workers_waited_s"),
        "machine_busy_cores": spent("busy_s"),
        "stolen_cores": spent("steal_s"),
        "load": mean(warm, "load"),
    }
    for name in ("workers_mb", "redis_rss_mb", "redis_used_mb", "lag"):
        result[name] = {"first": mean(warm[:third], name), "last": mean(warm[-third:], name)}
    for name in ("workers_mb", "redis_used_mb"):
        result[f"{name}_flat"] = result[name]["last"] <= _GROWTH * result[name]["first"]
    result["kept_up"] = result["lag"]["last"] <= _MOST_LAG_S * rate
    return result


async def verdicts(world: World, folder: Path) -> list[Verdict]:
    """The checker's word, partition by partition: all at once would need the memory of a larger machine."""
    log = await read_log(world.bootstrap, folder=folder, timeout_s=3600)
    with Redis(port=world.redis.port, socket_timeout=30) as client:
        return [check(log, client, partition=p) for p in range(world.partitions)]


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=2000, help="events published per second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--models", type=Path, default=Path(".tidegate/models"), help="a trained registry")
    given = parser.parse_args()
    if not (given.models / "fraud").is_dir():
        print(f"no models in {given.models}: run 'tidegate train' first", file=sys.stderr)
        return 2
    ModelRegistry(given.models)
    events = given.minutes * 60 * given.rate
    # As many customers as publish the retention's events in a third of the time. Nobody joins or leaves:
    # the histories of all who ever were customers would grow in number.
    customers = max(100, int(events / 3 / _RETENTION_DAYS / _EVENTS_A_DAY))
    bank = replace(BANK, customers=customers, days=6 * _RETENTION_DAYS, churn_rate=0.0, join_rate=0.0)
    folder = Path(tempfile.mkdtemp(prefix="tidegate-soak-"))
    kafka = bool(shutil.which("java") and shutil.which("mvn"))
    world = World(folder, given.models.resolve(), kafka=kafka, settings={"chunk_records": 2000}, bank=bank)
    world.traffic.events = busier(world.traffic.events, customers // _BANK_CUSTOMERS)
    world.start()
    try:
        result = asyncio.run(_run(world, given))
    finally:
        world.close()
    print(json.dumps(result))
    held = ("workers_mb_flat", "redis_used_mb_flat", "kept_up", "exact")
    return 0 if all(result[name] for name in held) else 1


async def _run(world: World, given: argparse.Namespace) -> dict[str, Any]:
    seen = await soak(world, given.minutes, given.rate, given.workers)
    result = {"broker": "Apache Kafka" if world.kafka else "embedded", "rate": given.rate}
    result |= summary(seen, given.rate)
    # What was measured is said before the log is checked, which takes as long as a part of it.
    print(json.dumps(result), flush=True)
    await world.drained(1800)
    spool = world.folder / "log"
    spool.mkdir()
    found = await verdicts(world, spool)
    names = ("events", "lost", "doubled", "conflicting", "repeated", "wrong_states", "conflicting_churn")
    result |= {name: sum(getattr(verdict, name) for verdict in found) for name in names}
    for verdict in found:
        if not verdict.clean:
            print(verdict, file=sys.stderr)
    return result | {"exact": all(verdict.clean for verdict in found)}


if __name__ == "__main__":
    sys.exit(main())
