"""Faust agents: one for each input topic, which hands chunks to the worker as they come."""

from collections.abc import AsyncIterable, Callable
from typing import Any

import faust

from schemas.topics import CUSTOMERS, ERASURES, LABELS, TRANSACTIONS
from stream_app.transport import Chunk
from stream_app.worker import Worker

INPUTS = (TRANSACTIONS, LABELS, CUSTOMERS, ERASURES)


def add_agents(app: faust.App, worker: Callable[[], Worker]) -> None:
    """Subscribe to the input topics.

    Values stay bytes: an undecodable message must become a dead letter, not an exception, which
    Faust would acknowledge.
    """
    for topic in INPUTS:
        channel = app.topic(topic.name, key_serializer="raw", value_serializer="raw", internal=False)
        app.agent(channel, name=f"tidegate.{topic.name}", concurrency=1)(_loop(worker))


def _loop(worker: Callable[[], Worker]) -> Any:
    async def run(stream: AsyncIterable[list[Chunk]]) -> None:
        # Not awaited to their end: a chunk that waits for Redis would hold up all partitions behind it.
        async for chunks in stream:
            for chunk in chunks:
                worker().submit(chunk)

    return run
