"""Load at a fixed rate and an independent reader of its scores, each in a process of its own.

The schedule does not wait for anybody: message `n` of a run is due at `begin + n / rate`, and what comes
of it is timed from then on. A publisher that waited for answers would leave out just those messages that
would have come late (coordinated omission). Both processes read one clock, the machine's monotonic one.
"""

import asyncio
import gc
import multiprocessing
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, Final, Self

import msgspec
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from generator.bank import Bank
from generator.settings import BankSettings
from infra.partitioning import partition_for
from schemas.errors import DependencyError
from schemas.fields import epoch_ms_to_rfc3339
from schemas.parse import dump
from schemas.topics import FRAUD_SCORES, TRANSACTIONS

# Shorter pauses cost the cores more requests than they save the messages time.
_TICK_S: Final = 0.001
_BATCH_BYTES: Final = 200_000
# The embedded broker looks again after half of it; Apache Kafka answers as soon as there is something.
_FETCH_WAIT_MS: Final = 5
_START_S: Final = 0.2
_END_S: Final = 10.0
_START: Final = datetime(2025, 1, 1, tzinfo=UTC)

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PacedBank:
    """Transactions that are published: a bank's, and when they have all been, again as many days later.

    Attributes:
        days: Whole weeks keep habits of weekdays.
    """

    customers: int
    days: int
    seed: int
    partitions: int


@dataclass(frozen=True, slots=True)
class PacedRun:
    """A row of messages.

    Attributes:
        name: Their ids begin with it.
        count: How many.
        rate: Messages a second; `None` publishes as fast as it goes.
        begin: When the first is due, on the monotonic clock; 0 for now.
        limit_s: How long the reader waits after the last was due.
    """

    name: str
    count: int
    rate: float | None
    begin: float = 0.0
    limit_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Published:
    """When messages went out, each by its number, on the monotonic clock.

    Attributes:
        handed_over: Given to the Kafka client.
        acknowledged: The broker has it.
    """

    handed_over: Seconds
    acknowledged: Seconds


@dataclass(frozen=True, slots=True)
class ScoresRead:
    """When scores were read, by the number of their message; NaN for those that did not come.

    Attributes:
        repeated: Scores of a message that had one.
    """

    at: Seconds
    repeated: int


class _Helper:
    """A process that is asked over a pipe and answers."""

    def __init__(self, serve: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        # A fresh interpreter: a fork of this one would share its connections and threads.
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._name = serve.__name__.strip("_")
        self._process = context.Process(target=_serve, args=(serve, there, *args), daemon=True)
        self._process.start()
        there.close()

    async def ask(self, question: Any) -> Any:
        """Ask and wait for the answer.

        Raises:
            DependencyError: The process failed or has ended.
        """
        self.tell(question)
        return await self.answer()

    def tell(self, question: Any) -> None:
        """Ask; `answer` waits."""
        try:
            self._here.send(question)
        except OSError as error:
            raise DependencyError(f"the benchmark's {self._name} has ended") from error

    async def answer(self) -> Any:
        """The answer to the oldest question that has none yet."""
        try:
            answer = await asyncio.to_thread(self._here.recv)
        except (EOFError, OSError) as error:
            raise DependencyError(f"the benchmark's {self._name} has ended") from error
        if isinstance(answer, Exception):
            raise DependencyError(f"the benchmark's {self._name} failed: {answer!r}") from answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._here.close()
        self._process.join(_END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class PacedPublisher(_Helper):
    """Publishes runs; asked with a `PacedRun`, answers `Published`."""

    def __init__(self, bootstrap: str, bank: PacedBank) -> None:
        super().__init__(_publisher, bootstrap, bank)


class ScoreReader(_Helper):
    """Reads fraud scores; asked with a `PacedRun`, answers `ScoresRead`."""

    def __init__(self, bootstrap: str, partitions: int) -> None:
        super().__init__(_reader, bootstrap, partitions)


def _serve(serve: Callable[..., Coroutine[Any, Any, None]], pipe: Connection, *args: Any) -> None:
    try:
        asyncio.run(serve(pipe, *args))
    except (EOFError, KeyboardInterrupt):
        return
    except (KafkaError, OSError, ValueError, TypeError) as error:
        pipe.send(DependencyError(repr(error)))


async def _publisher(pipe: Connection, bootstrap: str, bank: PacedBank) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=2 * _BATCH_BYTES, acks="all")
    await producer.start()
    try:
        messages = _messages(bank)
        while True:
            run: PacedRun = await asyncio.to_thread(pipe.recv)
            made = [_named(next(messages), run.name, number) for number in range(run.count)]
            # What was made stays: nothing is to be looked through while the clock runs.
            gc.collect()
            gc.freeze()
            pipe.send(None)
            run = await asyncio.to_thread(pipe.recv)
            pipe.send(await _Pace(producer, run, made).publish())
    finally:
        await producer.stop()


def _messages(bank: PacedBank) -> Iterator[tuple[int, bytes, dict[str, Any], int]]:
    """Partition, key, message and event time of transactions without end."""
    settings = BankSettings(customers=bank.customers, days=bank.days, seed=bank.seed, start=_START)
    lap = []
    for event in Bank(settings).events():
        if event.topic == "transactions":
            customer_id = str(event.message["customer_id"])
            partition = partition_for(customer_id, bank.partitions)
            lap.append((partition, customer_id.encode(), event.message, event.time_ms))
            yield lap[-1]
    shift_ms = 0
    while True:
        shift_ms += bank.days * 86_400_000
        for partition, key, message, time_ms in lap:
            yield partition, key, message, time_ms + shift_ms


def _named(
    message: tuple[int, bytes, dict[str, Any], int], run: str, number: int
) -> tuple[int, bytes, bytes]:
    partition, key, fields, time_ms = message
    own = {"transaction_id": f"{run}-{number}", "event_time": epoch_ms_to_rfc3339(time_ms)}
    return partition, key, dump(fields | own)


class _Pace:
    """One run of the publisher: one batch of a partition is under way, what is due meanwhile waits."""

    def __init__(
        self, producer: AIOKafkaProducer, run: PacedRun, messages: list[tuple[int, bytes, bytes]]
    ) -> None:
        self._producer = producer
        self._run = run
        self._messages = messages
        self._waiting: dict[int, list[int]] = {partition: [] for partition, _, _ in messages}
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._handed_over = np.full(run.count, np.nan)
        self._acknowledged = np.full(run.count, np.nan)

    async def publish(self) -> Published:
        begin, rate = self._run.begin or time.monotonic(), self._run.rate
        done = 0
        while done < self._run.count:
            now = time.monotonic()
            due = self._run.count if rate is None else int((now - begin) * rate) + 1
            if done < (due := min(due, self._run.count)) and now >= begin:
                for number in range(done, due):
                    self._waiting[self._messages[number][0]].append(number)
                self._handed_over[done:due] = now
                done = due
                for partition, waiting in self._waiting.items():
                    if waiting and partition not in self._sending:
                        self._sending[partition] = asyncio.create_task(self._send(partition))
            next_due = begin + done / rate if rate else now
            await asyncio.sleep(max(next_due - time.monotonic(), _TICK_S))
        await asyncio.gather(*self._sending.values())
        return Published(self._handed_over, self._acknowledged)

    async def _send(self, partition: int) -> None:
        waiting = self._waiting[partition]
        while waiting:
            batch, count, size = self._producer.create_batch(), 0, 0
            while count < len(waiting) and size < _BATCH_BYTES:
                _, key, value = self._messages[waiting[count]]
                batch.append(key=key, value=value, timestamp=None)
                count, size = count + 1, size + len(value) + len(key) + 16
            numbers = np.array(waiting[:count])
            del waiting[:count]
            batch.close()
            await (await self._producer.send_batch(batch, TRANSACTIONS.name, partition=partition))
            self._acknowledged[numbers] = time.monotonic()
        del self._sending[partition]


class _Score(msgspec.Struct):
    transaction_id: str


async def _reader(pipe: Connection, bootstrap: str, partitions: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(FRAUD_SCORES.name, p) for p in range(partitions)])
        for tp in consumer.assignment():
            # Known before anything is published.
            await consumer.position(tp)
        pipe.send(None)
        gc.disable()
        while True:
            run: PacedRun = await asyncio.to_thread(pipe.recv)
            pipe.send(await _read(consumer, run))
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, run: PacedRun) -> ScoresRead:
    at, repeated, missing = np.full(run.count, np.nan), 0, run.count
    prefix, decode = f"{run.name}-", msgspec.json.Decoder(_Score).decode
    begin = run.begin or time.monotonic()
    deadline = begin + (run.count / run.rate if run.rate else 0.0) + run.limit_s
    while missing and time.monotonic() < deadline:
        fetched = await consumer.getmany(timeout_ms=200)
        # Read is what the client has handed out, not what this loop has looked at.
        now = time.monotonic()
        for records in fetched.values():
            for record in records:
                transaction_id = decode(record.value).transaction_id
                if not transaction_id.startswith(prefix):
                    continue
                number = int(transaction_id.removeprefix(prefix))
                if at[number] == at[number]:
                    repeated += 1
                    continue
                at[number] = now
                missing -= 1
    return ScoresRead(at, repeated)


async def paced(
    publisher: PacedPublisher, reader: ScoreReader, run: PacedRun
) -> tuple[PacedRun, Published, ScoresRead]:
    """Publish a run and read its scores; the run comes back with the time at which it began.

    Raises:
        DependencyError: Publisher or reader failed.
    """
    await publisher.ask(run)
    run = replace(run, begin=time.monotonic() + _START_S)
    reader.tell(run)
    publisher.tell(run)
    published, read = await asyncio.gather(publisher.answer(), reader.answer())
    return run, published, read
