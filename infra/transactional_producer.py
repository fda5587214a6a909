"""Publishing in Kafka transactions: readers of committed messages see each score exactly once.

One transactional id for each source partition. Taking a partition ends what its last owner left open and
fences that owner off in Kafka, as its lease is fenced off in the store. Needs Apache Kafka.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from features.ports import LeaseLost, PublishInDoubt
from infra.batch_producer import BATCH_BYTES, BatchProducer, Message, send_all
from schemas.errors import DependencyError

_TRANSACTION_TIMEOUT_S = 60.0
_CLOSE_S = 2.0


class TransactionalProducer(BatchProducer):
    """Publishes each call's messages in one transaction.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        prefix: Of the transactional ids; one for each group and namespace.
        timeout_s: Limit of one `publish`.
        last_topic: See `BatchProducer`.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        prefix: str,
        timeout_s: float = 30.0,
        last_topic: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(bootstrap, timeout_s=timeout_s, last_topic=last_topic, options=options)
        self._prefix = prefix
        self._producers: dict[int, AIOKafkaProducer] = {}

    async def stop(self) -> None:
        """Disconnect; what is open is ended by the next owner."""
        for partition in list(self._producers):
            await self._drop(partition)
        await super().stop()

    async def take(self, partition: int) -> None:
        """Become the one producer of a source partition; to be called behind its lease.

        Raises:
            DependencyError: The broker does not answer in time.
        """
        await self._drop(partition)
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            transactional_id=f"{self._prefix}-{partition}",
            transaction_timeout_ms=int(_TRANSACTION_TIMEOUT_S * 1000),
            max_batch_size=BATCH_BYTES,
            max_request_size=4 * BATCH_BYTES,
            request_timeout_ms=int(self._timeout_s * 1000),
            **self._options,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            await _close(producer)
            raise DependencyError(
                f"Kafka at {self._bootstrap} does not begin transactions: {error or type(error).__name__}"
            ) from error
        self._producers[partition] = producer

    async def publish(self, messages: Sequence[Message], source: int) -> Counter[str]:
        """Publish all in one transaction, or nothing; returns how many of each topic.

        Raises:
            LeaseLost: Somebody else took the partition.
            PublishInDoubt: The broker did not say how it ended: take the partition again and look.
        """
        producer = self._producers.get(source)
        if producer is None:
            raise PublishInDoubt(f"partition {source}: its last transaction did not end well")
        try:
            async with asyncio.timeout(self._timeout_s):
                await producer.begin_transaction()
                counts = await send_all(producer, messages, self._last_topic)
                await producer.commit_transaction()
                return counts
        except (ProducerFenced, InvalidProducerEpoch) as error:
            await self._drop(source)
            raise LeaseLost(f"partition {source}: its transactions are somebody else's") from error
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            # aiokafka asserts the state of its transaction: one that its own tasks found broken.
            await self._drop(source)
            raise PublishInDoubt(
                f"partition {source}: Kafka did not end a transaction: {error or type(error).__name__}"
            ) from error
        except BaseException:
            await self._drop(source)
            raise

    async def _drop(self, partition: int) -> None:
        producer = self._producers.pop(partition, None)
        if producer is not None:
            await _close(producer)


async def _close(producer: AIOKafkaProducer) -> None:
    # What it would wait for may never come: a transaction that is open is ended by the next owner.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_S):
            await producer.stop()
            return
    with contextlib.suppress(Exception):
        await producer.client.close()
