import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from api.ports import Kept, Reply
from infra.replies import RedisReplies
from schemas.errors import DependencyError

pytestmark = pytest.mark.integration
OK = Reply(200, "application/json", b"{}")


@pytest.fixture
async def replies(valkey, direct):
    store = RedisReplies(valkey.url, prefix="tg:api", kept=Kept.of)
    yield store
    await store.close()


async def test_of_many_at_once_one_claims_the_key_and_the_others_see_it_under_way(replies):
    found = await asyncio.gather(*(replies.begin("k", "digest") for _ in range(20)))
    assert found.count(None) == 1
    assert {known.request for known in found if known} == {"digest"}
    assert all(known.reply is None for known in found if known)


async def test_an_answer_is_kept_as_it_was_for_a_day(replies, direct):
    reply = Reply(200, "application/json", '{"name": "kundé"}'.encode() + bytes(range(256)))
    assert await replies.begin("k", "digest") is None
    assert 0 < direct.ttl("tg:api:reply:k") <= 60
    await replies.finish("k", "digest", reply)
    assert await replies.begin("k", "other") == Kept("digest", reply)
    assert 86_000 < direct.ttl("tg:api:reply:k") <= 86_400


async def test_a_key_that_was_let_go_can_be_claimed_again(replies):
    await replies.begin("k", "one")
    await replies.forget("k")
    assert await replies.begin("k", "two") is None


@asynccontextmanager
async def losing_the_first_answer(port: int) -> AsyncIterator[str]:
    """An address of a Redis whose connection breaks once, behind the first key that it set."""
    lost = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        upstream, to_upstream = await asyncio.open_connection("127.0.0.1", port)
        while sent := await reader.read(65536):
            to_upstream.write(sent)
            answer = await upstream.read(65536)
            if b"\r\nNX\r\n" in sent and not lost:
                lost = True
                break
            writer.write(answer)
        for one in (to_upstream, writer):
            one.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


async def test_a_claim_whose_answer_is_lost_is_known_again_as_ones_own(valkey, direct, replies):
    async with losing_the_first_answer(valkey.port) as url:
        store = RedisReplies(url, prefix="tg:api", kept=Kept.of)
        assert await store.begin("k", "digest") is None
        # It is theirs and nobody else's.
        assert await replies.begin("k", "digest") == Kept("digest", None)
        await store.finish("k", "digest", OK)
        assert await replies.begin("k", "digest") == Kept("digest", OK)
        await store.close()


async def test_a_claim_that_redis_took_too_late_is_let_go(valkey, direct, replies):
    store = RedisReplies(valkey.url, prefix="tg:api", kept=Kept.of, timeout_s=0.3)
    await store.begin("other", "digest")
    valkey.pause()
    try:
        with pytest.raises(DependencyError):
            await store.begin("k", "digest")
    finally:
        valkey.resume()
    async with asyncio.timeout(10):
        # Taken by Redis when it ran again; the client that tries again finds it under way, but not for long.
        while (found := await replies.begin("k", "digest")) is not None:
            assert found == Kept("digest", None)
            await asyncio.sleep(0.1)
    # What is claimed now stays.
    await asyncio.sleep(1)
    assert await replies.begin("k", "digest") == Kept("digest", None)
    assert await replies.begin("other", "digest") == Kept("digest", None)
    await store.close()


@pytest.mark.parametrize("failed", [True, False])
async def test_what_became_of_a_request_is_kept_when_redis_takes_writes_again(
    valkey, direct, replies, failed
):
    store = RedisReplies(valkey.url, prefix="tg:api", kept=Kept.of)
    await store.begin("k", "digest")
    direct.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(DependencyError):
            await (store.forget("k") if failed else store.finish("k", "digest", OK))
        await asyncio.sleep(0.6)
    finally:
        direct.config_set("min-replicas-to-write", "0")
    async with asyncio.timeout(10):
        while (found := await replies.begin("k", "digest")) == Kept("digest", None):
            await asyncio.sleep(0.1)
    assert found == (None if failed else Kept("digest", OK))
    await store.close()


async def test_while_redis_is_away_nothing_is_claimed():
    store = RedisReplies("redis://127.0.0.1:1/0", prefix="x", kept=Kept.of, timeout_s=0.5)
    with pytest.raises(DependencyError, match="idempotency keys"):
        await store.begin("k", "digest")
    await store.close()
