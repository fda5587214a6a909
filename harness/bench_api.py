"""The API's latency: each endpoint at a fixed rate, over a bank that worker and sink have processed."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
import numpy as np
from aiokafka import AIOKafkaProducer

from api.access import SCOPES
from generator.bank import Bank
from generator.settings import BankSettings
from harness.bench import environment
from harness.feed import Feed
from harness.http_load import NO_ANSWER, Answers, Ask, load
from harness.processes import ApiProcess, SinkProcess, WorkerProcess
from infra.client_store import ClientStore
from infra.database import Database
from infra.embedded import EmbeddedStack
from infra.key_ring import add_key
from infra.signing_keys import SigningKeys
from infra.sink_store import SinkStore
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError
from schemas.fields import to_rfc3339
from schemas.parse import dump

PARTITIONS: Final = 4
_LIMIT_S: Final = 1800.0
_WARM_S: Final = 3.0
# From this number on requests are of other customers, up to 25 s at 100 a second.
_OTHERS: Final = 2500


@dataclass(frozen=True, slots=True)
class ApiPlan:
    """What is measured.

    Attributes:
        customers: Loaded before.
        days: Of their events.
        rate: Requests a second on each endpoint, one endpoint at a time.
        seconds: On each endpoint.
        login: Whether the API asks for a token, limits rates and keeps an audit trail.
    """

    data_dir: Path
    models: Path
    customers: int
    days: int
    seed: int
    rate: float
    seconds: float
    login: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    """An endpoint, its aim for p99 in milliseconds, and the most requests a second it is asked."""

    name: str
    aim_ms: float
    make: Callable[[int], Ask]
    most_rate: float = 1000.0


def run_api(plan: ApiPlan, say: Callable[[str], None]) -> dict[str, Any]:
    """Load a bank, then ask each endpoint."""
    return asyncio.run(_run(plan, say))


async def _run(plan: ApiPlan, say: Callable[[str], None]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "models": plan.models.resolve(),
        "partitions": PARTITIONS,
        "database_url": f"sqlite:///{plan.data_dir}/index.db",
        "events": plan.data_dir / "events",
        "http_timeout_s": 60,
        "auth_token_ttl_s": 3600,
    }
    with EmbeddedStack(plan.data_dir, durable=False) as stack, ExitStack() as parts:
        settings |= {"bootstrap": stack.bootstrap, "redis_url": stack.redis_url}
        await TopicsAdmin(stack.bootstrap).create(PARTITIONS)
        bank = BankSettings(
            customers=plan.customers, days=plan.days, seed=plan.seed, start=datetime(2026, 1, 1, tzinfo=UTC)
        )
        producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap, linger_ms=20, max_batch_size=1 << 18)
        await producer.start()
        feed = Feed(producer, Bank(bank), bank.end_ms)
        say(f"publishing {plan.days} days of {plan.customers:,} customers")
        await feed.past(bank.end_ms)
        await producer.stop()
        worker, sink = WorkerProcess(plan.data_dir, settings), SinkProcess(plan.data_dir, settings)
        for part in (worker, sink):
            parts.callback(part.stop)
            await asyncio.to_thread(part.start, 180.0)
        loaded_s = await _until_sunk(str(settings["database_url"]), feed.sent.transactions, say)
        worker.stop()
        sink.stop()
        # Tokens are given out by a process with login, which the others are asked of only if wanted.
        closed, client_id, secret = _with_login(plan.data_dir)
        tokens = _token_cases(client_id, secret)
        results = []
        for login, cases in ((plan.login, _cases(plan, bank)), (True, tokens)):
            api = ApiProcess(plan.data_dir, settings | (closed if login else {}))
            parts.callback(api.stop)
            await asyncio.to_thread(api.start, 180.0)
            bearer = await _bearer(api.address, tokens[0].make(0)) if login else ""
            for case in cases:
                results.append(await _measured(api, case, plan, "" if case in tokens else bearer))
                say(f"{case.name}: p99 {results[-1]['p99_ms']} ms")
            await asyncio.to_thread(api.stop)
    return {
        "customers": plan.customers,
        "transactions": feed.sent.transactions,
        "loaded_s": round(loaded_s),
        "seconds_each": plan.seconds,
        "login": plan.login,
        "endpoints": results,
        "environment": environment(),
    }


async def _measured(api: ApiProcess, case: _Case, plan: ApiPlan, bearer: str) -> dict[str, Any]:
    rate = min(plan.rate, case.most_rate)

    def make(number: int) -> Ask:
        asked = case.make(number)
        return replace(asked, headers=asked.headers + bearer)

    # Kernels, caches and connections as in a process that has run for a while; of other customers.
    await load(api.address, lambda number: make(number + _OTHERS), rate=rate, seconds=_WARM_S)
    before_s = api.cpu_s()
    answers = await load(api.address, make, rate=rate, seconds=plan.seconds)
    cpu_ms = 1000 * (api.cpu_s() - before_s) / len(answers.latency_ms)
    return _result(case, rate, answers) | {"cpu_ms": round(cpu_ms, 2)}


def _with_login(data_dir: Path) -> tuple[dict[str, Any], str, str]:
    """Settings of an API with login, and the name and secret of a client that may do everything."""
    folder = data_dir / "security"
    SigningKeys(folder).rotate(wait_s=0, keep_s=3600)
    add_key(folder, "audit")
    client, secret = ClientStore(folder).add("bench", "default", SCOPES)
    # So high that none is reached: counted they are.
    rates = {f"rate_{kind}": "100000/1s" for kind in ("auth", "read", "score", "bulk", "change")}
    closed = {"auth": "own", "security_dir": folder, "audit_dir": data_dir / "audit", **rates}
    # On a busy machine a count that comes late would refuse the token that everything else is asked with.
    closed["rate_limits_timeout_s"] = 5
    return closed, client.client_id, secret


def _token_cases(client_id: str, secret: str) -> list[_Case]:
    form = urlencode({"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret})
    kind = "Content-Type: application/x-www-form-urlencoded\r\n"
    return [
        _Case("POST /auth/token", 50, lambda n: Ask("POST", "/auth/token", form.encode(), kind)),
        _Case("GET /.well-known/jwks.json", 50, lambda n: Ask("GET", "/.well-known/jwks.json")),
    ]


async def _bearer(address: str, asked: Ask) -> str:
    """The header with a token, which lives longer than a run."""
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as client:
        name, _, value = asked.headers.strip().partition(": ")
        answer = await client.post(asked.path, content=asked.body, headers={name: value})
    if answer.status_code != 200:
        raise DependencyError(f"the API gives no token: {answer.status_code}")
    return f"Authorization: Bearer {answer.json()['access_token']}\r\n"


def _result(case: _Case, rate: float, answers: Answers) -> dict[str, Any]:
    good = sum(count for status, count in answers.statuses.items() if NO_ANSWER < status < 400)
    return {
        "endpoint": case.name,
        "rate": rate,
        "requests": len(answers.latency_ms),
        "failed": len(answers.latency_ms) - good,
        "p50_ms": round(answers.percentile(50), 1),
        "p99_ms": round(answers.percentile(99), 1),
        "aim_ms": case.aim_ms,
        "within": bool(answers.percentile(99) <= case.aim_ms and good == len(answers.latency_ms)),
    }


async def _until_sunk(url: str, transactions: int, say: Callable[[str], None]) -> float:
    """Wait until the event log has all transactions and its files are merged; returns the seconds."""
    started, said = time.monotonic(), 0.0
    database = Database(url)
    store = SinkStore(database)
    try:
        while True:
            # The sink makes its tables when it has started.
            files = await asyncio.to_thread(lambda: store.files() if database.ready() else [])
            rows = sum(f.rows for f in files)
            if rows >= transactions and len(files) == len({f.day for f in files}):
                return time.monotonic() - started
            if time.monotonic() - started > _LIMIT_S:
                raise DependencyError(f"only {rows} of {transactions} transactions are in the event log")
            if time.monotonic() - said > 20:
                said = time.monotonic()
                say(f"{rows:,} of {transactions:,} transactions scored and in {len(files)} files")
            await asyncio.sleep(0.5)
    finally:
        database.close()


def _cases(plan: ApiPlan, bank: BankSettings) -> list[_Case]:
    random = np.random.default_rng(plan.seed)
    ids: list[str] = sorted({str(e.message["customer_id"]) for e in Bank(_first_day(bank)).events()})
    picked = [ids[i] for i in random.integers(0, len(ids), 5000)]

    def customer(number: int) -> str:
        return quote(picked[number % len(picked)], safe="")

    def get(path: str) -> Callable[[int], Ask]:
        return lambda number: Ask("GET", path.replace("{id}", customer(number)))

    def post(path: str, body: Callable[[int], Any]) -> Callable[[int], Ask]:
        return lambda number: Ask("POST", path, dump(body(number)))

    def transaction(number: int) -> dict[str, Any]:
        return {
            "transaction_id": f"bench-{number}",
            "customer_id": picked[number % len(picked)],
            "event_time": to_rfc3339(datetime.fromtimestamp(bank.end_ms / 1000, UTC)),
            "amount": f"{5 + number % 400}.50",
            "currency": "EUR",
            "transaction_type": "purchase",
            "channel": "ecommerce",
            "merchant_id": f"m{number % 500:06d}",
            "merchant_category": "5732",
            "device_id": f"d-{number % 50}",
        }

    sorts = ("customer_id", "last_event_ms", "transactions", "flagged", "churn_probability", "value_at_risk")
    thousand = [picked[n : n + 1000] for n in range(0, 4000, 1000)]
    return [
        _Case("GET /", 5, get("/")),
        _Case("GET /live", 5, get("/live")),
        _Case("GET /ready", 5, get("/ready")),
        _Case("GET /health", 10, get("/health")),
        _Case("GET /health/detailed", 50, get("/health/detailed")),
        _Case("GET /metrics", 20, get("/metrics")),
        _Case("GET /customers/{id}", 10, get("/customers/{id}")),
        _Case("GET /customers/{id}/features", 5, get("/customers/{id}/features")),
        _Case("GET /customers/{id}/scores", 5, get("/customers/{id}/scores")),
        _Case("GET /customers/{id}/transactions", 50, get("/customers/{id}/transactions")),
        _Case(
            "GET /customers",
            50,
            lambda n: Ask("GET", f"/customers?limit=50&order=desc&sort={sorts[n % len(sorts)]}"),
        ),
        _Case("GET /analytics/customers", 200, get("/analytics/customers?by=churn_band")),
        _Case(
            "GET /analytics/transactions",
            200,
            lambda n: Ask(
                "GET",
                f"/analytics/transactions?by={('day', 'decision', 'channel')[n % 3]}"
                f"&until={bank.end_ms}&since={bank.start_ms}",
            ),
        ),
        _Case("GET /models/status", 10, get("/models/status")),
        _Case("POST /inference/fraud-detection", 10, post("/inference/fraud-detection", transaction)),
        _Case(
            "POST /inference/churn-score",
            10,
            post("/inference/churn-score", lambda n: {"customer_id": picked[n % len(picked)]}),
        ),
        _Case(
            "POST /inference/segment",
            20,
            post("/inference/segment", lambda n: {"customer_id": picked[n % len(picked)]}),
        ),
        _Case("GET /inference/explain", 20, get("/inference/explain?model=churn&customer_id={id}")),
        _Case(
            "POST /inference/churn-batch (1,000 customers)",
            200,
            post("/inference/churn-batch", lambda n: {"customer_ids": thousand[n % 4]}),
            1,
        ),
        _Case(
            "POST /inference/batch-process (500 transactions)",
            1000,
            post(
                "/inference/batch-process",
                lambda n: {"transactions": [transaction(n * 500 + i) for i in range(500)]},
            ),
            0.5,
        ),
        _Case("POST /models/reload", 1000, lambda n: Ask("POST", "/models/reload"), 0.5),
    ]


def _first_day(bank: BankSettings) -> BankSettings:
    return BankSettings(customers=bank.customers, days=1, seed=bank.seed, start=bank.start)
