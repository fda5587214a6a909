"""Prometheus metrics of the worker. No label ever names a customer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server


class WorkerMetrics:
    """An observer of the stream that Prometheus can read."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._step = Counter("tidegate_step_seconds_total", "Time spent by step.", ["step"], registry=r)
        self._records = Counter(
            "tidegate_records_total", "Records of committed chunks.", ["topic"], registry=r
        )
        self._size = Histogram(
            "tidegate_chunk_records",
            "Records of one chunk.",
            ["topic"],
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
            registry=r,
        )
        self._outcomes = Counter(
            "tidegate_events_total", "Events by what became of them.", ["outcome"], registry=r
        )
        self._refused = Counter("tidegate_dead_letters_total", "Refused messages.", ["reason"], registry=r)
        self._retries = Counter("tidegate_retries_total", "Calls tried again.", ["dependency"], registry=r)
        self._leases = Counter("tidegate_lease_changes_total", "Changes of leases.", ["change"], registry=r)
        self._next = Gauge(
            "tidegate_next_offset", "Next offset to process.", ["topic", "partition"], registry=r
        )

    def serve(self, host: str, port: int) -> None:
        """Answer `GET /metrics`."""
        start_http_server(port, addr=host, registry=self.registry)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step of a chunk."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._step.labels(name).inc(time.perf_counter() - started)

    def chunk(self, topic: str, records: int) -> None:
        """A chunk was committed."""
        self._records.labels(topic).inc(records)
        self._size.labels(topic).observe(records)

    def outcome(self, name: str, count: int = 1) -> None:
        """Events ended in some way."""
        if count:
            self._outcomes.labels(name).inc(count)

    def dead_letter(self, reason: str) -> None:
        """A message was refused."""
        self._refused.labels(reason).inc()

    def retry(self, dependency: str) -> None:
        """A call to a dependency failed and is tried again."""
        self._retries.labels(dependency).inc()

    def lease(self, event: str) -> None:
        """A lease changed."""
        self._leases.labels(event).inc()

    def progress(self, topic: str, partition: int, next_offset: int) -> None:
        """How far a partition is."""
        self._next.labels(topic, str(partition)).set(next_offset)
