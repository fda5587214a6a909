"""What an API says of a Redis that it cannot answer from, asked before and after it answered from it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from httpx import ASGITransport, AsyncClient

from api.main import build
from api.settings import ApiSettings
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


async def filled(store) -> None:
    """Have a store hold a customer, and every partition complete."""
    await store.claim_entities(())
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
