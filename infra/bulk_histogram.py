"""Metrics of arrays: a chunk's values at once, at a cost that hardly grows with each value."""

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_Values = npt.NDArray[np.float64]


class BulkHistogram(Collector):
    """A histogram that observes whole arrays.

    `prometheus_client.Histogram` looks through its buckets in Python for every value, which at
    thousands of events a second is a share of the time that scoring them takes.

    Args:
        name: Of the metric, with its unit.
        documentation: Its meaning.
        buckets: Upper bounds, growing; values above the last are counted too.
        registry: Where it is kept.

    >>> histogram = BulkHistogram("seconds", "Time.", (1.0, 2.0), CollectorRegistry())
    >>> histogram.observe(np.array([0.5, 2.0, 7.0, np.nan]))
    >>> [(s.labels["le"], s.value) for f in histogram.collect() for s in f.samples if "le" in s.labels]
    [('1.0', 1.0), ('2.0', 2.0), ('+Inf', 3.0)]
    """

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = np.array(buckets, dtype=np.float64)
        self._counts = np.zeros(len(buckets) + 1, dtype=np.int64)
        self._sum = 0.0
        # Scrapes come on a thread of their own: sum and counts must be of the same moment.
        self._lock = Lock()
        registry.register(self)

    def observe(self, values: _Values) -> None:
        """Count values; NaN is none."""
        known = values[~np.isnan(values)]
        # A bucket takes what is equal to its bound.
        counts = np.bincount(np.searchsorted(self._bounds, known, side="left"), minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(known.sum())

    def describe(self) -> Iterator[Metric]:
        """The metric without values."""
        yield HistogramMetricFamily(self._name, self._documentation)

    def collect(self) -> Iterator[Metric]:
        """The metric as it is now."""
        with self._lock:
            cumulative, total = np.cumsum(self._counts).tolist(), self._sum
        bounds = [*(str(bound) for bound in self._bounds.tolist()), "+Inf"]
        yield HistogramMetricFamily(
            self._name,
            self._documentation,
            buckets=list(zip(bounds, map(float, cumulative), strict=True)),
            sum_value=total,
        )


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
