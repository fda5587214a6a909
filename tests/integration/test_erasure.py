"""A customer's own data from the log to the API and its end: real broker, Valkey, worker, sink and API."""

import json
from contextlib import suppress
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from redis import Redis

from features.codec import Totals
from harness.processes import ApiProcess, SinkProcess
from infra.audit_log import read_anchors, records, verify
from infra.client_store import ClientStore
from infra.database import CUSTOMERS as CUSTOMER_INDEX
from infra.database import Database
from infra.event_files import SCHEMA
from infra.key_ring import KeyRing, add_key
from infra.log_tail import LogTail
from infra.signing_keys import SigningKeys
from infra.sink_store import SinkStore
from schemas.errors import DependencyError
from schemas.topics import CHURN_SCORES, ERASURES, FRAUD_SCORES, TRANSACTIONS
from schemas.topics import CUSTOMERS as CUSTOMERS_TOPIC
from tests.deployment import PARTITIONS, Deployment, Outputs, eventually, histories

pytestmark = pytest.mark.integration
CONTACT = {
    "name": "Erika Beispiel",
    "email": "erika.beispiel@example.org",
    "phone": "+49 30 5550123",
    "address": "Musterweg 7",
}
SCOPES = ("customers:read", "customers:contact", "customers:export", "customers:erase")
CUSTOMERS = [f"cust-{n}" for n in range(12)]
ERASED = CUSTOMERS[5]


@pytest.fixture
def deployment(tmp_path, registry):
    running = Deployment(tmp_path, registry._root, durable=False)
    running.stack.start()
    yield running
    running.close()


def messages() -> list[tuple[str, bytes, bytes]]:
    found = []
    for number in range(240):
        customer = CUSTOMERS[number % len(CUSTOMERS)]
        message: dict[str, Any] = {
            "transaction_id": f"t-{number}",
            "customer_id": customer,
            "event_time": 1_767_225_600_000 + number * 3_600_000,
            "amount": f"{10 + number}.00",
            "currency": "EUR",
        }
        found.append(("transactions", customer.encode(), json.dumps(message).encode()))
    for customer in CUSTOMERS:
        profile = {"customer_id": customer, "country": "DE", **CONTACT}
        found.append(("customers", customer.encode(), json.dumps(profile).encode()))
    return found


def stored(url: str, namespace: str) -> dict[str, tuple[Totals, bytes]]:
    """Every history of a namespace: what it holds, since when it was packed depends on the chunks."""
    return {c: (h.totals, h.records.tobytes()) for c, h in histories(url, namespace).items()}


def everything(url: str) -> bytes:
    """All keys and values of the server."""
    with Redis.from_url(url) as client:
        parts = []
        for key in client.scan_iter():
            kind = client.type(key)
            value = {
                b"string": client.get,
                b"hash": client.hgetall,
                b"list": lambda k: client.lrange(k, 0, -1),
                b"zset": lambda k: client.zrange(k, 0, -1),
            }[kind](key)
            parts.append(key + repr(value).encode())
        return b"\n".join(parts)


def sink_of(deployment, place: str, **settings: Any) -> SinkProcess:
    """A sink with a folder and a database of its own."""
    kept = {
        "bootstrap": deployment.stack.bootstrap,
        "database_url": f"sqlite:///{deployment.folder}/{place}/index.db",
        "events": deployment.folder / place / "events",
        "flush_s": 0.1,
        "flush_rows": 60,
        "compact_files": 3,
        "log_format": "json",
    }
    return SinkProcess(deployment.folder, kept | settings, name=f"{place}-{len(settings)}")


def sunk(deployment, place: str, tries: int = 20) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The customer index and the event log, in an order of their own."""
    try:
        return _sunk(deployment, place)
    except FileNotFoundError:
        # The sink replaced a file after the manifest was read.
        if tries == 0:
            raise
        return sunk(deployment, place, tries - 1)


def _sunk(deployment, place: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    database = Database(f"sqlite:///{deployment.folder}/{place}/index.db")
    try:
        if not database.ready():
            return {}, []
        with database.begin() as connection:
            index = {row.customer_id: tuple(row) for row in connection.execute(sa.select(CUSTOMER_INDEX))}
        paths = [deployment.folder / place / "events" / f.path for f in SinkStore(database).files()]
    finally:
        database.close()
    rows = [row for path in paths for row in pq.read_table(path, schema=SCHEMA).to_pylist()]
    return index, sorted(rows, key=lambda row: (row["partition"], row["offset"]))


async def unsunk(deployment, place: str) -> dict[tuple[str, int], int]:
    """Records of each partition that are not part of the index and the event log yet."""
    database = Database(f"sqlite:///{deployment.folder}/{place}/index.db")
    try:
        offsets = SinkStore(database).offsets() if database.ready() else {}
    finally:
        database.close()
    topics = (TRANSACTIONS, FRAUD_SCORES, CHURN_SCORES, CUSTOMERS_TOPIC, ERASURES)
    tail = LogTail(deployment.stack.bootstrap)
    await tail.start()
    try:
        bounds = await tail.bounds([(topic.name, p) for topic in topics for p in range(PARTITIONS)])
    finally:
        await tail.stop()
    return {tp: end - offsets.get(tp, 0) for tp, (_, end) in bounds.items() if end > offsets.get(tp, 0)}


def sunk_files(deployment, place: str) -> list[str]:
    """Names of files that the manifest names."""
    database = Database(f"sqlite:///{deployment.folder}/{place}/index.db")
    try:
        return [path.rpartition("/")[2] for path in SinkStore(database).named()]
    finally:
        database.close()


def holds(deployment, place: str, word: str) -> list[str]:
    """Files of a sink with a word in them; Parquet is read, since it is compressed."""
    found = []
    for path in (deployment.folder / place).rglob("*"):
        try:
            if path.suffix == ".parquet":
                text = repr(pq.read_table(path).to_pylist()).encode()
            else:
                text = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:  # removed since it was listed
            continue
        if word.encode() in text:
            found.append(path.name)
    return found


async def test_an_erased_customer_is_gone_and_stays_gone_when_all_is_built_anew(deployment, tmp_path):
    security = tmp_path / "security"
    SigningKeys(security).rotate(wait_s=0, keep_s=700)
    for purpose in ("audit", "data"):
        add_key(security, purpose)
    client, secret = ClientStore(security).add("Desk", "default", SCOPES)
    settings = {
        "bootstrap": deployment.stack.bootstrap,
        "redis_url": deployment.stack.redis_url,
        "models": deployment.models,
        "security_dir": security,
        "auth": "own",
        "audit_dir": tmp_path / "audit",
        "audit_anchor": tmp_path / "elsewhere" / "anchors.jsonl",
        "database_url": f"sqlite:///{tmp_path}/sunk/index.db",
        "events": tmp_path / "sunk" / "events",
    }
    await deployment.create_topics()
    await deployment.publish(messages())
    api_process = ApiProcess(tmp_path, settings)
    worker = deployment.worker(security_dir=security)
    sink = sink_of(deployment, "sunk")
    for part in (worker, api_process, sink):
        part.start(120)  # a busy machine takes its time to load them
    try:
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored([f"t-{n}" for n in range(240)])
        async with httpx.AsyncClient(base_url=api_process.url, timeout=20) as api:
            form = {"grant_type": "client_credentials"}
            given = await api.post("/auth/token", data=form, auth=(client.client_id, secret))
            headers = {"authorization": f"Bearer {given.json()['access_token']}"}
            path = f"/customers/{ERASED}"

            async def has_profile() -> bool:
                answer = await api.get(f"{path}/profile", headers=headers)
                return answer.status_code == 200 and answer.json()["contact"] == CONTACT

            await eventually(has_profile, 30, "the profile, opened")
            export = (await api.get(f"{path}/export", headers=headers)).json()
            assert export["totals"]["count"] == len(export["history"]) == 20
            before = stored(deployment.stack.redis_url, "tg")

            async def is_sunk() -> bool:
                return await unsunk(deployment, "sunk") == {}

            # Scores and profiles too: a row of the index changes with each.
            await eventually(is_sunk, 60, "the whole log in the event log and the index")
            sunk_before = sunk(deployment, "sunk")
            assert len(sunk_before[1]) == 240
            listed = await api.get(f"{path}/transactions", headers=headers)
            assert len(listed.json()["transactions"]) == 20
            # It is killed in the middle, and another goes on.
            sink.stop()
            sink = sink_of(deployment, "sunk", crash_point="after-write")
            with suppress(DependencyError):
                sink.start(120)
            once = headers | {"idempotency-key": "erase-once"}
            asked = [await api.delete(path, headers=once) for _ in range(2)]
            assert [answer.status_code for answer in asked] == [202, 202]
            assert asked[0].content == asked[1].content
            await eventually(lambda: not sink.running, 60, "the crash of the sink")
            sink.stop()
            assert sunk(deployment, "sunk") == sunk_before
            sink = sink_of(deployment, "sunk", flush_s=0.2)
            sink.start(120)

            async def is_gone() -> bool:
                return (await api.get(f"{path}/features", headers=headers)).status_code == 404

            await eventually(is_gone, 30, "the customer is gone")
            await eventually(lambda: ERASED not in sunk(deployment, "sunk")[0], 60, "gone from the index")

            async def is_not_listed() -> bool:
                return (await api.get(f"{path}/transactions", headers=headers)).status_code == 404

            await eventually(is_not_listed, 30, "the customer is not in the index")
            again = await api.delete(path, headers=once)
            assert (again.status_code, again.content) == (202, asked[0].content)
        after = stored(deployment.stack.redis_url, "tg")
        assert after == {c: h for c, h in before.items() if c != ERASED}
        sunk_after = sunk(deployment, "sunk")
        index, rows = sunk_before
        assert sunk_after[0] == {c: row for c, row in index.items() if c != ERASED}
        assert sunk_after[1] == [row for row in rows if row["customer_id"] != ERASED]

        def is_nowhere() -> bool:
            # What the crash left has no name in the manifest and goes after an hour.
            named = set(sunk_files(deployment, "sunk"))
            return not [f for f in holds(deployment, "sunk", ERASED) if f in named or f.startswith("index")]

        await eventually(is_nowhere, 60, "no named file and no page of the database holds the id")
    finally:
        api_process.stop()
        sink.stop()
        worker.stop()
    found = everything(deployment.stack.redis_url)
    assert ERASED.encode() not in found
    for value in CONTACT.values():
        assert value.encode() not in found

    # Anew, from the start of the log, into an empty namespace.
    anew_worker = deployment.worker(security_dir=security, namespace="anew", group="anew")
    anew_worker.start(120)

    def is_built() -> bool:
        histories = stored(deployment.stack.redis_url, "anew")
        return sum(h[0].count for c, h in histories.items() if c != ERASED) == 220

    await eventually(is_built, 60, "histories from the log")
    anew_worker.stop()
    with suppress(DependencyError):
        anew_sink = sink_of(deployment, "anew")
        anew_sink.start(120)
    try:
        await eventually(lambda: len(sunk(deployment, "anew")[1]) == 220, 60, "the event log from the log")
        assert holds(deployment, "anew", ERASED) == []
    finally:
        anew_sink.stop()
    assert sunk(deployment, "anew") == sunk_after
    anew = stored(deployment.stack.redis_url, "anew")
    assert anew == after
    assert ERASED.encode() not in everything(deployment.stack.redis_url)

    end = verify(
        tmp_path / "audit",
        KeyRing.of_file(security, "audit"),
        read_anchors(tmp_path / "elsewhere" / "anchors.jsonl"),
    )
    trail = [json.loads(line) for _, line in records(tmp_path / "audit")]
    assert end.number == len(trail)
    assert [(r["event"], r["action"]) for r in trail if r.get("action") in ("export", "erase")] == [
        ("asked", "export"),
        ("answered", "export"),
        # Sent three times with one key, and done once.
        *[("asked", "erase"), ("answered", "erase")] * 3,
    ]
    written = b"".join(
        path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.suffix in (".log", ".jsonl") and path.is_file()
    )
    assert len(written) > 1000
    for value in (*CONTACT.values(), ERASED):
        assert value.encode() not in written
