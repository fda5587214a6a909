"""Processor time of the worker's own steps, without a broker and without waiting."""

import asyncio
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.engine import Engine
from generator.bank import Bank
from generator.settings import BankSettings
from harness.bench import environment
from harness.inner import InnerPath, LogRecord
from infra.memory_store import MemoryHistoryStore
from models.model_set import Models
from models.registry import ModelRegistry
from schemas.errors import HistoryError
from schemas.parse import dump
from stream_app.collector import collect_rarely

STEPS = ("parse", "load", "score", "encode", "pack")
_PUBLISHED_MS = 4_102_444_800_000


@dataclass(frozen=True, slots=True)
class StepsPlan:
    """A log to go through.

    Attributes:
        customers, days: Size of the bank: about two transactions a customer and day.
        chunk: Records of a chunk.
        runs: Repetitions from empty histories; figures are medians.
    """

    models: Path
    customers: int
    days: int
    seed: int
    chunk: int
    runs: int


def run_steps(plan: StepsPlan) -> dict[str, Any]:
    """Go through recorded chunks and add up the processor time of each step."""
    models = ModelRegistry(plan.models).load_champions(Engine())
    models.engine.warm_up()
    bank = BankSettings(
        customers=plan.customers, days=plan.days, seed=plan.seed, start=datetime(2026, 1, 1, tzinfo=UTC)
    )
    log = [
        LogRecord(offset, str(message["customer_id"]).encode(), dump(message), _PUBLISHED_MS)
        for offset, message in enumerate(
            event.message for event in Bank(bank).events() if event.topic == "transactions"
        )
    ]
    # As the worker does.
    collect_rarely()
    chunks = [log[start : start + plan.chunk] for start in range(0, len(log), plan.chunk)]
    runs = [asyncio.run(_run(chunks, models)) for _ in range(plan.runs)]
    medians = {step: round(statistics.median(run[step] for run in runs), 2) for step in STEPS}
    return {
        "events": len(log),
        "chunk_records": plan.chunk,
        "runs": plan.runs,
        "cpu_microseconds_per_event": medians,
        "sum": round(sum(medians.values()), 2),
        "environment": environment(),
    }


async def _run(chunks: list[list[LogRecord]], models: Models) -> dict[str, float]:
    path = InnerPath(MemoryHistoryStore(), models)
    await path.start()
    for chunk in chunks:
        await path.run(chunk)
    events = sum(map(len, chunks))
    if path.times.outcomes["scored"] != events:
        raise HistoryError(f"not every event was scored: {dict(path.times.outcomes)}")
    return {step: path.times.seconds[step] / events * 1e6 for step in STEPS}
