"""What an API says of a Redis that it cannot answer from, asked before and after it answered from it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient

from api.main import build
from api.settings import ApiSettings
from infra.history_layout import UNDECIDED
from tests.histories import PARTITIONS, A, change, commit
from tests.serving import assert_problem

pytestmark = pytest.mark.integration
LOOKUPS = (f"/customers/{A}/features", f"/customers/{A}/scores", f"/customers/{A}/profile")


@asynccontextmanager
async def asking(registry, url: str, **settings) -> AsyncIterator[AsyncClient]:
    """A client of an API against a Redis."""
    app = build(ApiSettings(models=registry._root, redis_url=url, bootstrap="", **settings))
    transport = ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://tidegate") as client,
    ):
        yield client


async def filled(store, entities=()) -> None:
    """Have a store hold a customer, and every partition complete."""
    await store.claim_entities(entities)
    await store.claim_topology(PARTITIONS, "kafka-1")
    for partition in range(PARTITIONS):
        lease = await store.acquire(partition)
        await store.complete(lease)
        await store.apply(lease, commit(None, 1, change(f"c-{partition}", b"", b"")))


@pytest.mark.parametrize("answered_before", [True, False])
async def test_an_empty_store_is_one_answer_whatever_the_api_knew(
    valkey, redis_store, direct, registry, tmp_path, answered_before
):
    folder = {"database_url": f"sqlite:///{tmp_path}/no.db", "events": tmp_path}
    async with asking(registry, valkey.url, **folder) as client:
        if answered_before:
            await filled(redis_store)
            assert (await client.get("/ready")).status_code == 200
            assert (await client.get("/customers/nobody/features")).status_code == 404
            direct.flushall()
        for path in (*LOOKUPS, "/ready"):
            answer = await client.get(path)
            assert_problem(answer, 503, "history-incomplete")
            assert answer.headers["retry-after"] == "1"
        for path in ("/health", "/health/detailed"):
            health = await client.get(path)
            assert (health.status_code, health.headers["retry-after"]) == (503, "1")
            assert health.json()["status"] == "down"
            assert "histories are being built" in health.text


async def test_a_state_that_counts_other_entities_than_the_api_is_not_ready(
    valkey, redis_store, direct, registry
):
    await filled(redis_store, ("merchant",))
    async with asking(registry, valkey.url) as client:
        problem = assert_problem(await client.get("/ready"), 503, "history-unreadable")
        assert "the state counts entities 'merchant', TIDEGATE_ENTITIES says 'none'" in problem["detail"]
        health = await client.get("/health/detailed")
        assert health.status_code == 503
        assert health.json()["parts"]["redis"]["facts"]["reason"] == problem["detail"]
        # Rebuilt: what is counted is up to the next worker.
        direct.set("tg:entities", UNDECIDED)
        assert (await client.get("/ready")).status_code == 200


async def test_a_store_of_which_no_partition_is_complete_is_not_ready_and_of_which_one_is_is(
    valkey, redis_store, registry
):
    """As after a flush, when a worker has refused to start, and while all is built again."""
    await redis_store.claim_entities(())
    await redis_store.claim_topology(PARTITIONS, "kafka-1")
    async with asking(registry, valkey.url) as client:
        assert_problem(await client.get("/ready"), 503, "history-incomplete")
        leases = [await redis_store.acquire(partition) for partition in range(PARTITIONS)]
        assert_problem(await client.get("/ready"), 503, "history-incomplete")
        await redis_store.complete(leases[1])
        assert (await client.get("/ready")).status_code == 200


RIGHTS = "~* +@connection +@read +@write +@scripting +time"


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        ("-lrange", r"LRANGE on {tg:0}:s:*"),
        ("-hmget", r"HMGET on {tg:0}:meta"),
        ("-set", r"SET on tg:limit:*, SET on tg:api:reply:*"),
        ("-del", r"DEL on tg:api:reply:*"),
        ("-evalsha", r"EVALSHA on tg:limit:*"),
        ("-script|load", r"may not: SCRIPT LOAD"),
        ("-time", r"TIME"),
        ("resetkeys ~tg:* ~{tg:*}:meta ~{tg:*}:[bpces]:*", r"MGET on {tg:0}:h:*"),
        ("resetkeys ~{tg:* ~tg:topology ~tg:entities ~tg:api:*", r"EVALSHA on tg:limit:*, GET on tg:limit:*"),
    ],
)
async def test_an_api_whose_redis_user_lacks_rights_says_which(
    valkey, redis_store, direct, registry, taken, said
):
    await filled(redis_store)
    direct.execute_command("ACL", "SETUSER", "api", "on", ">secret", *RIGHTS.split(), *taken.split())
    keys = sorted(direct.keys())
    try:
        url = valkey.url.replace("redis://", "redis://api:secret@")
        async with asking(registry, url, rate_limits="on") as client:
            problem = assert_problem(await client.get("/ready"), 503, "rights-missing", "secret", "local")
            assert said in problem["detail"]
            assert "127.0.0.1" not in problem["detail"]
            direct.execute_command("ACL", "SETUSER", "api", "resetkeys", *RIGHTS.split())
            await asyncio.sleep(1.1)
            assert (await client.get("/ready")).status_code == 200
        assert sorted(direct.keys()) == keys
    finally:
        direct.execute_command("ACL", "DELUSER", "api")


async def test_the_rights_that_operators_are_told_are_enough(valkey, redis_store, direct, registry):
    (told,) = re.findall(r"`(~tg:\* .*)`", Path("docs/operations.md").read_text())
    await filled(redis_store)
    direct.execute_command("ACL", "SETUSER", "api", "on", ">secret", *told.split())
    try:
        url = valkey.url.replace("redis://", "redis://api:secret@")
        async with asking(registry, url, rate_limits="on") as client:
            assert (await client.get("/ready")).status_code == 200
            for what in ("features", "scores", "profile", "export"):
                answer = await client.get(f"/customers/nobody/{what}")
                assert (answer.status_code, answer.headers["ratelimit"] != "") == (404, True)
            lost = await client.delete("/customers/nobody", headers={"Idempotency-Key": "k"})
            again = await client.delete("/customers/nobody", headers={"Idempotency-Key": "k"})
            assert (lost.status_code, again.status_code) == (404, 404)
            assert again.headers["idempotency-replayed"] == "true"
    finally:
        direct.execute_command("ACL", "DELUSER", "api")


async def test_rights_that_are_there_are_not_asked_for_at_each_call(valkey, redis_store, direct, registry):
    await filled(redis_store)
    async with asking(registry, valkey.url, rate_limits="on") as client:
        assert (await client.get("/ready")).status_code == 200
        before = direct.info("commandstats")["cmdstat_lrange"]["calls"]
        for _ in range(5):
            assert (await client.get("/ready")).status_code == 200
        assert direct.info("commandstats")["cmdstat_lrange"]["calls"] == before
