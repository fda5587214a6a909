"""Workers under a steady load for long: memory and lag must not grow.

    python -m tests.faults.soak --minutes 60 --rate 2000

Prints one JSON object a minute and a summary; ends with 1 where memory or lag grew, or the checker found
something. On Apache Kafka where Java and Maven are there, else on the embedded broker.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis import Redis

from infra.log_tail import LogTail
from models.registry import ModelRegistry
from tests.faults.world import BANK, World

_LOOK_S = 10.0
# What a worker caches has a bound; what is measured before it has warmed up says nothing.
_WARM = 1 / 3
_GROWTH = 1.15
_MOST_LAG_S = 5.0


def rss_mb(pid: int | None) -> float:
    """Resident memory of a process."""
    if pid is None:
        return 0.0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


async def lag(world: World, tail: LogTail) -> int:
    """Transactions in the log that the store does not have."""
    bounds = await tail.bounds([("transactions", p) for p in range(world.partitions)])
    positions = world.positions()
    return sum(end - positions[p] for (_, p), (_, end) in bounds.items())


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
                        "processed": sum(world.positions().values()),
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
    result: dict[str, Any] = {
        "seconds": seconds,
        "events_per_s": round((seen[-1]["processed"] - seen[0]["processed"]) / max(1, seconds)),
        "largest_lag": max(row["lag"] for row in warm),
    }
    for name in ("workers_mb", "redis_rss_mb", "redis_used_mb", "lag"):
        result[name] = {"first": mean(warm[:third], name), "last": mean(warm[-third:], name)}
    result["flat"] = result["workers_mb"]["last"] <= _GROWTH * result["workers_mb"]["first"]
    result["kept_up"] = result["lag"]["last"] <= _MOST_LAG_S * rate
    return result


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
    events = given.minutes * 60 * given.rate * 1.3
    # Customers enough that the bank's span stays below the retention of histories.
    bank = replace(BANK, customers=max(4000, int(events / (1.5 * BANK.days))))
    folder = Path(tempfile.mkdtemp(prefix="tidegate-soak-"))
    kafka = bool(shutil.which("java") and shutil.which("mvn"))
    world = World(folder, given.models.resolve(), kafka=kafka, settings={"chunk_records": 2000}, bank=bank)
    world.start()
    try:
        result = asyncio.run(_run(world, given))
    finally:
        world.close()
    print(json.dumps(result))
    return 0 if result["flat"] and result["kept_up"] and result["exact"] else 1


async def _run(world: World, given: argparse.Namespace) -> dict[str, Any]:
    seen = await soak(world, given.minutes, given.rate, given.workers)
    await world.drained(600)
    verdict = await world.verdict()
    return {
        **{"broker": "Apache Kafka" if world.kafka else "embedded", "rate": given.rate},
        **summary(seen, given.rate),
        **{
            "events": verdict.events,
            "exact": verdict.clean,
            "lost": verdict.lost,
            "doubled": verdict.doubled,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
