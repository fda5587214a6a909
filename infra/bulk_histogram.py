"""Metrics of arrays: a chunk's values at once, at a cost that hardly grows with each value."""

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

_Values = npt.NDArray[np.float64]


class Buckets:
    """Counts of values by upper bound, with the newest traced value of each bucket.

    Args:
        bounds: Upper bounds, growing; values above the last are counted too.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds, dtype=np.float64)
        self._names = [*map(str, self._bounds.tolist()), "+Inf"]
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}
        # Scrapes come on a thread of their own: sum and counts must be of the same moment.
        self._lock = Lock()

    def observe(self, values: _Values) -> None:
        """Count values; NaN is none."""
        known = values[~np.isnan(values)]
        # A bucket takes what is equal to its bound.
        counts = np.bincount(np.searchsorted(self._bounds, known, side="left"), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(known.sum())

    def show(self, exemplar: Exemplar) -> None:
        """An example of a value that is counted by itself."""
        bucket = int(np.searchsorted(self._bounds, exemplar.value, side="left"))
        with self._lock:
            self._exemplars[bucket] = exemplar

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Add what is counted to a metric."""
        with self._lock:
            cumulative, total = np.cumsum(self._counts).tolist(), self._sum
            exemplars = dict(self._exemplars)
        buckets: list[Any] = [
            (name, float(count), exemplars[i]) if i in exemplars else (name, float(count))
            for i, (name, count) in enumerate(zip(self._names, cumulative, strict=True))
        ]
        family.add_metric(labels, buckets, total)


class BulkHistogram(Collector):
    """A histogram that observes whole arrays.

    `prometheus_client.Histogram` looks through its buckets in Python for every value, which at
    thousands of events a second is a share of the time that scoring them takes.

    Args:
        name: Of the metric, with its unit.
        documentation: Its meaning.
        bounds: Of its `Buckets`.
        registry: Where it is kept.

    >>> histogram = BulkHistogram("seconds", "Time.", (1.0, 2.0), CollectorRegistry())
    >>> histogram.observe(np.array([0.5, 2.0, 7.0, np.nan]))
    >>> [(s.labels["le"], s.value) for f in histogram.collect() for s in f.samples if "le" in s.labels]
    [('1.0', 1.0), ('2.0', 2.0), ('+Inf', 3.0)]
    """

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation = name, documentation
        self._buckets = Buckets(bounds)
        self.observe, self.show = self._buckets.observe, self._buckets.show
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The metric without values."""
        yield HistogramMetricFamily(self._name, self._documentation)

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        family = HistogramMetricFamily(self._name, self._documentation)
        self._buckets.add_to(family)
        yield family


class BulkCounter(Collector):
    """A counter with one label that counts for all its values at once.

    Args:
        name: Of the metric, without `_total`.
        documentation: Its meaning.
        label: Name of its label.
        registry: Where it is kept.

    >>> counter = BulkCounter("unknown", "Unknown.", "feature", CollectorRegistry())
    >>> counter.use(["a", "b"])
    >>> counter.inc(np.array([2, 0]))
    >>> [(s.labels["feature"], s.value) for f in counter.collect() for s in f.samples]
    [('a', 2), ('b', 0)]
    """

    def __init__(self, name: str, documentation: str, label: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._labelnames = (label,)
        self._values: tuple[str, ...] = ()
        self._counts = np.zeros(0, dtype=np.int64)
        registry.register(self)

    def use(self, values: Sequence[str]) -> None:
        """Count for these values of the label from now on, from zero."""
        self._values, self._counts = tuple(values), np.zeros(len(values), dtype=np.int64)

    def inc(self, counts: npt.NDArray[np.int64]) -> None:
        """Add to each value, in their order."""
        self._counts += counts

    def describe(self) -> Iterator[Metric]:
        """The metric without values."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for value, count in zip(self._values, self._counts.tolist(), strict=True):
            family.add_metric([value], count)
        yield family
