"""Prometheus metrics of what learns from labels. No label ever names a customer."""

from prometheus_client import Counter, Gauge

from infra.metrics_server import process_registry, serve_metrics


class LearningMetrics:
    """What was read, learned and put into use."""

    def __init__(self) -> None:
        self.registry = r = process_registry()
        self._read = Counter("tidegate_learn_messages_total", "Messages read.", ["kind"], registry=r)
        self._learned = Counter(
            "tidegate_learn_labels_total", "Transactions that were learned from.", ["label"], registry=r
        )
        self._unknown = Counter(
            "tidegate_learn_unknown_total", "Labels whose transaction no history holds any more.", registry=r
        )
        self._share = Gauge(
            "tidegate_learn_share", "How much of what was learned counts: its posterior.", registry=r
        )
        self._versions = Counter("tidegate_learn_versions_total", "Versions that were made.", registry=r)
        self._retries = Counter("tidegate_retries_total", "Calls tried again.", ["dependency"], registry=r)

    def serve(self, host: str, port: int) -> None:
        """Answer `GET /metrics`."""
        serve_metrics(self.registry, host, port)

    def read(self, kind: str, count: int) -> None:
        """Messages were read."""
        if count:
            self._read.labels(kind).inc(count)

    def learned(self, frauds: int, genuine: int, unknown: int, share: float) -> None:
        """Labels were learned from."""
        self._learned.labels("fraud").inc(frauds)
        self._learned.labels("genuine").inc(genuine)
        self._unknown.inc(unknown)
        self._share.set(share)

    def version(self) -> None:
        """A version was saved."""
        self._versions.inc()

    def retry(self, dependency: str) -> None:
        """A call to a dependency failed and is tried again."""
        self._retries.labels(dependency).inc()
