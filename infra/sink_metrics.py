"""Prometheus metrics of the sink. No label ever names a customer."""

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server


class SinkMetrics:
    """What the sink did."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._rows = Counter("tidegate_sink_rows_total", "Rows written to the event log.", registry=r)
        self._seconds = Histogram("tidegate_sink_flush_seconds", "Time to write and commit.", registry=r)
        self._skipped = Counter("tidegate_sink_skipped_total", "Messages left out.", ["reason"], registry=r)
        self._erased = Counter("tidegate_sink_erased_customers_total", "Customers erased.", registry=r)
        self._merged = Counter("tidegate_sink_merged_files_total", "Files merged into others.", registry=r)
        self._retries = Counter("tidegate_retries_total", "Calls tried again.", ["dependency"], registry=r)

    def serve(self, host: str, port: int) -> None:
        """Answer `GET /metrics`."""
        start_http_server(port, addr=host, registry=self.registry)

    def flushed(self, rows: int, seconds: float) -> None:
        """Rows were written and committed."""
        self._rows.inc(rows)
        self._seconds.observe(seconds)

    def skipped(self, reason: str, count: int) -> None:
        """Messages were left out."""
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
