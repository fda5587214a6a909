"""The sink as a real process behind a real worker: what it keeps is what was accepted, once."""

import asyncio
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import httpx
import orjson
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from api.ports import EventFilter, Page
from generator.settings import BankSettings
from harness.processes import SinkProcess
from infra import doctor
from infra.access import from_environment
from infra.checks import Status
from infra.customer_index import SqlCustomerIndex
from infra.database import CUSTOMERS, Database
from infra.event_files import EventFiles
from infra.event_queries import EventQueries
from infra.sink_store import SinkStore
from schemas.errors import DependencyError
from tests.deployment import Deployment, Outputs, eventually

pytestmark = pytest.mark.integration
BANK = BankSettings(customers=80, days=12, seed=8, start=datetime(2026, 1, 1, tzinfo=UTC))
CRASHES = ("before-write", "after-write", "after-merge", "after-commit")


@pytest.fixture
def deployment(tmp_path, registry):
    running = Deployment(tmp_path, registry._root, durable=False)
    running.stack.start()
    yield running
    running.close()


def sink_of(deployment, **settings):
    return SinkProcess(
        deployment.folder,
        {
            "bootstrap": deployment.stack.bootstrap,
            "database_url": f"sqlite:///{deployment.folder}/index.db",
            "events": deployment.folder / "events",
            "flush_s": 0.1,
            "flush_rows": 200,
            "compact_files": 2,
            "retired_s": 0,
            "log_format": "json",
            **settings,
        },
        name=f"sink-{settings.get('crash_point', 'plain')}",
    )


@contextmanager
def started(sink):
    """A sink that answered once, however slow the machine is."""
    try:
        # It may have crashed as it should before it was asked.
        with suppress(DependencyError):
            sink.start(120)
        yield sink
    finally:
        sink.stop()


async def test_the_event_log_has_exactly_the_accepted_transactions_across_crashes(deployment):
    """Bad messages and duplicates are left out; the sink is killed at every point that matters."""
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    first = deployment.log.ids[0]
    customer = next(iter(deployment.log.totals))
    again = f'{{"transaction_id":"{first}","customer_id":"{customer}"}}'.encode()
    await deployment.publish([("transactions", customer.encode(), bad) for bad in (b"not json", again)])
    with deployment.worker():
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
            await outputs.until(lambda: len(outputs.dead()) == 2, 20, "dead letters")
    for crash in CRASHES:
        with started(sink_of(deployment, crash_point=crash)) as sink:
            await eventually(lambda sink=sink: not sink.running, 60, f"the crash {crash}")
            assert sink._process.poll() == -signal.SIGKILL, sink.log_path.read_text()
    published = {
        (s["source"]["partition"], s["source"]["offset"]): s for _, s in outputs.records["scores.fraud"]
    }
    database = Database(f"sqlite:///{deployment.folder}/index.db")
    store, files = SinkStore(database), EventFiles(deployment.folder / "events")
    with started(sink_of(deployment)) as sink:
        await eventually(
            lambda: sum(f.rows for f in store.files()) >= len(published), 60, f"{len(published)} rows"
        )
        # With nothing to do, a day's files become one, and what they replaced is removed.
        await eventually(
            lambda: len({f.day for f in store.files()}) == len(store.files()) == len(store.named()),
            60,
            "one file a day",
        )
        # What it says of itself: hours of a bank's messages, all of them read and kept.
        await eventually(
            lambda: gauge_of(sink, "tidegate_sink_behind_seconds") < 5, 30, "a sink that is there"
        )
        for topic in ("transactions", "scores.fraud", "scores.churn"):
            assert gauge_of(sink, f'tidegate_sink_lag_records{{topic="{topic}"}}') == 0
        await the_doctor_finds_nothing(deployment)
    rows = [row for f in store.files() for row in pq.read_table(files.root / f.path).to_pylist()]
    assert len(rows) == len(published) == len(deployment.log.ids)
    for row in rows:
        score = published[row["partition"], row["offset"]]
        assert (row["transaction_id"], row["customer_id"]) == (score["transaction_id"], score["customer_id"])
        assert row["score"] == score["score"]
        assert row["decision"] == score["decision"]
    with database.begin() as connection:
        index = {r.customer_id: r for r in connection.execute(sa.select(CUSTOMERS))}
    assert {c: r.transactions for c, r in index.items() if r.transactions} == {
        c: counted for c, (counted, _, _) in deployment.log.totals.items()
    }
    newest_churn = {s["customer_id"]: s["churn_probability"] for _, s in outputs.records["scores.churn"]}
    assert {c: r.churn_probability for c, r in index.items() if r.churn_as_of_ms} == newest_churn
    await questions(deployment, database, index, published)
    database.close()


async def the_doctor_finds_nothing(deployment):
    stack, folder = deployment.stack, deployment.folder
    looked_at = doctor.Deployment(
        stack.bootstrap,
        stack.redis_url,
        "tg",
        deployment.models,
        *from_environment(),
        database_url=f"sqlite:///{folder}/index.db",
        events=folder / "events",
    )
    found = {f.check: f for f in await doctor.examine(looked_at)}
    for check in ("index.connection", "event_log.folder", "event_log.offsets"):
        assert found[check].status is Status.OK, found[check]
    assert found["event_log.offsets"].detail.startswith("0 records")


async def questions(deployment, database, index, published):
    """What the API asks, answered from what the sink wrote."""
    found, events = (
        SqlCustomerIndex(database, Page),
        EventQueries(database, deployment.folder / "events", Page),
    )
    customer = max(index, key=lambda c: index[c].transactions)
    row = await found.get(customer)
    got, after = [], None
    while True:
        page = await events.of_customer(row, EventFilter(), after, 7)
        got += page.rows
        if (after := page.next) is None:
            break
    assert len(got) == row["transactions"]
    times = [r["event_ms"] for r in got]
    assert times == sorted(times, reverse=True)
    assert {(r["partition"], r["offset"]) for r in got} == {
        key for key, s in published.items() if s["customer_id"] == customer
    }
    totals = await asyncio.gather(*(events.totals(["decision"], EventFilter()) for _ in range(5)))
    assert all(t == totals[0] for t in totals)
    decisions = [s["decision"] for s in published.values()]
    counted: dict[str, int] = {}
    for total in orjson.loads(totals[0]):
        decision = total["keys"]["decision"]
        counted[decision] = counted.get(decision, 0) + total["transactions"]
    assert counted == {d: decisions.count(d) for d in set(decisions)}
    events.close()


async def test_a_sink_on_another_log_is_refused_with_exit_code_3(deployment, tmp_path):
    await deployment.create_topics()
    database = Database(f"sqlite:///{deployment.folder}/index.db")
    database.migrate()
    SinkStore(database).claim("another cluster", 1)
    with started(sink_of(deployment)) as sink:
        await eventually(lambda: not sink.running, 60, "the end of the sink")
        assert sink._process.poll() == 3
        assert "Kafka cluster another cluster" in sink.log_path.read_text()
    database.close()


async def test_a_sink_waits_for_a_broker_that_is_away_and_gives_up_with_exit_code_1(deployment):
    await deployment.create_topics()
    with started(sink_of(deployment, give_up_s=6)) as sink:
        await eventually(lambda: "sink ready" in sink.log_path.read_text(), 60, "a sink that reads")
        deployment.stack.broker.stop()
        await eventually(lambda: '"waiting"' in sink.log_path.read_text(), 60, "a sink that waits")
        assert 'tidegate_retries_total{dependency="kafka"}' in metrics_of(sink)
        await eventually(
            lambda: gauge_of(sink, "tidegate_sink_behind_seconds") > 2, 30, "a sink that is behind"
        )
        await eventually(lambda: not sink.running, 60, "the end of the sink")
        assert sink._process.poll() == 1
        assert '"aiokafka' not in sink.log_path.read_text()


async def test_a_broker_that_comes_back_with_another_log_is_refused_with_exit_code_3(deployment):
    await deployment.create_topics()
    with started(sink_of(deployment)) as sink:
        await eventually(lambda: "sink ready" in sink.log_path.read_text(), 60, "a sink that reads")
        deployment.stack.broker.stop()
        await eventually(lambda: '"waiting"' in sink.log_path.read_text(), 60, "a sink that waits")
        # The embedded broker without a disk begins a new log, and takes a new id.
        deployment.stack.broker.start()
        await deployment.create_topics()
        await eventually(lambda: not sink.running, 60, "the end of the sink")
        assert sink._process.poll() == 3
        assert "the event log was written from Kafka cluster" in sink.log_path.read_text()


async def test_a_metrics_port_that_is_taken_is_said_in_words(deployment):
    await deployment.create_topics()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sink = sink_of(deployment)
        sink.port = taken.getsockname()[1]
        ended = subprocess.run(
            sink._command(), env=sink._environment(), capture_output=True, text=True, timeout=120
        )
    assert ended.returncode == 2
    assert "TIDEGATE_METRICS_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


def metrics_of(sink):
    return httpx.get(f"{sink.url}/metrics", timeout=10).text


def gauge_of(sink, series):
    """Its value; not a number while nothing answers or it is not there."""
    with suppress(httpx.HTTPError):
        for line in metrics_of(sink).splitlines():
            if line.startswith(f"{series} "):
                return float(line.split()[-1])
    return float("nan")
