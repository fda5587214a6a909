"""What the worker shows of itself and of what it depends on."""

import pytest

from infra.metrics import WorkerMetrics
from schemas.errors import DependencyError
from tests.streaming import START_MS


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics()


def value(metrics: WorkerMetrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric, labels)


class TestBacklog:
    def test_partition_that_moved_away_is_shown_no_more(self, metrics):
        metrics.progress("transactions", 1, 7)
        metrics.backlog({("transactions", 1): (5, 2.5), ("transactions", 2): (0, 0.0)})
        assert value(metrics, "tidegate_lag_records", topic="transactions", partition="1") == 5

        metrics.backlog({("transactions", 2): (1, 0.5)})

        assert value(metrics, "tidegate_lag_records", topic="transactions", partition="1") is None
        assert value(metrics, "tidegate_next_offset", topic="transactions", partition="1") is None
        assert (
            value(metrics, "tidegate_oldest_unprocessed_age_seconds", topic="transactions", partition="2")
            == 0.5
        )

    def test_owned_partitions_and_their_watermarks(self, metrics):
        metrics.owned({0: START_MS, 3: 0})
        assert value(metrics, "tidegate_partitions_owned") == 2
        assert value(metrics, "tidegate_watermark_timestamp_seconds", partition="0") == START_MS / 1000
        assert value(metrics, "tidegate_watermark_timestamp_seconds", partition="3") is None


def test_models_in_use_are_shown(metrics, models):
    metrics.use(models, 4)
    card = models.fraud.card
    shown = value(
        metrics,
        "tidegate_model_info",
        name="fraud",
        version=card.version,
        role="champion",
        features=card.features_hash,
    )
    assert shown == 1
    assert (
        value(metrics, "tidegate_model_threshold", name="fraud", decision="block") == card.thresholds["block"]
    )
    assert value(metrics, "tidegate_partitions") == 4


def test_failed_call_is_timed_and_counted(metrics):
    with pytest.raises(DependencyError, match="away"), metrics.dependencies.call("redis", "load"):
        raise DependencyError("away")
    labels = {"dependency": "redis", "call": "load"}
    assert value(metrics, "tidegate_dependency_errors_total", **labels) == 1
    assert value(metrics, "tidegate_dependency_call_seconds_count", **labels) == 1


def test_redis_that_does_not_answer_is_down(metrics):
    metrics.redis.show(
        {"used_memory": 10, "maxmemory": 100, "aof_enabled": 1, "aof_last_write_status": "err"}
    )
    assert value(metrics, "tidegate_redis_up") == 1
    assert value(metrics, "tidegate_redis_persistence_ok") == 0
    metrics.redis.show(None)
    assert value(metrics, "tidegate_redis_up") == 0
