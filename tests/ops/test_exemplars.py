"""A real Prometheus finds the trace of a slow transaction beside its latency."""

import asyncio

import pytest

from infra.embedded_part import free_port
from infra.metrics import WorkerMetrics
from schemas.topics import TRANSACTIONS
from tests.deployment import eventually
from tests.ops.monitoring import Prometheus
from tests.streaming import Stream, transaction

pytestmark = pytest.mark.ops
TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_prometheus_keeps_the_trace_of_a_transaction(tmp_path, models):
    metrics = WorkerMetrics()
    metrics.use(models, 1)
    port = free_port()
    metrics.serve("127.0.0.1", port)
    stream = Stream(models, observer=metrics)
    traceparent = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode()),)
    stream.kafka.put(TRANSACTIONS.name, 0, transaction(1), headers=traceparent)
    await stream.start()
    await stream.run()

    prometheus = Prometheus(tmp_path, {"tidegate-worker": [f"127.0.0.1:{port}"]})
    await asyncio.to_thread(prometheus.start, 60)
    try:
        await eventually(
            lambda: prometheus.traces("tidegate_event_latency_seconds") == {TRACE}, 60, "an exemplar"
        )
    finally:
        prometheus.kill()
