"""Cold start: from a worker's process being started to its first score being readable."""

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.bench import environment
from harness.paced import PacedBank, PacedPublisher, PacedRun, ScoreReader
from harness.processes import WorkerProcess
from infra.embedded import EmbeddedStack
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError

_PARTITIONS: Final = 4
_WAITING: Final = 50
_LIMIT_S: Final = 300.0
_NUMBA_CACHE: Final = "NUMBA_CACHE_DIR"


@dataclass(frozen=True, slots=True)
class StartPlan:
    """Attributes: runs with kernels that are compiled already, and once with none if `compiling`."""

    data_dir: Path
    models: Path
    runs: int
    compiling: bool


def run_start(plan: StartPlan, say: Callable[[str], None]) -> dict[str, Any]:
    """Start workers over a log with some transactions in it, and wait for the first score of each.

    Raises:
        DependencyError: No score came.
    """
    result: dict[str, Any] = {}
    if plan.compiling:
        with _empty_kernel_cache(plan.data_dir / "kernels"):
            result["compiling"] = _one(plan, "compiling")
        say(f"kernels compiled: first score after {result['compiling']['first_score_s']} s")
    runs = []
    for number in range(plan.runs):
        runs.append(_one(plan, f"run-{number}"))
        say(f"kernels cached: first score after {runs[-1]['first_score_s']} s")
    cached = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return result | {"cached": cached, "runs": runs, "environment": environment()}


def _one(plan: StartPlan, name: str) -> dict[str, float]:
    return asyncio.run(_start(plan.data_dir / name, plan.models))


async def _start(folder: Path, models: Path) -> dict[str, float]:
    with ExitStack() as parts:
        stack = parts.enter_context(EmbeddedStack(folder, durable=False))
        await TopicsAdmin(stack.bootstrap).create(_PARTITIONS)
        run = PacedRun("start", _WAITING, None, limit_s=_LIMIT_S)
        reader = parts.enter_context(ScoreReader(stack.bootstrap, _PARTITIONS))
        await reader.answer()
        with PacedPublisher(stack.bootstrap, PacedBank(50, 7, 3, _PARTITIONS)) as publisher:
            await publisher.ask(run)
            await publisher.ask(run)
        settings = {"bootstrap": stack.bootstrap, "redis_url": stack.redis_url, "models": models.resolve()}
        worker = WorkerProcess(folder, settings | {"partitions": _PARTITIONS})
        parts.callback(worker.stop)
        started = time.monotonic()
        reader.tell(replace(run, begin=started))
        await asyncio.to_thread(worker.start, _LIMIT_S)
        answers = time.monotonic()
        read = await reader.answer()
        if np.isnan(read.at).all():
            raise DependencyError(f"no score came in {_LIMIT_S:.0f} s: the worker's log is {worker.log_path}")
        return {
            "metrics_answer_s": round(answers - started, 2),
            "first_score_s": round(float(np.nanmin(read.at)) - started, 2),
            "worker_cpu_s": round(worker.cpu_s(), 2),
        }


@contextmanager
def _empty_kernel_cache(folder: Path) -> Iterator[None]:
    """Have the processes of this one find no compiled kernels."""
    before = os.environ.get(_NUMBA_CACHE)
    folder.mkdir(parents=True)
    os.environ[_NUMBA_CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NUMBA_CACHE]
        else:
            os.environ[_NUMBA_CACHE] = before
