"""Faust agents: one loop for each input topic, each a chunk at a time."""

from collections.abc import AsyncIterable, Callable
from typing import Any

import faust

from schemas.topics import CUSTOMERS, LABELS, TRANSACTIONS
from stream_app.transport import Chunk
from stream_app.worker import Worker

INPUTS = (TRANSACTIONS, LABELS, CUSTOMERS)


def add_agents(app: faust.App, worker: Callable[[], Worker]) -> None:
    """Subscribe to the input topics.

    Values stay bytes: an undecodable message must become a dead letter, not an exception, which
    Faust would acknowledge.
    """
    for topic in INPUTS:
        channel = app.topic(topic.name, key_serializer="raw", value_serializer="raw", internal=False)
        app.agent(channel, name=f"tidegate.{topic.name}", concurrency=1)(_loop(worker))


def _loop(worker: Callable[[], Worker]) -> Any:
    async def run(stream: AsyncIterable[Chunk]) -> None:
        async for chunk in stream:
            await worker().handle(chunk)

    return run
