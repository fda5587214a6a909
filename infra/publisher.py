"""Prepared messages to Kafka, one at a time, with an account of what the broker has acknowledged."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from infra.partitioning import partition_for
from schemas.errors import ConfigError, DependencyError, EventError

TopicPartition = tuple[str, int]

_AWAY = (KafkaError, OSError, TimeoutError)
_BATCH_BYTES = 256 * 1024
# After this many messages the sender gets a turn, even where nothing made us wait.
_TURN = 256
# A batch that is not full is sent after this: what a slow stream pays in latency.
_LINGER_S = 0.005
_LAST_TRY_S = 1.0


class Publisher:
    """Publishes with acks from all in-sync replicas, in order for each key. An async context manager.

    Messages are collected into a batch for each partition: that costs a fifth of a call per message. At most
    one more batch waits while one is under way, then `publish` waits for the broker, so memory is bounded.
    A batch is retried for `delivery_timeout_s`, then publishing fails for good.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        topics: Must be there; a broker that makes topics by itself would make them with the wrong
            number of partitions.
        idempotent: Let the broker drop what a retry repeats. Off, because the embedded broker cannot;
            the worker counts an event once by its id anyway.
        connect_timeout_s: How long to go on trying to connect.
        delivery_timeout_s: How long to go on trying to send a message.
        connection: More settings of `AIOKafkaProducer`, such as `security_protocol`.
        on_wait: Called with the error and the pause in seconds before each new try to connect.

    Attributes:
        sent: Messages handed over.
        acknowledged: Messages that the broker has confirmed.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        topics: Sequence[str] = (),
        idempotent: bool = False,
        connect_timeout_s: float = 15.0,
        delivery_timeout_s: float = 30.0,
        connection: Mapping[str, Any] | None = None,
        on_wait: Callable[[str, float], None] = lambda error, pause_s: None,
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._idempotent = idempotent
        self._connect_timeout_s = connect_timeout_s
        self._delivery_timeout_s = delivery_timeout_s
        self._connection = dict(connection or {})
        self._on_wait = on_wait
        self._producer: AIOKafkaProducer | None = None
        self._failure: BaseException | None = None
        self._partitions: dict[str, int] = {}
        self._open: dict[TopicPartition, Any] = {}
        self._locks: defaultdict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lingers = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self.sent = 0
        self.acknowledged = 0

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            DependencyError: No broker answered in time.
            ConfigError: A topic is not there.
        """
        tries = AsyncRetrying(
            retry=retry_if_exception_type(_AWAY),
            wait=wait_random_exponential(multiplier=0.2, max=2.0),
            stop=stop_after_delay(self._connect_timeout_s),
            before_sleep=self._report,
            reraise=True,
        )
        try:
            self._producer = await tries(self._connect)
        except _AWAY as error:
            raise self._away(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # What was handed over is sent, also when the caller has failed since: it was told so.
            with nullcontext() if error is None else suppress(DependencyError):
                await self.flush()
        finally:
            producer, self._producer = self._producer, None
            for task in self._tasks:
                task.cancel()
            if producer is not None:
                await self._stop(producer)

    async def publish(self, topic: str, key: bytes, value: bytes, timestamp_ms: int | None = None) -> None:
        """Hand one message over; it is sent with the next batch of its partition.

        Args:
            topic: Its topic.
            key: Chooses the partition, as in the Java client (murmur2).
            value: The message.
            timestamp_ms: The record's own time. `None`, the time of publishing, is nearly always right:
                with old event times here, the broker's retention would delete the records at once.

        Raises:
            DependencyError: This or an earlier message was not taken in time.
            ConfigError: There is no such topic.
            EventError: The message is too large.
        """
        if self._failure is not None:
            raise self._away(self._failure)
        if len(value) > _BATCH_BYTES // 2:
            raise EventError("too_large", f"the message is {len(value)} bytes long, too many for one batch")
        if self._producer is None:
            raise RuntimeError("publish outside of 'async with'")
        if (partitions := self._partitions.get(topic)) is None:
            raise self._no_topic([topic])
        tp = (topic, partition_for(key.decode(), partitions))
        while self._batch(self._producer, tp).append(key=key, value=value, timestamp=timestamp_ms) is None:
            await self._send(tp)
            if self._failure is not None:
                raise self._away(self._failure)
        self.sent += 1
        if self.sent % _TURN == 0:
            await asyncio.sleep(0)

    async def flush(self) -> None:
        """Return when the broker has acknowledged everything.

        Raises:
            DependencyError: It did not in time; `acknowledged` says how much it took.
        """
        await self._send_all()
        # More than once: a batch that waits behind another is not yet the producer's.
        while self._producer is not None and self._under_way and self._failure is None:
            await self._producer.flush()
            await asyncio.sleep(0)
        if self._failure is not None:
            raise self._away(self._failure)

    def _batch(self, producer: AIOKafkaProducer, tp: TopicPartition) -> Any:
        if (batch := self._open.get(tp)) is None:
            batch = self._open[tp] = producer.create_batch()
            if not self._lingers:
                self._lingers = True
                # The loop itself keeps no task alive.
                task = asyncio.create_task(self._send_soon())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return batch

    async def _send_soon(self) -> None:
        await asyncio.sleep(_LINGER_S)
        self._lingers = False
        await self._send_all()

    async def _send_all(self) -> None:
        await asyncio.gather(*(self._send(tp) for tp in list(self._open)))

    async def _send(self, tp: TopicPartition) -> None:
        # One after the other, in the order in which they were asked for: a batch must not overtake.
        async with self._locks[tp]:
            batch = self._open.pop(tp, None)
            if batch is None or self._producer is None or self._failure is not None:
                return
            batch.close()
            self._under_way += 1
            try:
                future = await self._producer.send_batch(batch, tp[0], partition=tp[1])
            except BaseException as error:
                self._under_way -= 1
                if not isinstance(error, _AWAY):
                    raise
                self._failure = self._failure or error
                return
            future.add_done_callback(partial(self._done, batch.record_count()))

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=self._idempotent,
            max_batch_size=_BATCH_BYTES,
            request_timeout_ms=int(self._delivery_timeout_s * 1000),
            **self._connection,
        )
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await producer.start()
                # Asks for all topics: asking for one by name makes it on some brokers.
                cluster = await producer.client.fetch_all_metadata()
        except BaseException:
            await producer.stop()
            raise
        self._partitions = {topic: len(cluster.partitions_for_topic(topic)) for topic in cluster.topics()}
        if missing := sorted(set(self._topics) - set(self._partitions)):
            await producer.stop()
            raise self._no_topic(missing)
        return producer

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        # It would wait once more for what cannot be delivered.
        limit_s = None if self._failure is None else _LAST_TRY_S
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await producer.stop()

    def _done(self, count: int, future: "asyncio.Future[Any]") -> None:
        self._under_way -= 1
        if future.cancelled():
            return
        if (error := future.exception()) is None:
            self.acknowledged += count
        else:
            self._failure = self._failure or error

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._on_wait(_words(error), state.next_action.sleep if state.next_action else 0.0)

    def _no_topic(self, missing: Sequence[str]) -> ConfigError:
        return ConfigError(
            f"Kafka at {self._bootstrap} has no topic {' and no '.join(missing)}:"
            " run 'tidegate topics create'"
        )

    def _away(self, error: BaseException) -> DependencyError:
        return DependencyError(f"Kafka at {self._bootstrap} does not answer: {_words(error)}")


def _words(error: BaseException | None) -> str:
    # Some of Kafka's errors and all time-outs are a bare class.
    return str(error) or type(error).__name__
