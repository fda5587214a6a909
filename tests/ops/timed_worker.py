"""A worker that writes what its metrics cost: `python -m tests.ops.timed_worker FILE`."""

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

from infra.logs import configure
from infra.metrics import WorkerMetrics
from schemas.topics import TRANSACTIONS
from stream_app.app import run_worker
from stream_app.settings import WorkerSettings


class Timed:
    """Passes calls on to an object and adds up the processor time they take.

    Args:
        target: What is called.
        seconds: Time in calls by their name, reading the clock included.
    """

    def __init__(self, target: object, seconds: Counter[str]) -> None:
        self._target = target
        self._seconds = seconds

    def __getattr__(self, name):
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def timed(*arguments, **named):
            started = time.thread_time()
            result = attribute(*arguments, **named)
            if isinstance(result, AbstractContextManager):
                result = _TimedStep(name, self._seconds, result)
            self._seconds[name] += time.thread_time() - started
            return result

        # The next call finds it at once.
        setattr(self, name, timed)
        return timed


class TimedMetrics(Timed):
    """A worker's metrics with those of its Redis and Kafka clients.

    Attributes:
        at: Seconds by call, and processor time of the whole process, as the first chunk of transactions came
            and as the newest was done.
    """

    def __init__(self, metrics: WorkerMetrics) -> None:
        super().__init__(metrics, Counter())
        self.dependencies = Timed(metrics.dependencies, self._seconds)
        self.at: list[tuple[Counter[str], float]] = []

    def step(self, name):
        if not self.at:
            self.at = [(self._seconds.copy(), time.process_time())] * 2
        return self.__getattr__("step")(name)

    def progress(self, topic, partition, next_offset):
        started = time.thread_time()
        self._target.progress(topic, partition, next_offset)
        self._seconds["progress"] += time.thread_time() - started
        if topic == TRANSACTIONS.name and self.at:
            self.at[1] = (self._seconds.copy(), time.process_time())


class _TimedStep:
    """The two ends of a step, without what is between them."""

    def __init__(self, name, seconds, step):
        self._name, self._seconds, self._step = name, seconds, step

    def __enter__(self):
        started = time.thread_time()
        self._step.__enter__()
        self._seconds[self._name] += time.thread_time() - started

    def __exit__(self, *error):
        started = time.thread_time()
        self._step.__exit__(*error)
        self._seconds[self._name] += time.thread_time() - started


if __name__ == "__main__":
    settings = WorkerSettings()
    configure(settings.log_level, settings.log_format)
    metrics = TimedMetrics(WorkerMetrics())
    code = asyncio.run(run_worker(settings, metrics))
    (metrics_before, before), (metrics_after, after) = metrics.at
    metrics_after.subtract(metrics_before)
    figures = {
        "metrics_s": metrics_after.total(),
        "worker_s": after - before,
        "by_call": dict(metrics_after.most_common()),
    }
    Path(sys.argv[1]).write_text(json.dumps(figures))
    raise SystemExit(code)
