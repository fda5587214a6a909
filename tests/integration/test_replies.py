import asyncio

import pytest

from api.ports import Kept, Reply
from infra.replies import RedisReplies
from schemas.errors import DependencyError

pytestmark = pytest.mark.integration


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


async def test_while_redis_is_away_nothing_is_claimed():
    store = RedisReplies("redis://127.0.0.1:1/0", prefix="x", kept=Kept.of, timeout_s=0.5)
    with pytest.raises(DependencyError, match="idempotency keys"):
        await store.begin("k", "digest")
    await store.close()
