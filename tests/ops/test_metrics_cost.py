"""What metrics cost a real worker: their share of its processor time as it drains a backlog, in one run.

1.6 to 1.8 % were measured on 2026-11-26 over the bank of `tidegate bench throughput`, the metrics of its
clients included.
2 % are what they may cost.
"""

import json
import sys
from datetime import UTC, datetime

import pytest

from generator.settings import BankSettings
from harness.processes import WorkerProcess
from tests.deployment import Deployment, Outputs

pytestmark = pytest.mark.ops
_BANK = BankSettings(customers=2000, days=25, seed=3, start=datetime(2026, 1, 1, tzinfo=UTC))


class TimedWorker(WorkerProcess):
    """`tidegate worker`, with its metrics timed."""

    def _command(self):
        return [sys.executable, "-m", "tests.ops.timed_worker", str(self.directory.with_suffix(".json"))]


async def test_metrics_cost_little(tmp_path, registry, record_property):
    deployment = Deployment(tmp_path, registry._root, durable=False, kafka=False)
    deployment.stack.start()
    try:
        await deployment.create_topics()
        await deployment.publish_bank(_BANK)
        worker = TimedWorker(tmp_path, deployment.worker().settings, "timed")
        deployment.workers = [worker]
        worker.start(120)
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids, 300)
        worker.stop()
    finally:
        deployment.close()
    found = json.loads(worker.directory.with_suffix(".json").read_text())
    share = found["metrics_s"] / found["worker_s"]
    record_property("share", share)
    print(f"metrics: {share:.2%} of {found['worker_s']:.1f} s CPU for {len(deployment.log.ids)} events")
    print(f"  left out: {found['timing_s']:.2f} s of timing itself")
    for call, (times, seconds) in found["by_call"].items():
        print(f"  {call}: {seconds / found['worker_s']:.2%}, {times} times")
    assert len(deployment.log.ids) > 10_000
    assert 0 < share < 0.02
