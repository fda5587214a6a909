"""Card numbers and contact data that come in everywhere: none of it is anywhere in clear afterwards.

Scanned are Redis, the SQL file, Parquet, every topic that is written here, logs, metrics, the audit trail and
all answers to requests. Input topics hold what the bank itself put there.
"""

import json
from collections.abc import Iterable
from contextlib import suppress

import httpx
import pyarrow.parquet as pq
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from harness.processes import ApiProcess
from infra.client_store import ClientStore
from infra.key_ring import add_key
from infra.signing_keys import SigningKeys
from schemas.card_number import passes_luhn
from tests.deployment import PARTITIONS, Deployment, eventually
from tests.integration.test_erasure import everything, sink_of, sunk

pytestmark = pytest.mark.integration
SCOPES = ("customers:read", "customers:export", "inference", "analytics:read", "operations:read")
WRITTEN = ("scores.fraud", "scores.churn", "alerts", "transactions.dlq", "audit")
CUSTOMERS = [f"cust-{n}" for n in range(6)]


def card(prefix: str, length: int = 16) -> str:
    """A number that passes the Luhn check; made here, so that none is in a file."""
    digits = prefix.ljust(length - 1, "7")
    return next(digits + check for check in "0123456789" if passes_luhn(digits + check))


CARDS = [card(prefix, n) for prefix, n in (("411", 16), ("52", 16), ("371", 15), ("6011", 16), ("9", 19))]
CONTACT = {
    "name": "Wilhelmina Musterfrau",
    "email": "wilhelmina.musterfrau@example.org",
    "phone": "+49 30 5550199",
    "address": "Beispielgasse 77",
}


def spaced(number: str, mark: str = " ") -> str:
    return mark.join(number[at : at + 4] for at in range(0, len(number), 4))


def transaction(number: int, **fields: object) -> dict[str, object]:
    return {
        "transaction_id": f"t-{number}",
        "customer_id": CUSTOMERS[number % len(CUSTOMERS)],
        "event_time": 1_767_225_600_000 + number * 3_600_000,
        "amount": f"{10 + number}.00",
        "currency": "EUR",
    } | fields


def seeded() -> Iterable[tuple[str, bytes, bytes]]:
    """Good messages, and card numbers where they should not be."""

    def of(topic, message):
        return topic, str(message.get("customer_id", "x")).encode(), json.dumps(message).encode()

    for number in range(60):
        yield of("transactions", transaction(number))
    fields = (
        "merchant_id",
        "transaction_id",
        "customer_id",
        "counterparty_id",
        "card_token",
        "note",
        "device_id",
    )
    for number, field in enumerate(fields, start=100):
        for shape, pan in enumerate((CARDS[0], spaced(CARDS[1]), spaced(CARDS[2], "-"), CARDS[4])):
            yield of("transactions", transaction(number * 10 + shape, **{field: pan}))
    yield of("transactions", transaction(2000, more={"deep": [CARDS[3]]}))
    yield "transactions", CARDS[3].encode(), f'{{"customer_id": "c", "oops": {CARDS[3]}'.encode()
    yield "transactions", b"c", f"not json {spaced(CARDS[0])}".encode()
    yield "labels", b"c", json.dumps({"customer_id": CARDS[0], "label": "fraud"}).encode()
    for customer in CUSTOMERS:
        yield of("customers", {"customer_id": customer, "country": "DE", **CONTACT})
    yield of("customers", {"customer_id": CUSTOMERS[0], "segment": CARDS[1], **CONTACT})
    yield of("customers", {"customer_id": CUSTOMERS[1], "country": "not a country", **CONTACT})


async def ask(api: httpx.AsyncClient, token: dict[str, str]) -> list[httpx.Response]:
    """Requests with card numbers and contact data wherever a client can put them."""
    pan, name = CARDS[0], CONTACT["name"]
    asked = [
        ("GET", f"/customers/{pan}/features", {}),
        ("GET", f"/customers/{spaced(pan, '-')}/scores", {}),
        ("GET", f"/customers/{name}/profile", {}),
        ("GET", "/customers", {"params": {"segment": pan, "cursor": pan}}),
        ("GET", "/customers/cust-1/features", {"params": {"as_of": pan}}),
        ("GET", "/customers/cust-1/transactions", {"params": {"cursor": pan, "decision": name}}),
        ("GET", "/customers/cust-1/features", {"headers": {"x-request-id": pan}}),
        ("GET", f"/{pan}", {}),
        ("POST", "/inference/fraud-detection", {"json": transaction(1, merchant_id=pan)}),
        ("POST", "/inference/fraud-detection", {"json": transaction(1, amount=name)}),
        ("POST", "/inference/fraud-detection", {"content": f'{{"{pan}": '.encode()}),
        ("POST", "/inference/churn-score", {"json": {"customer_id": pan}}),
        ("POST", "/inference/churn-batch", {"json": {"customer_ids": [pan, name]}}),
        ("POST", "/inference/batch-process", {"json": {"transactions": [transaction(1, note=pan), name]}}),
        ("POST", "/auth/token", {"data": {"grant_type": pan, "client_id": pan, "client_secret": name}}),
        ("GET", "/health/detailed", {}),
        ("GET", "/metrics", {}),
        ("GET", "/customers/cust-1/profile", {}),
        ("GET", "/customers/cust-1/export", {"headers": {"authorization": f"Bearer {pan}"}}),
    ]
    answers = []
    for method, path, more in asked:
        headers = token | more.pop("headers", {})
        answers.append(await api.request(method, path, headers=headers, **more))
    return answers


async def written(bootstrap: str) -> bytes:
    """Every record of the topics that are written here, keys and headers included."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    found = []
    try:
        tps = [TopicPartition(topic, p) for topic in WRITTEN for p in range(PARTITIONS)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        for _ in range(10):
            for records in (await consumer.getmany(timeout_ms=300)).values():
                found += [r.topic.encode() + repr((r.key, r.value, r.headers)).encode() for r in records]
    finally:
        await consumer.stop()
    return b"\n".join(found)


def forbidden() -> list[str]:
    shapes = [shape for pan in CARDS for shape in (pan, spaced(pan), spaced(pan, "-"))]
    return [*shapes, *CONTACT.values(), CONTACT["email"].split("@")[0]]


async def test_no_card_number_and_no_contact_data_is_anywhere_in_clear(tmp_path, registry):
    deployment = Deployment(tmp_path, registry._root, durable=False)
    deployment.stack.start()
    security = tmp_path / "security"
    SigningKeys(security).rotate(wait_s=0, keep_s=700)
    for purpose in ("audit", "data"):
        add_key(security, purpose)
    client, secret = ClientStore(security).add("Desk", "default", SCOPES)
    api_process = ApiProcess(
        tmp_path,
        {
            "bootstrap": deployment.stack.bootstrap,
            "redis_url": deployment.stack.redis_url,
            "models": deployment.models,
            "security_dir": security,
            "auth": "own",
            "audit_dir": tmp_path / "audit",
            "database_url": f"sqlite:///{tmp_path}/sunk/index.db",
            "events": tmp_path / "sunk" / "events",
            "log_level": "debug",
        },
    )
    worker = deployment.worker(security_dir=security, log_level="debug")
    sink = sink_of(deployment, "sunk", log_level="debug")
    places: dict[str, bytes] = {}
    try:
        await deployment.create_topics()
        await deployment.publish(seeded())
        for part in (worker, sink, api_process):
            part.start(240)
        await eventually(
            lambda: len(sunk(deployment, "sunk")[1]) == 60, 120, "the good rows in the event log"
        )
        await eventually(
            lambda: len(sunk(deployment, "sunk")[0]) == len(CUSTOMERS), 60, "the customers in the index"
        )
        async with httpx.AsyncClient(base_url=api_process.url, timeout=30) as api:
            form = {"grant_type": "client_credentials"}
            given = await api.post("/auth/token", data=form, auth=(client.client_id, secret))
            token = {"authorization": f"Bearer {given.json()['access_token']}"}
            answers = await ask(api, token)
            places["answers"] = b"\n".join(
                f"{a.status_code} {dict(a.headers)}\n".encode() + a.content for a in answers
            )
            assert {a.status_code for a in answers} >= {200, 401, 404, 422}
            for part in (worker, sink, api_process):
                with suppress(httpx.HTTPError):
                    metrics = await api.get(f"{part.url}/metrics", headers=token)
                    places["metrics"] = places.get("metrics", b"") + metrics.content

            async def letters() -> bool:
                places["topics"] = await written(deployment.stack.bootstrap)
                return places["topics"].count(b"transactions.dlq") >= 34 and b"audit" in places["topics"]

            await eventually(letters, 60, "a dead letter for each bad message")
        places["redis"] = everything(deployment.stack.redis_url)
    finally:
        api_process.stop()
        sink.stop()
        worker.stop()
        deployment.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    places["parquet"] = b"\n".join(
        repr(pq.read_table(path).to_pylist()).encode() for path in files if path.suffix == ".parquet"
    )
    places["sql"] = b"".join(path.read_bytes() for path in files if path.name.startswith("index.db"))
    places["audit trail"] = b"".join(path.read_bytes() for path in files if path.suffix == ".jsonl")
    own = ("worker", "sink", "sunk", "api")
    places["logs"] = b"".join(
        path.read_bytes() for path in files if path.suffix == ".log" and path.name.startswith(own)
    )
    # The scan sees something in every place: customers are in clear where they may be.
    for place in ("redis", "sql", "parquet", "topics", "answers"):
        assert b"cust-1" in places[place], place
    assert b"tidegate_events_total" in places["metrics"]
    assert b"DELETE" in places["audit trail"] or b"/customers" in places["audit trail"]
    assert len(places["logs"]) > 500
    found = [(place, word) for place, text in places.items() for word in forbidden() if word.encode() in text]
    # Of a place the words, not the text: a report would spread what was found.
    assert found == []
