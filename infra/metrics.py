"""Prometheus metrics of the worker. No label ever names a customer."""

from collections.abc import Mapping, Sequence
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from infra.dependency_metrics import DependencyMetrics, ModelMetrics, RedisMetrics
from infra.metrics_server import process_registry, serve_metrics
from infra.score_metrics import ScoreMetrics
from infra.timings import Timing, Timings
from models.churn_scores import ChurnResults
from models.model_set import Models
from models.pipeline import Events, ScoredChunk
from schemas.dead_letter import ReasonCode

_STEP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CHUNK = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
# Shown as zeros from the first scrape on: a rate does not see what a series begins with.
_KNOWN_LEASE_CHANGES = ("acquired", "fenced", "rolled_back", "already_applied")


class WorkerMetrics:
    """An observer of the stream that Prometheus can read."""

    def __init__(self) -> None:
        self.registry = r = process_registry()
        self.dependencies = DependencyMetrics(r)
        self.redis = RedisMetrics(r)
        self.models = ModelMetrics(r)
        self._scores = ScoreMetrics(r)
        self._step = Timings(
            "tidegate_step_seconds",
            "Time of one step of a chunk: parse, load, score, encode, publish, pack, commit.",
            ["step"],
            _STEP_S,
            r,
        )
        self._records = Counter(
            "tidegate_records_total", "Records of committed chunks.", ["topic"], registry=r
        )
        self._size = Histogram(
            "tidegate_chunk_records", "Records of one chunk.", ["topic"], buckets=_CHUNK, registry=r
        )
        self._refused = Counter(
            "tidegate_dead_letters_total", "Messages refused, by reason.", ["reason"], registry=r
        )
        self._retries = Counter("tidegate_retries_total", "Calls tried again.", ["dependency"], registry=r)
        self._leases = Counter(
            "tidegate_lease_changes_total",
            "Changes of leases: acquired, fenced, rolled_back, already_applied.",
            ["change"],
            registry=r,
        )
        self._cache = Counter(
            "tidegate_cache_lookups_total",
            "Customers looked up in the cached histories, by result: hit, miss.",
            ["result"],
            registry=r,
        )
        self._next = Gauge(
            "tidegate_next_offset", "Next offset to process.", ["topic", "partition"], registry=r
        )
        self._lag = Gauge(
            "tidegate_lag_records",
            "Records in the log that are not processed yet.",
            ["topic", "partition"],
            registry=r,
        )
        self._age = Gauge(
            "tidegate_oldest_unprocessed_age_seconds",
            "Age of the oldest record that is not processed, by the broker's timestamp; 0 for none.",
            ["topic", "partition"],
            registry=r,
        )
        self._watermark = Gauge(
            "tidegate_watermark_timestamp_seconds",
            "Newest event time accepted in a partition.",
            ["partition"],
            registry=r,
        )
        self._partitions = Gauge("tidegate_partitions", "Partitions of the transactions topic.", registry=r)
        self._owned = Gauge(
            "tidegate_partitions_owned", "Partitions whose lease this worker has.", registry=r
        )
        self._loop = Histogram(
            "tidegate_loop_delay_seconds",
            "How late the event loop wakes up what is due.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
            registry=r,
        )
        self._shown: set[tuple[str, int]] = set()
        for change in _KNOWN_LEASE_CHANGES:
            self._leases.labels(change)
        for dependency in ("kafka", "redis"):
            self._retries.labels(dependency)
        self._hits, self._misses = self._cache.labels("hit"), self._cache.labels("miss")
        for reason in get_args(ReasonCode):
            self._refused.labels(reason)

    def serve(self, host: str, port: int) -> None:
        """Answer `GET /metrics`."""
        serve_metrics(self.registry, host, port)

    def use(self, models: Models, partitions: int) -> None:
        """Show what this worker scores with, and of how many partitions."""
        self.models.show(models)
        self._scores.use(models)
        self._partitions.set(partitions)

    def models_taken(self, models: Models) -> None:
        """Another set of models is in use."""
        self.models.taken(models)
        self._scores.models_taken(models)

    def models_refused(self, refused: bool) -> None:
        """Whether the registry names a set that cannot be used."""
        self.models.refused(refused)

    def step(self, name: str) -> Timing:
        """Time one step of a chunk."""
        return self._step.time(name)

    def chunk(self, topic: str, records: int) -> None:
        """A chunk was committed."""
        self._records.labels(topic).inc(records)
        self._size.labels(topic).observe(records)

    def outcome(self, name: str, count: int = 1) -> None:
        """Events ended in some way."""
        self._scores.outcome(name, count)

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

    def cache(self, lookups: int, misses: int) -> None:
        """Histories were looked up."""
        self._hits.inc(lookups - misses)
        if misses:
            self._misses.inc(misses)

    def label(self, name: str, decision: str, proba: float | None = None) -> None:
        """A label was put into a history; what the model in use says of its transaction."""
        self._scores.label(name, decision, proba)

    def scored(
        self,
        events: Events,
        chunk: ScoredChunk,
        published_ms: Sequence[int],
        traced: tuple[int, str] | None = None,
    ) -> None:
        """Transactions were scored and are part of the state; of one, its row and the trace it is part of."""
        self._scores.scored(events, chunk, published_ms, traced)

    def churn(self, results: ChurnResults, trigger: str) -> None:
        """Customers were rescored for churn."""
        self._scores.churn(results, trigger)

    def backlog(self, behind: Mapping[tuple[str, int], tuple[int, float]]) -> None:
        """Records not processed and the age of the oldest in seconds, of all partitions of this worker."""
        for topic, partition in self._shown - behind.keys():
            for gauge in (self._lag, self._age, self._next):
                # A partition that moved to another worker is that one's to show.
                gauge.remove(topic, str(partition))
        for (topic, partition), (records, age_s) in behind.items():
            self._lag.labels(topic, str(partition)).set(records)
            self._age.labels(topic, str(partition)).set(age_s)
        self._shown = set(behind)

    def owned(self, watermarks_ms: Mapping[int, int]) -> None:
        """Partitions whose lease this worker has, with the newest event time of each; 0 for none."""
        self._owned.set(len(watermarks_ms))
        self._watermark.clear()
        for partition, watermark_ms in watermarks_ms.items():
            if watermark_ms:
                self._watermark.labels(str(partition)).set(watermark_ms / 1000)

    def loop_delay(self, seconds: float) -> None:
        """The event loop was late."""
        self._loop.observe(seconds)
