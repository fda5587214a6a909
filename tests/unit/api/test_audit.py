import asyncio
import json

import pytest

from api.audit import Auditor
from api.deps import Loaded
from api.gate import Security, authorise
from schemas.errors import DependencyError
from tests.closing import SECRET, Login
from tests.serving import Broken, assert_problem, serving
from tests.unit.api.test_gate import application

FULL = DependencyError("the audit trail cannot be written: No space left on device")


class Trail:
    """A trail in memory."""

    def __init__(self) -> None:
        self.records, self.synced, self.closed = [], 0, False
        self.error = None

    def subject(self, tenant: str, customer_id: str) -> str:
        return f"<{tenant} {customer_id}>"

    def append(self, record) -> bytes:
        if self.error:
            raise self.error
        self.records.append(dict(record))
        return json.dumps(record).encode()

    def sync(self) -> None:
        if self.error:
            raise self.error
        self.synced = len(self.records)

    def anchor(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def trail() -> Trail:
    return Trail()


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def login() -> Login:
    return Login()


@pytest.fixture
async def closed(world, eager, login, trail, events):
    security = login.security()
    audited = Security(
        security.verifier, security.clients, security.issuer, auditor=Auditor(trail, events.append)
    )
    async with serving(world.store, eager, security=audited) as api:
        yield api


async def test_who_looked_at_whom_is_written_down(closed, login, trail, customer):
    await closed.get(f"/customers/{customer}/features", headers=login.bearer())
    await closed.get("/customers/nobody-home/scores", headers=login.bearer())
    await closed.get(f"/customers/{customer}/scores", headers=login.bearer(["inference"]))
    said = {"event": "answered", "actor": "teller", "tenant": "default", "action": "read"}
    assert len({r.pop("request_id") for r in trail.records}) == 3
    assert trail.records == [
        {
            **said,
            "route": "GET /customers/{customer_id}/features",
            "subjects": [f"<default {customer}>"],
            "status": 200,
        },
        {
            **said,
            "route": "GET /customers/{customer_id}/scores",
            "subjects": ["<default nobody-home>"],
            "status": 404,
        },
        {
            **said,
            "route": "GET /customers/{customer_id}/scores",
            "subjects": [f"<default {customer}>"],
            "status": 403,
        },
    ]


async def test_a_customer_named_in_a_body_is_written_down(closed, login, trail, customer):
    await closed.post("/inference/churn-score", json={"customer_id": customer}, headers=login.bearer())
    (record,) = trail.records
    assert (record["action"], record["subjects"], record["status"]) == (
        "score",
        [f"<default {customer}>"],
        200,
    )


async def test_every_customer_of_a_batch_is_written_down(closed, login, trail, world):
    customers = list(world.transactions)[:3]
    asked = {"customer_ids": [*customers, "nobody-home", customers[0]]}
    await closed.post("/inference/churn-batch", json=asked, headers=login.bearer())
    transactions = [world.transactions[c][-1] for c in customers]
    messages = [json.loads(t.model_dump_json(exclude_unset=True)) for t in transactions]
    asked = {"transactions": [*messages, {"transaction_id": "bad", "customer_id": "c-1"}, messages[0]]}
    await closed.post("/inference/batch-process", json=asked, headers=login.bearer())
    assert [(r["route"], r["subjects"], r["status"]) for r in trail.records] == [
        (
            "POST /inference/churn-batch",
            [f"<default {c}>" for c in (*customers, "nobody-home")],
            200,
        ),
        ("POST /inference/batch-process", [f"<default {c}>" for c in customers], 200),
    ]


async def test_requests_side_by_side_do_not_mix_their_customers(closed, login, trail, world):
    customers = list(world.transactions)[:8]
    await asyncio.gather(
        *(
            closed.post("/inference/churn-score", json={"customer_id": c}, headers=login.bearer())
            for c in customers * 5
        )
    )
    assert sorted(r["subjects"] for r in trail.records) == sorted([[f"<default {c}>"] for c in customers * 5])


async def test_what_needs_no_token_and_operations_are_not_written_down(closed, login, trail):
    for path in ("/live", "/ready", "/health", "/metrics", "/nowhere"):
        await closed.get(path, headers=login.bearer())
    await closed.get("/customers/x/scores")
    await closed.get("/customers/x/scores", headers={"authorization": "Bearer a.b.c"})
    assert trail.records == []


async def test_tokens_given_and_refused_are_written_down(closed, trail):
    form = {"grant_type": "client_credentials", "client_id": "teller", "client_secret": SECRET}
    await closed.post("/auth/token", data=form)
    await closed.post("/auth/token", data={**form, "client_secret": "wrong"})
    await closed.post("/auth/token", data={**form, "client_id": "what-somebody-typed"})
    assert [(r["actor"], r["outcome"]) for r in trail.records] == [("teller", "given"), ("teller", "refused")]


async def test_an_error_nobody_foresaw_is_written_down_too(eager, login, trail, events):
    security = login.security()
    audited = Security(security.verifier, security.clients, auditor=Auditor(trail, events.append))
    broken = Broken(ValueError("broken"))
    async with serving(broken, eager, security=audited, raise_app_exceptions=False) as api:
        await api.get("/customers/c-1/features", headers=login.bearer())
    assert [r["status"] for r in trail.records] == [500]
    assert trail.closed


async def test_while_the_trail_is_full_reads_go_on_and_are_counted(closed, login, trail, events, customer):
    trail.error = FULL
    answer = await closed.get(f"/customers/{customer}/features", headers=login.bearer())
    assert answer.status_code == 200
    assert events == ["failed"]


@pytest.fixture
async def changing(world, eager, login, trail, events):
    """An API with a route that changes something."""
    security = login.security()
    audited = Security(security.verifier, security.clients, auditor=Auditor(trail, events.append))
    done = []

    def reload():
        done.append(list(trail.records))
        return Loaded(eager, None)

    async with serving(world.store, eager, security=audited, extras={"reload": reload}) as api:
        api.done = done
        yield api


async def test_a_change_is_on_the_disk_before_it_is_done(changing, login, trail):
    assert (await changing.post("/models/reload", headers=login.bearer())).status_code == 200
    (before,) = changing.done
    assert [r["event"] for r in before] == ["asked"]
    assert trail.synced == 1
    assert [(r["event"], r["action"]) for r in trail.records] == [("asked", "reload"), ("answered", "reload")]


async def test_what_cannot_be_written_down_is_not_done(changing, login, trail, events):
    trail.error = FULL
    answer = await changing.post("/models/reload", headers=login.bearer())
    assert_problem(answer, 503, "dependency-away", "No space")
    assert changing.done == []
    assert events.count("failed") == 2


def test_the_gate_is_a_dependency_of_the_whole_application(eager, world):
    assert authorise in [d.dependency for d in application(eager).router.dependencies]


class Copied:
    """Copies in memory; Kafka never answers."""

    def __init__(self) -> None:
        self.offered, self.drained_s = [], None

    def offer(self, actor: str, record: bytes) -> None:
        self.offered.append((actor, json.loads(record)))

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def drain(self, seconds: float) -> None:
        self.drained_s = seconds


async def test_what_is_written_is_copied_and_what_is_not_is_not(world, eager, login, trail, events, customer):
    security, copies = login.security(), Copied()
    audited = Security(security.verifier, security.clients, auditor=Auditor(trail, events.append, copies))
    async with serving(world.store, eager, security=audited) as api:
        await api.get(f"/customers/{customer}/features", headers=login.bearer())
        trail.error = FULL
        await api.get(f"/customers/{customer}/features", headers=login.bearer())
        trail.error = None
    assert copies.offered == [("teller", record) for record in trail.records]
    assert len(copies.offered) == 1
    assert copies.drained_s is not None
