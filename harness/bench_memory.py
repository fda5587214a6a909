"""Bytes that Redis holds of one customer, by how often the customer pays."""

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from features.engine import Engine
from generator.bank import Bank
from generator.settings import BankSettings
from harness.bench import environment
from harness.inner import InnerPath, LogRecord
from infra.embedded import EmbeddedRedis
from infra.history_store import RedisHistoryStore
from models.model_set import Models
from models.registry import ModelRegistry
from schemas.errors import HistoryError
from schemas.parse import dump

RATES = (10, 30, 100, 300, 1000, 3000)
_DAYS = 150
"""The 120 days that are kept, and 30 in which what is older is let go of."""
_WINDOW_DAYS = 90
_CUSTOMERS = 5
_LOOKS = 30
_KINDS = {"h": "history", "b": "packed", "s": "scores", "c": "churn"}
_INDEXED = 5000


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What to measure.

    Attributes:
        rates: Events of a customer in 90 days.
    """

    data_dir: Path
    models: Path
    seed: int
    rates: tuple[int, ...] = RATES


def run_memory(plan: MemoryPlan) -> dict[str, Any]:
    """Feed customers of each rate through the worker's own path into an embedded Valkey and weigh them.

    Each customer is weighed after each of the last 30 chunks, one event a customer: between two times
    that a history is packed its size goes up and down. `MEMORY USAGE` counts the server's own
    structures too; the index is shared by all customers, so its share is of one with 5,000.
    """
    models = ModelRegistry(plan.models).load_champions(Engine())
    with EmbeddedRedis(plan.data_dir / "valkey", durable=False) as valkey:
        rows = [asyncio.run(_weigh(valkey.url, rate, models, plan.seed)) for rate in plan.rates]
        server = asyncio.run(_server(valkey.url))
    return {"customers": rows, "server": server, "environment": environment()}


async def _weigh(url: str, rate: int, models: Models, seed: int) -> dict[str, Any]:
    store = RedisHistoryStore(url, 1, namespace=f"r{rate}")
    client = redis.Redis.from_url(url)
    path = InnerPath(store, models)
    streams = _streams(rate, seed)
    weights: list[dict[str, int]] = []
    try:
        await path.start()
        # Names of the length of real ones; their scores are never looked at.
        await client.zadd(f"{{r{rate}:0}}:index", {f"x{n:07d}": n for n in range(_INDEXED)})
        turns = len(streams[0])
        for turn in range(turns):
            chunk = sorted((stream[turn] for stream in streams), key=lambda message: message["event_time"])
            await path.run(
                [
                    LogRecord(
                        turn * len(streams) + n, message["customer_id"].encode(), dump(message), 4102444800000
                    )
                    for n, message in enumerate(chunk)
                ]
            )
            if turn >= turns - _LOOKS:
                weights += [await _weight(client, rate, stream[0]["customer_id"]) for stream in streams]
    finally:
        await store.close()
        await client.aclose()
    if path.times.outcomes["scored"] != turns * len(streams):
        raise HistoryError(f"not every event was scored: {dict(path.times.outcomes)}")
    totals = [sum(weight.values()) for weight in weights]
    return {
        "events_in_90_days": rate,
        "bytes_mean": round(sum(totals) / len(totals)),
        "bytes_max": max(totals),
        "parts_mean": {
            name: round(sum(weight[name] for weight in weights) / len(weights)) for name in weights[0]
        },
    }


async def _weight(client: Any, rate: int, customer_id: str) -> dict[str, int]:
    tag = f"{{r{rate}:0}}"
    found = {
        name: int(await client.memory_usage(f"{tag}:{kind}:{customer_id}", samples=0) or 0)
        for kind, name in _KINDS.items()
    }
    index = int(await client.memory_usage(f"{tag}:index", samples=0))
    return found | {"index": round(index / await client.zcard(f"{tag}:index"))}


async def _server(url: str) -> dict[str, str]:
    client = redis.Redis.from_url(url)
    info = await client.info()
    await client.aclose()
    name = info.get("server_name", "redis")
    return {
        "name": str(name),
        "version": str(info.get(f"{name}_version", info.get("redis_version"))),
        "allocator": str(info["mem_allocator"]),
    }


def _streams(rate: int, seed: int) -> list[list[dict[str, Any]]]:
    """Messages of a few customers with equally many events: generated ones put together, then thinned."""
    wanted = max(1, round(rate * _DAYS / _WINDOW_DAYS))
    bank = Bank(
        BankSettings(
            customers=max(50, wanted // 10), days=_DAYS, seed=seed, start=datetime(2026, 1, 1, tzinfo=UTC)
        )
    )
    by_customer: dict[str, list[dict[str, Any]]] = {}
    for event in bank.events():
        if event.topic == "transactions":
            message = dict(event.message)
            by_customer.setdefault(str(message["customer_id"]), []).append(message)
    active = iter(by_customer.values())
    rng = random.Random(seed)  # noqa: S311 - a sample, no secret
    streams = []
    for number in range(_CUSTOMERS):
        merged: list[dict[str, Any]] = []
        while len(merged) < wanted:
            merged += next(active)
        chosen = sorted(rng.sample(range(len(merged)), wanted))
        merged.sort(key=lambda message: str(message["event_time"]))
        streams.append([merged[i] | {"customer_id": f"c{number:07d}"} for i in chosen])
    return streams
