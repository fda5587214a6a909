"""A customer's own data from the log to the API and its end: real broker, Valkey, worker and API."""

import json
from typing import Any

import httpx
import pytest
from redis import Redis

from features.codec import Totals, decode
from harness.processes import ApiProcess
from infra.audit_log import read_anchors, records, verify
from infra.client_store import ClientStore
from infra.key_ring import KeyRing, add_key
from infra.signing_keys import SigningKeys
from tests.deployment import Deployment, Outputs, eventually

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
    found = {}
    with Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{{{namespace}:*}}:h:*"):
            history = decode(client.get(key) + (client.get(key.replace(b":h:", b":b:", 1)) or b""))
            found[key.decode().split(":h:", 1)[1]] = (history.totals, history.records.tobytes())
    return found


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
    }
    await deployment.create_topics()
    await deployment.publish(messages())
    api_process = ApiProcess(tmp_path, settings)
    worker = deployment.worker(security_dir=security)
    for part in (worker, api_process):
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
            assert (await api.delete(path, headers=headers)).status_code == 202

            async def is_gone() -> bool:
                return (await api.get(f"{path}/features", headers=headers)).status_code == 404

            await eventually(is_gone, 30, "the customer is gone")
        after = stored(deployment.stack.redis_url, "tg")
        assert after == {c: h for c, h in before.items() if c != ERASED}
    finally:
        api_process.stop()
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
        ("asked", "erase"),
        ("answered", "erase"),
    ]
    written = b"".join(
        path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.suffix in (".log", ".jsonl") and path.is_file()
    )
    assert len(written) > 1000
    for value in (*CONTACT.values(), ERASED):
        assert value.encode() not in written
