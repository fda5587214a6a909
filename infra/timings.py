"""How long things take: durations are noted as they end and counted many at once."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from infra.bulk_histogram import Buckets
from infra.deferred import Deferred

_COUNTED_AT_ONCE = 2_000
_Labels = tuple[str, ...]
Note = Callable[[tuple[_Labels, float], int], None]


class Timing:
    """Times what is done within it, also where that fails.

    Args:
        labels: What it is.
        note: Takes them with the duration in seconds.
    """

    __slots__ = ("_labels", "_note", "_started")

    def __init__(self, labels: _Labels, note: Note) -> None:
        self._labels, self._note = labels, note

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note((self._labels, time.perf_counter() - self._started), 1)


class Timings(Collector):
    """A histogram of durations; a scrape finds all that have ended counted.

    `prometheus_client.Histogram` looks through its buckets in Python for each.

    Attributes:
        noted: Takes labels and seconds of what was timed elsewhere.

    Args:
        name: Of the metric, ending in `_seconds`.
        documentation: Its meaning.
        labels: Their names.
        bounds: Upper bounds of the buckets in seconds, growing.
        registry: Where it is kept.

    >>> registry = CollectorRegistry()
    >>> timings = Timings("step_seconds", "Time.", ["step"], (60.0,), registry)
    >>> with timings.time("load"): pass
    >>> registry.get_sample_value("step_seconds_bucket", {"step": "load", "le": "60.0"})
    1.0
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation = name, documentation
        self._labelnames = tuple(labels)
        self._waiting = Deferred(self._count, _COUNTED_AT_ONCE, registry)
        self._buckets: defaultdict[_Labels, Buckets] = defaultdict(lambda: Buckets(bounds))
        self.noted: Note = self._waiting.add
        registry.register(self)

    def time(self, *labels: str) -> Timing:
        """Time what is done within the answer; values of the labels in their order."""
        return Timing(labels, self.noted)

    def _count(self, ended: list[tuple[_Labels, float]]) -> None:
        seconds: defaultdict[_Labels, list[float]] = defaultdict(list)
        for labels, duration in ended:
            seconds[labels].append(duration)
        for labels, durations in seconds.items():
            self._buckets[labels].observe(np.array(durations, dtype=np.float64))

    def describe(self) -> Iterator[Metric]:
        """The metric without values."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for labels, buckets in list(self._buckets.items()):
            buckets.add_to(family, labels)
        yield family
