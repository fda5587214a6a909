"""A worker that writes what its metrics cost: `python -m tests.ops.timed_worker FILE`."""

import asyncio
import json
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from infra.logs import configure
from infra.metrics import WorkerMetrics
from schemas.topics import TRANSACTIONS
from stream_app.app import run_worker
from stream_app.settings import WorkerSettings


class TimedMetrics:
    """Passes calls on to the worker's metrics and adds up the processor time they take.

    Attributes:
        seconds: In calls so far, reading the clock included.
        at: `seconds`, and processor time of the whole process, as the first chunk of transactions came and
            as the newest was done.
    """

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self.seconds = 0.0
        self.at: list[tuple[float, float]] = []

    def __getattr__(self, name):
        attribute = getattr(self._metrics, name)
        if not callable(attribute):
            return attribute

        def timed(*arguments, **named):
            started = time.thread_time()
            result = attribute(*arguments, **named)
            if isinstance(result, AbstractContextManager):
                result = _TimedStep(self, result)
            self.seconds += time.thread_time() - started
            return result

        # The next call finds it at once.
        setattr(self, name, timed)
        return timed

    def step(self, name):
        if not self.at:
            self.at = [(self.seconds, time.process_time())] * 2
        return self.__getattr__("step")(name)

    def progress(self, topic, partition, next_offset):
        started = time.thread_time()
        self._metrics.progress(topic, partition, next_offset)
        self.seconds += time.thread_time() - started
        if topic == TRANSACTIONS.name and self.at:
            self.at[1] = (self.seconds, time.process_time())


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


if __name__ == "__main__":
    settings = WorkerSettings()
    configure(settings.log_level, settings.log_format)
    metrics = TimedMetrics(WorkerMetrics())
    code = asyncio.run(run_worker(settings, metrics))
    (metrics_before, before), (metrics_after, after) = metrics.at
    figures = {"metrics_s": metrics_after - metrics_before, "worker_s": after - before}
    Path(sys.argv[1]).write_text(json.dumps(figures))
    raise SystemExit(code)
