"""A real Prometheus on a real deployment: no panel is empty, and what breaks rings."""

import asyncio
import contextlib
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from generator.settings import BankSettings
from harness.processes import ApiProcess, SinkProcess
from infra.dashboards import DASHBOARDS
from tests.deployment import Deployment, Outputs, eventually
from tests.ops.monitoring import Prometheus, rules

pytestmark = pytest.mark.ops
_DAYS = 45


def bank() -> BankSettings:
    """A bank whose last day is yesterday."""
    start = (datetime.now(UTC) - timedelta(days=_DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    return BankSettings(customers=500, days=_DAYS - 1, seed=21, start=start)


class Monitored:
    """A deployment of one worker, a sink and an API, watched."""

    def __init__(self, folder, models):
        self.deployment = Deployment(folder, models)
        self.deployment.stack.start()
        self.worker = self.deployment.worker(redis_timeout_s=1)
        kept = {"database_url": f"sqlite:///{folder}/index.db", "events": folder / "events"}
        self.sink = SinkProcess(folder, {"bootstrap": self.deployment.stack.bootstrap, **kept})
        redis_url = self.deployment.stack.redis_url
        self.api = ApiProcess(folder, {"redis_url": redis_url, "models": models, **kept})
        self.parts = {"worker": self.worker, "sink": self.sink, "api": self.api}
        targets = {f"tidegate-{name}": [part.address] for name, part in self.parts.items()}
        self.prometheus = Prometheus(folder, targets)

    async def start(self):
        await self.deployment.create_topics()
        parts = (self.prometheus, *self.parts.values())
        await asyncio.gather(*(asyncio.to_thread(part.start, 120) for part in parts))

    def close(self):
        self.prometheus.kill()
        self.api.kill()
        self.sink.kill()
        self.deployment.close()

    async def score_bank(self):
        await self.deployment.publish_bank(bank())
        async with Outputs(self.deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(self.deployment.log.ids, 120)

    async def ask_api(self):
        """A request of every kind, a refused and an unknown one among them."""
        customer = next(iter(self.deployment.log.totals))
        transaction = {
            "transaction_id": "asked-1",
            "customer_id": customer,
            "event_time": datetime.now(UTC).isoformat(),
            "amount": "249.90",
            "currency": "EUR",
            "transaction_type": "purchase",
            "channel": "ecommerce",
        }
        for path, body in (
            (f"/customers/{customer}/features", None),
            (f"/customers/{customer}/scores", None),
            ("/customers/nobody/scores", None),
            ("/health", None),
            ("/inference/fraud-detection", transaction),
            ("/inference/fraud-detection", {"amount": -1}),
            ("/inference/churn-score", {"customer_id": customer}),
        ):
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                f"{self.api.url}{path}", data, {"Content-Type": "application/json"}
            )
            with contextlib.suppress(urllib.error.HTTPError):
                await asyncio.to_thread(lambda r=request: urllib.request.urlopen(r, timeout=5).read())


@pytest.fixture
def monitored(tmp_path, registry):
    running = Monitored(tmp_path, registry._root)
    yield running
    running.close()


async def test_every_panel_and_rule_has_data_and_every_fault_rings(monitored):
    prometheus = monitored.prometheus
    await monitored.start()
    # Scraped once before the first event: a rate needs a value to start from.
    await eventually(
        lambda: len(prometheus.query("tidegate_build_info")) == 2, 30, "a scrape of worker and API"
    )
    await monitored.score_bank()
    await monitored.deployment.publish([("transactions", b"c0000001", b"not json")] * 3)
    await monitored.ask_api()

    async def empty():
        wanted = {rule["record"]: rule["record"] for rule in rules("record")}
        for dashboard in DASHBOARDS:
            for panel in dashboard.panels:
                for number, (query, _) in enumerate(panel.queries):
                    wanted[f"{dashboard.uid}: {panel.title} {number}"] = query
        found = {name: await asyncio.to_thread(prometheus.query, query) for name, query in wanted.items()}
        return [
            name
            for name, series in found.items()
            if not [s for s in series if s["value"][1] not in {"NaN", "+Inf", "-Inf"}]
        ]

    left = await empty()
    deadline = asyncio.get_running_loop().time() + 30
    while left and asyncio.get_running_loop().time() < deadline:
        await monitored.ask_api()
        await asyncio.sleep(1)
        left = await empty()
    assert left == []
    health = prometheus.get("/api/v1/rules")["groups"]
    assert [r["name"] for g in health for r in g["rules"] if r["health"] != "ok"] == []
    never = {
        "TidegateRedisAway",
        "TidegateWorkerDown",
        "TidegateNoWorker",
        "TidegateApiDown",
        "TidegateSinkDown",
        "TidegateSinkBehind",
        "TidegateDeadLetters",
    }
    assert not prometheus.firing() & never

    # A flood of poison.
    poison = [("transactions", f"c{i:07}".encode(), b"\xff\x00 poison") for i in range(20_000)]
    await monitored.deployment.publish(poison)
    await prometheus.until_firing("TidegateDeadLetters", 60)

    # Redis stops.
    monitored.deployment.stack.redis.kill()
    await monitored.deployment.publish([("transactions", b"c0000001", b"{}")] * 20)
    await prometheus.until_firing("TidegateRedisAway", 60)
    monitored.deployment.stack.redis.start()
    await eventually(
        lambda: prometheus.query("tidegate_redis_up")[0]["value"][1] == "1", 60, "Redis being back"
    )

    # The worker is killed.
    monitored.worker.kill()
    await prometheus.until_firing("TidegateWorkerDown", 60)
    await prometheus.until_firing("TidegateNoWorker", 60)
