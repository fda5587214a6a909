"""What the worker shows of chunks that were really scored."""

import time
from dataclasses import replace

import pytest
from prometheus_client import make_wsgi_app
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from infra.metrics import WorkerMetrics
from models.churn_scores import ChurnResult, ChurnResults
from models.model_set import Models
from models.tree import TreeModel
from schemas.topics import LABELS, TRANSACTIONS
from tests.streaming import DAY_MS, Stream, label, transaction

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics()


@pytest.fixture
def stream(models: Models, metrics: WorkerMetrics) -> Stream:
    """A stream whose fraud model has everything reviewed."""
    card = replace(models.fraud.card, thresholds={"review": 0.0, "block": 0.999})
    all_reviewed = replace(models, fraud=TreeModel(card, models.fraud.trees, models.engine.names))
    metrics.use(all_reviewed, 1)
    return Stream(all_reviewed, observer=metrics)  # type: ignore[arg-type]


def openmetrics(metrics: WorkerMetrics) -> list[Sample]:
    """What `/metrics` answers to who accepts OpenMetrics, read by its parser."""
    environ, headers = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics"}, []
    environ["HTTP_ACCEPT"] = "application/openmetrics-text; version=1.0.0"
    (body,) = make_wsgi_app(metrics.registry)(environ, lambda status, given: headers.extend(given))
    assert dict(headers)["Content-Type"].startswith("application/openmetrics-text")
    return [s for family in text_string_to_metric_families(body.decode()) for s in family.samples]


def value(metrics: WorkerMetrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric, labels)


class TestScored:
    async def test_every_score_is_counted_once_by_decision(self, stream, metrics):
        stream.transact(40)
        await stream.start()
        await stream.run()

        decided = [
            value(metrics, "tidegate_fraud_decisions_total", decision=d) for d in ("allow", "review", "block")
        ]
        assert sum(decided) == 40
        assert value(metrics, "tidegate_events_total", outcome="scored") == 40
        assert value(metrics, "tidegate_fraud_score_count") == 40
        assert value(metrics, "tidegate_feature_vectors_total") == 3
        scores = [score["decision"] for score in stream.kafka.messages("scores.fraud")]
        assert decided == [scores.count(d) for d in ("allow", "review", "block")]

    async def test_alerts_and_amounts_are_those_of_the_messages(self, stream, metrics):
        stream.transact(40)
        await stream.start()
        await stream.run()

        alerts = [
            a for a in stream.kafka.messages("alerts") if a["kind"] == "fraud" and a["severity"] == "review"
        ]
        assert alerts
        assert value(metrics, "tidegate_alerts_total", kind="fraud", severity="review") == len(alerts)
        currency = alerts[0]["currency"]
        amount = sum(a["amount"] for a in alerts if a["currency"] == currency)
        shown = value(metrics, "tidegate_fraud_alerted_amount_total", decision="review", currency=currency)
        assert shown == pytest.approx(amount)

    async def test_duplicates_are_counted_but_have_no_score(self, stream, metrics):
        same = transaction(1)
        stream.kafka.put(TRANSACTIONS.name, 0, same)
        stream.kafka.put(TRANSACTIONS.name, 0, same)
        await stream.start()
        await stream.run()

        assert value(metrics, "tidegate_events_total", outcome="duplicate") == 1
        assert value(metrics, "tidegate_events_total", outcome="scored") == 1
        assert value(metrics, "tidegate_fraud_score_count") == 1
        assert value(metrics, "tidegate_event_latency_seconds_count") == 1

    async def test_cold_customer_has_unknown_features(self, stream, metrics):
        stream.transact(1)
        await stream.start()
        await stream.run()

        assert value(metrics, "tidegate_feature_unknown_total", feature="amount_mean_90d") == 1
        assert value(metrics, "tidegate_cache_lookups_total", result="miss") == 1

    async def test_latency_is_measured_from_the_brokers_timestamp(self, stream, metrics, monkeypatch):
        record = stream.kafka.put(TRANSACTIONS.name, 0, transaction(1))
        monkeypatch.setattr(time, "time", lambda: record.timestamp / 1000 + 0.03)
        await stream.start()
        await stream.run()

        assert value(metrics, "tidegate_event_latency_seconds_sum") == pytest.approx(0.03)

    async def test_brokers_clock_that_is_ahead_takes_nothing_from_the_sum(self, stream, metrics, monkeypatch):
        record = stream.kafka.put(TRANSACTIONS.name, 0, transaction(1))
        monkeypatch.setattr(time, "time", lambda: record.timestamp / 1000 - 0.03)
        await stream.start()
        await stream.run()

        assert value(metrics, "tidegate_event_latency_seconds_sum") == 0
        assert value(metrics, "tidegate_event_latency_seconds_bucket", le="0.005") == 1

    async def test_latency_of_a_traced_transaction_is_an_exemplar(self, stream, metrics, monkeypatch):
        traced, unsampled = (
            (("traceparent", f"00-{TRACE}-b7ad6b7169203331-{f}".encode()),) for f in ("01", "00")
        )
        stream.kafka.put(TRANSACTIONS.name, 0, transaction(1))
        stream.kafka.put(TRANSACTIONS.name, 0, transaction(2), headers=unsampled)
        record = stream.kafka.put(TRANSACTIONS.name, 0, transaction(3), headers=traced)
        monkeypatch.setattr(time, "time", lambda: record.timestamp / 1000 + 0.03)
        await stream.start()
        await stream.run()

        shown = [s for s in openmetrics(metrics) if s.exemplar]
        assert [(s.name, s.labels) for s in shown] == [
            ("tidegate_event_latency_seconds_bucket", {"le": "0.05"})
        ]
        assert shown[0].exemplar.labels == {"trace_id": TRACE}
        assert shown[0].exemplar.value == pytest.approx(0.03)

    async def test_duplicate_of_a_traced_transaction_is_no_exemplar(self, stream, metrics):
        stream.kafka.put(TRANSACTIONS.name, 0, transaction(1))
        traced = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode()),)
        stream.kafka.put(TRANSACTIONS.name, 0, transaction(1), headers=traced)
        await stream.start()
        await stream.run()

        assert not [s for s in openmetrics(metrics) if s.exemplar]

    async def test_label_is_counted_with_the_decision_of_its_transaction(self, stream, metrics):
        stream.transact(10)
        await stream.start()
        await stream.run()
        first = stream.kafka.messages("scores.fraud")[0]
        stream.kafka.put(LABELS.name, 0, label(first["transaction_id"], customer=first["customer_id"]))
        await stream.run()

        assert value(metrics, "tidegate_labels_total", label="fraud", decision=first["decision"]) == 1


class TestChurn:
    def test_moves_and_alerts_only_where_the_band_changes(self, metrics):
        results = [
            ChurnResult("a", 0, DAY_MS, 0.9, 2, 0, 120.0),
            ChurnResult("b", 1, DAY_MS, 0.9, 2, 2, 30.0),
            ChurnResult("c", 2, DAY_MS, 0.1, 0, 1, 5.0),
            ChurnResult("d", 3, DAY_MS, 0.1, 0, -1, 5.0),
        ]
        metrics.churn(ChurnResults(results), "sweep")

        assert value(metrics, "tidegate_churn_moves_total", before="low", after="high") == 1
        assert value(metrics, "tidegate_churn_moves_total", before="medium", after="low") == 1
        assert value(metrics, "tidegate_churn_moves_total", before="low", after="low") is None
        assert value(metrics, "tidegate_alerts_total", kind="churn", severity="high") == 1
        assert value(metrics, "tidegate_churn_value_at_risk_total", band="high") == 150.0
