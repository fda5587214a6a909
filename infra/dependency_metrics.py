"""Metrics of what the programs depend on: calls, errors, the state of Redis, the models in use."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from infra.timings import Note, Timing, Timings
from models.model_set import Models
from schemas.errors import DependencyError

_CALL_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class DependencyMetrics:
    """Calls to Kafka and Redis, and the certificates they are made with.

    Args:
        registry: Where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        r = registry
        self._calls = Timings(
            "tidegate_dependency_call_seconds",
            "Time of one call to Kafka or Redis, also of one that failed.",
            ["dependency", "call"],
            _CALL_S,
            r,
        )
        self._errors = Counter(
            "tidegate_dependency_errors_total",
            "Calls to Kafka or Redis that failed.",
            ["dependency", "call"],
            registry=r,
        )
        self._published = Counter(
            "tidegate_published_messages_total",
            "Messages that the broker acknowledged.",
            ["topic"],
            registry=r,
        )
        # Not by its labels each time: that takes as long as counting.
        self._published_of = cache(self._published.labels)
        self._expiry = Gauge(
            "tidegate_certificate_expiry_timestamp_seconds",
            "When a configured certificate expires.",
            ["use"],
            registry=r,
        )

    def call(self, dependency: str, name: str) -> "Call":
        """Time one call and count it if it fails."""
        return Call((dependency, name), self._calls.noted, self._errors)

    def published(self, messages: Mapping[str, int]) -> None:
        """So many messages of each topic were acknowledged by the broker."""
        for topic, count in messages.items():
            self._published_of(topic).inc(count)

    def certificate(self, use: str, expires: datetime) -> None:
        """A certificate is configured."""
        self._expiry.labels(use).set(expires.timestamp())


class Call(Timing):
    """One call to a dependency, timed, and counted where it fails.

    A class: a generator as a context manager takes twice as long.

    Args:
        labels: Dependency and name.
        note: As of `Timing`.
        errors: Counts failures.
    """

    __slots__ = ("_errors",)

    def __init__(self, labels: tuple[str, ...], note: Note, errors: Counter) -> None:
        super().__init__(labels, note)
        self._errors = errors

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, DependencyError):
            self._errors.labels(*self._labels).inc()


class RedisMetrics:
    """What Redis says of itself.

    Args:
        registry: Where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        r = registry
        self._up = Gauge(
            "tidegate_redis_up", "Whether Redis told of itself when it was last asked.", registry=r
        )
        self._memory = Gauge("tidegate_redis_memory_bytes", "Memory that Redis uses.", registry=r)
        self._limit = Gauge(
            "tidegate_redis_memory_limit_bytes", "`maxmemory` of Redis; 0 is none.", registry=r
        )
        self._persistent = Gauge(
            "tidegate_redis_append_only", "Whether Redis keeps its append-only file: 1 or 0.", registry=r
        )
        self._write_ok = Gauge(
            "tidegate_redis_persistence_ok", "Whether the last writes to disk of Redis went well.", registry=r
        )
        self._evicting = Gauge(
            "tidegate_redis_may_evict", "Whether `maxmemory-policy` lets Redis drop histories.", registry=r
        )
        self._replicas = Gauge("tidegate_redis_replicas", "Replicas connected to Redis.", registry=r)

    def show(self, info: Mapping[str, Any] | None) -> None:
        """What Redis answers to INFO; `None` where it does not."""
        self._up.set(info is not None)
        if info is None:
            return
        self._memory.set(info.get("used_memory", 0))
        self._limit.set(info.get("maxmemory", 0))
        self._persistent.set(info.get("aof_enabled", 0))
        states = [info.get(f"{kind}_status", "ok") for kind in ("aof_last_write", "aof_last_bgrewrite")]
        self._write_ok.set(all(state == "ok" for state in states))
        self._evicting.set(info.get("maxmemory_policy", "noeviction") != "noeviction")
        self._replicas.set(info.get("connected_slaves", 0))


class ModelMetrics:
    """Which models are in use and since when they exist.

    Args:
        registry: Where the metrics are kept.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._build = Gauge("tidegate_build_info", "Always 1.", ["version"], registry=registry)
        self._info = Gauge(
            "tidegate_model_info",
            "Always 1: a model in use.",
            ["name", "version", "role", "features"],
            registry=registry,
        )
        self._created = Gauge(
            "tidegate_model_created_timestamp_seconds",
            "When a model in use was trained.",
            ["name"],
            registry=registry,
        )
        self._metric = Gauge(
            "tidegate_model_quality",
            "What a model in use reached on held-back data when it was trained.",
            ["name", "measure"],
            registry=registry,
        )
        self._threshold = Gauge(
            "tidegate_model_threshold",
            "Score from which a decision or band is given.",
            ["name", "decision"],
            registry=registry,
        )
        self._reloads = Counter(
            "tidegate_model_reloads_total",
            "Sets of models that were taken into use while the process ran.",
            registry=registry,
        )
        self._refused = Gauge(
            "tidegate_model_refused",
            "Whether the registry names a model that cannot be used; the models before go on.",
            registry=registry,
        )
        try:
            self._build.labels(version("tidegate")).set(1)
        except PackageNotFoundError:  # run from a checkout
            self._build.labels("checkout").set(1)

    def show(self, models: Models) -> None:
        """Show the models in use."""
        for gauge in (self._info, self._created, self._metric, self._threshold):
            gauge.clear()
        for model in models.all():
            card, role = model.card, model.role
            self._info.labels(card.name, card.version, role, card.features_hash).set(1)
            if role != "champion":
                continue
            self._created.labels(card.name).set(datetime.fromisoformat(card.created_at).timestamp())
            for measure, value in card.metrics.items():
                if isinstance(value, int | float):
                    self._metric.labels(card.name, measure).set(value)
            for decision, threshold in card.thresholds.items():
                self._threshold.labels(card.name, decision).set(threshold)

    def taken(self, models: Models) -> None:
        """Show models that were put into use while the process ran."""
        self._reloads.inc()
        self.show(models)

    def refused(self, refused: bool) -> None:
        """Whether the registry names a model that cannot be used."""
        self._refused.set(refused)
