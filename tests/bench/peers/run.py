"""The same job by stock Faust, Quix Streams and Tidegate, one after the other on one machine.

    python -m tests.bench.peers.run --runs 5

Each run of each starts with a new broker and Redis, publishes the same transactions, and then starts one
process that drains them. The rate is that of the fraud scores which an independent process reads, from the
first to the last. Quix Streams is not among the project's own dependencies: `make peers` installs it.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import numpy as np

from cli.demo import ensure_models
from harness.bench import environment
from harness.paced import PacedBank, PacedPublisher, PacedRun, ScoreReader
from harness.processes import WorkerProcess
from infra.embedded import EmbeddedRedis, EmbeddedStack
from infra.kafka_cluster import KafkaCluster
from infra.topics_admin import TopicsAdmin

ROOT = Path(__file__).resolve().parents[3]
PARTITIONS = 4
NOTES = {
    "stock Faust": "exact windows only through Tidegate's engine; duplicates and late events not looked for, "
    "state and offset not tied together",
    "Quix Streams": "its own windows make rows of their own and drop late events; here a stateful function "
    "with Tidegate's engine, state in RocksDB with a changelog topic instead of Redis",
    "Tidegate": "exact windows, duplicates found, histories and offset in Redis in one step",
}


@contextmanager
def tidegate(folder, bootstrap, redis_url, models):
    settings = {
        "bootstrap": bootstrap,
        "redis_url": redis_url,
        "models": models,
        "partitions": PARTITIONS,
    }
    worker = WorkerProcess(folder, settings)
    try:
        worker.start(180.0)
        yield
    finally:
        worker.stop()


def peer(*command):
    @contextmanager
    def run(folder, bootstrap, redis_url, models):
        (folder / "peer").mkdir()
        environment = os.environ | {
            "PEER_BOOTSTRAP": bootstrap,
            "PEER_REDIS_URL": redis_url,
            "PEER_MODELS": str(models),
            "PEER_DIR": str(folder / "peer"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        with (folder / "peer.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=environment, cwd=folder, stdout=log, stderr=log
            )
            try:
                yield
            finally:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    return run


CANDIDATES = {
    "stock Faust": peer("-m", "tests.bench.peers.stock_faust", "worker", "-l", "warn"),
    "Quix Streams": peer("-m", "tests.bench.peers.quix"),
    "Tidegate": tidegate,
}


async def measure(name, bank, events, models, broker, limit_s):
    """Scored events a second of one run."""
    with tempfile.TemporaryDirectory(prefix="tidegate-peers-") as made, ExitStack() as parts:
        folder = Path(made)
        if broker == "embedded":
            stack = parts.enter_context(EmbeddedStack(folder, durable=False))
            bootstrap, redis_url = stack.bootstrap, stack.redis_url
        else:
            redis = parts.enter_context(EmbeddedRedis(folder, durable=False))
            bootstrap, redis_url = parts.enter_context(KafkaCluster(folder)).bootstrap, redis.url
        await TopicsAdmin(bootstrap).create(PARTITIONS)
        publisher = parts.enter_context(PacedPublisher(bootstrap, bank))
        reader = parts.enter_context(ScoreReader(bootstrap, PARTITIONS))
        await reader.answer()
        run = PacedRun("peer", events, None, limit_s=limit_s)
        await publisher.ask(run)
        # The publisher is done before anybody is timed.
        await publisher.ask(run)
        publisher.close()
        reader.tell(replace(run, begin=monotonic()))
        started = monotonic()
        with CANDIDATES[name](folder, bootstrap, redis_url, models):
            read = await reader.answer()
        missing = int(np.isnan(read.at).sum())
        if missing:
            log = folder / "peer.log"
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise SystemExit(f"{name}: {missing} of {events} had no score after {limit_s:g} s\n{said}")
        span = read.at.max() - read.at.min()
        return {
            "events_per_second": (events - 1) / span,
            "first_score_s": read.at.min() - started,
            "repeated": read.repeated,
        }


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--customers", type=int, default=2_000)
    parser.add_argument("--broker", choices=("kafka", "embedded"), default="kafka")
    parser.add_argument("--limit-s", type=float, default=180.0, help="of one run")
    parser.add_argument("--only", choices=list(CANDIDATES), action="append")
    parser.add_argument("--models", type=Path, default=Path(".tidegate/models"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names = given.only or list(CANDIDATES)
    if "Quix Streams" in names and find_spec("quixstreams") is None:
        raise SystemExit("quixstreams is not installed: make peers")
    ensure_models(given.models)
    bank = PacedBank(given.customers, 14, 3, PARTITIONS)
    runs = {name: [] for name in names}
    for number in range(given.runs):
        for name in names:
            run = asyncio.run(
                measure(name, bank, given.events, given.models.resolve(), given.broker, given.limit_s)
            )
            runs[name].append(run)
            print(f"run {number + 1}, {name}: {run['events_per_second']:,.0f} events/s", file=sys.stderr)
    medians = {n: statistics.median(r["events_per_second"] for r in those) for n, those in runs.items()}
    ours = medians.get("Tidegate")
    result = {
        "events": given.events,
        "broker": given.broker,
        "candidates": {
            name: {
                "events_per_second": round(medians[name]),
                "runs": [round(run["events_per_second"]) for run in runs[name]],
                "tidegate_to_it": round(ours / medians[name], 1) if ours else None,
                "note": NOTES[name],
            }
            for name in names
        },
        "environment": environment(),
    }
    if given.json:
        print(json.dumps(result))
        return
    print("| program | events/s, median | runs | Tidegate to it |\n| --- | ---: | --- | ---: |")
    for name, found in result["candidates"].items():
        shown = ", ".join(f"{rate:,}" for rate in found["runs"])
        print(f"| {name} | {found['events_per_second']:,} | {shown} | {found['tidegate_to_it']} |")
    print()
    for name, found in result["candidates"].items():
        print(f"- {name}: {found['note']}.")


if __name__ == "__main__":
    main()
