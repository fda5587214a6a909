"""Prometheus metrics of the sink. No label ever names a customer."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from infra.metrics_server import process_registry, serve_metrics

REASONS: Final = ("unreadable", "repeated", "expired", "foreign", "erased", "moved")
"""Why a message may be left out."""


class SinkMetrics:
    """What the sink did."""

    def __init__(self) -> None:
        self.registry = r = process_registry()
        self._rows = Counter("tidegate_sink_rows_total", "Rows written to the event log.", registry=r)
        self._seconds = Histogram("tidegate_sink_flush_seconds", "Time to write and commit.", registry=r)
        self._skipped = Counter("tidegate_sink_skipped_total", "Messages left out.", ["reason"], registry=r)
        # Zeros from the first scrape on: a rate does not see what a series begins with.
        for reason in REASONS:
            self._skipped.labels(reason)
        self._erased = Counter("tidegate_sink_erased_customers_total", "Customers erased.", registry=r)
        self._merged = Counter("tidegate_sink_merged_files_total", "Files merged into others.", registry=r)
        self._retries = Counter("tidegate_retries_total", "Calls tried again.", ["dependency"], registry=r)
        self._behind = Gauge(
            "tidegate_sink_behind_seconds",
            "All that was published so long ago is in event log and index.",
            registry=r,
        )
        self._lag = Gauge(
            "tidegate_sink_lag_records", "Records that the sink has not read.", ["topic"], registry=r
        )

    def serve(self, host: str, port: int) -> None:
        """Answer `GET /metrics`."""
        serve_metrics(self.registry, host, port)

    def watch(self, behind_s: Callable[[], float]) -> None:
        """How far the event log is behind is asked for when the metrics are."""
        self._behind.set_function(behind_s)

    def lag(self, records: Mapping[str, int]) -> None:
        """How many records of each topic were not read."""
        for topic, count in records.items():
            self._lag.labels(topic).set(count)

    def flushed(self, rows: int, seconds: float) -> None:
        """Rows were written and committed."""
        self._rows.inc(rows)
        self._seconds.observe(seconds)

    def skipped(self, *left_out: Mapping[str, int]) -> None:
        """Messages were left out; how many, by reason."""
        for reason, count in chain.from_iterable(counts.items() for counts in left_out):
            if count:
                self._skipped.labels(reason).inc(count)

    def erased(self, customers: int) -> None:
        """Customers were erased from the event log and the index."""
        self._erased.inc(customers)

    def merged(self, files: int) -> None:
        """Files were merged."""
        self._merged.inc(files)

    def retry(self, dependency: str) -> None:
        """A call to a dependency failed and is tried again."""
        self._retries.labels(dependency).inc()
