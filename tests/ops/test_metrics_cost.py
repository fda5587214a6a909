"""What metrics cost: the share of a chunk's processing that is spent in the observer, in one run.

The log, the store and the publisher are in memory, which takes 40 to 60 microseconds of processor time an
event. A real worker takes 130 (`tidegate bench throughput`, 2026-11-26), its Kafka and Redis clients among
them: 5 % here are about 2 % of that.
"""

import time
from contextlib import AbstractContextManager

import pytest

from infra.metrics import WorkerMetrics
from schemas.topics import TRANSACTIONS
from tests.streaming import START_MS, Stream, transaction

pytestmark = pytest.mark.ops
# What a worker that drains a backlog gets: throughput is measured so.
_CHUNK, _CHUNKS = 2000, 5


class Timed:
    """Passes calls on and adds up the CPU time they take."""

    def __init__(self, observer):
        self._observer = observer
        self.seconds = 0.0

    def __getattr__(self, name):
        method = getattr(self._observer, name)

        def timed(*arguments):
            started = time.thread_time()
            result = method(*arguments)
            if isinstance(result, AbstractContextManager):
                result = _TimedStep(self, result)
            self.seconds += time.thread_time() - started
            return result

        return timed


class _TimedStep:
    """The two ends of a step, without what is between them."""

    def __init__(self, timed, step):
        self._timed, self._step = timed, step

    def __enter__(self):
        started = time.thread_time()
        self._step.__enter__()
        self._timed.seconds += time.thread_time() - started

    def __exit__(self, *error):
        started = time.thread_time()
        self._step.__exit__(*error)
        self._timed.seconds += time.thread_time() - started


async def test_metrics_cost_little(models, record_property):
    metrics = WorkerMetrics()
    metrics.use(models, 1)
    observer = Timed(metrics)
    stream = Stream(models, observer=observer)
    for number in range(_CHUNK * _CHUNKS):
        sent = transaction(number, customer=f"c-{number % 400}", event_time=START_MS + number * 60_000)
        stream.kafka.put(TRANSACTIONS.name, 0, sent)
    await stream.start()
    started = time.thread_time()
    while (chunk := stream.consumer.fetch(TRANSACTIONS.name, 0, _CHUNK)) is not None:
        await stream.worker.handle(chunk)
    whole = time.thread_time() - started
    share = observer.seconds / whole
    record_property("share", share)
    print(f"metrics: {share:.2%} of {whole:.1f} s CPU for {_CHUNK * _CHUNKS} events in chunks of {_CHUNK}")
    assert (
        metrics.registry.get_sample_value("tidegate_events_total", {"outcome": "scored"}) == _CHUNK * _CHUNKS
    )
    assert share < 0.05
