"""Consumers without a group: how each of them is connected."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from infra.addresses import check_bootstrap
from schemas.errors import DependencyError


async def connected(
    bootstrap: str, *, timeout_s: float, options: Mapping[str, Any] | None = None, **settings: Any
) -> AIOKafkaConsumer:
    """A consumer that is started and has no partitions yet; nothing is committed by itself.

    It reads what was committed: a producer that aborts its transaction has said nothing.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        timeout_s: Limit of connecting.
        options: Encryption and login, from `infra.access`.
        settings: Of aiokafka's consumer.

    Raises:
        ConfigError: That is no address.
        DependencyError: The broker does not answer in time.
    """
    check_bootstrap(bootstrap)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        **{"isolation_level": "read_committed", **(options or {}), **settings},
    )
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
    except (KafkaError, OSError, TimeoutError) as error:
        with suppress(KafkaError, OSError):
            await consumer.stop()
        raise DependencyError(f"Kafka at {bootstrap} does not answer: {error or error!r}") from error
    return consumer
