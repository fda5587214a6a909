"""`tidegate state`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.console import print_json
from cli.options import NAMESPACE, Namespace
from features.codec import decode
from infra.access import from_environment
from infra.history_store import RedisHistoryStore

app = typer.Typer(no_args_is_help=True, help="What Redis holds.")
_BATCH = 500


@app.callback()
def state() -> None:
    """What Redis holds."""


@app.command()
def totals(
    redis_url: Annotated[str, typer.Option(envvar="TIDEGATE_REDIS_URL", help="Redis or Valkey.")] = (
        "redis://127.0.0.1:6379/0"
    ),
    namespace: Namespace = NAMESPACE,
) -> None:
    """Print each customer's lifetime counts and sums, one JSON object a line.

    Sums are in minor units of the currencies as received; `kept` counts the events still in history.
    """

    async def run() -> None:
        _, redis = from_environment()
        store = RedisHistoryStore(redis_url, namespace=namespace, options=redis.options(redis_url))
        try:
            async for row in _totals(store):
                print_json(row)
        finally:
            await store.close()

    asyncio.run(run())


async def _totals(store: RedisHistoryStore) -> AsyncIterator[dict[str, Any]]:
    for partition in range(await store.partitions()):
        customers = await store.customers(partition)
        for start in range(0, len(customers), _BATCH):
            batch = customers[start : start + _BATCH]
            for customer_id, stored in zip(batch, await store.load(partition, batch), strict=True):
                history = decode(stored)
                yield {
                    "customer_id": customer_id,
                    "partition": partition,
                    **asdict(history.totals),
                    "kept": int((history.records["kind"] == 0).sum()),
                }
