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
        seconds: Time in calls by their name, without that of reading the clock.
        calls: How often the clock was read around one.
    """

    def __init__(self, target: object, seconds: Counter[str], calls: Counter[str]) -> None:
        self._target, self._seconds, self._calls = target, seconds, calls

    def __getattr__(self, name):
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def timed(*arguments, **named):
            started = time.thread_time()
            result = attribute(*arguments, **named)
            if isinstance(result, AbstractContextManager):
                result = _TimedStep(self._ended, name, result)
            self._ended(name, started)
            return result

        # The next call finds it at once.
        setattr(self, name, timed)
        return timed

    def _ended(self, name, started):
        ended = time.thread_time()
        self._calls[name] += 1
        self._seconds[name] += ended - started
        # Reading the clock costs several times more here than in a loop that does nothing else.
        self._seconds[name] -= time.thread_time() - ended


class TimedMetrics(Timed):
    """A worker's metrics with those of its Redis and Kafka clients.

    Attributes:
        at: Seconds and numbers by call, and processor time of the whole process, as the first chunk of
            transactions came and as the newest was done.
    """

    def __init__(self, metrics: WorkerMetrics) -> None:
        super().__init__(metrics, Counter(), Counter())
        self.dependencies = Timed(metrics.dependencies, self._seconds, self._calls)
        self.at: list[tuple[Counter[str], Counter[str], float]] = []

    def _now(self):
        return self._seconds.copy(), self._calls.copy(), time.process_time()

    def step(self, name):
        if not self.at:
            self.at = [self._now()] * 2
        return self.__getattr__("step")(name)

    def progress(self, topic, partition, next_offset):
        started = time.thread_time()
        self._target.progress(topic, partition, next_offset)
        self._ended("progress", started)
        if topic == TRANSACTIONS.name and self.at:
            self.at[1] = self._now()


class _TimedStep:
    """The two ends of a step, without what is between them."""

    def __init__(self, ended, name, step):
        self._ended, self._name, self._step = ended, name, step

    def __enter__(self):
        started = time.thread_time()
        self._step.__enter__()
        self._ended(self._name, started)

    def __exit__(self, *error):
        started = time.thread_time()
        self._step.__exit__(*error)
        self._ended(self._name, started)


class _Nothing:
    def call(self):
        pass


def timing_s(calls=20_000):
    """What timing one call takes in all."""
    nothing = Timed(_Nothing(), Counter(), Counter())
    started = time.process_time()
    for _ in range(calls):
        nothing.call()
    return (time.process_time() - started) / calls


if __name__ == "__main__":
    settings = WorkerSettings()
    configure(settings.log_level, settings.log_format)
    metrics = TimedMetrics(WorkerMetrics())
    code = asyncio.run(run_worker(settings, metrics))
    (seconds_before, calls_before, before), (seconds, calls, after) = metrics.at
    seconds.subtract(seconds_before)
    calls.subtract(calls_before)
    all_s = timing_s()
    own_s = dict(seconds.most_common())
    figures = {
        "metrics_s": sum(own_s.values()),
        "worker_s": after - before - calls.total() * all_s,
        "timing_s": calls.total() * all_s,
        "by_call": {name: (calls[name], spent) for name, spent in own_s.items()},
    }
    Path(sys.argv[1]).write_text(json.dumps(figures))
    raise SystemExit(code)
