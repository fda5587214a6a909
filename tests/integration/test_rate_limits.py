import asyncio
import time

import pytest

from api.limits import LocalLimiter
from infra.rate_limits import RedisLimiter
from schemas.errors import DependencyError

pytestmark = pytest.mark.integration


@pytest.fixture
async def limiter(valkey, direct):
    made = RedisLimiter(valkey.url, prefix="tg:limit", timeout_s=10)
    yield made
    await made.close()


async def test_as_many_as_the_quota_come_at_once_whoever_asks(limiter, valkey):
    another = RedisLimiter(valkey.url, prefix="tg:limit", timeout_s=10)
    taken = await asyncio.gather(
        *(each.take("a", 50, 3600) for each in (limiter, another) for _ in range(60))
    )
    assert sum(t.allowed for t in taken) == 50
    assert sorted(t.remaining for t in taken if t.allowed) == list(range(50))
    refused = [t.retry_s for t in taken if not t.allowed]
    assert all(70 < retry_s <= 72 for retry_s in refused)
    await another.close()


async def test_it_answers_what_the_limiter_of_one_process_answers(limiter):
    # Quotas so slow that the time between two calls is nothing.
    local = LocalLimiter(lambda: 1000.0)
    for requests, period_s in ((1, 3600), (7, 7200), (100, 86_400)):
        for _ in range(requests + 3):
            key = f"{requests}/{period_s}"
            shared, mine = [await each.take(key, requests, period_s) for each in (limiter, local)]
            assert (shared.allowed, shared.remaining) == (mine.allowed, mine.remaining)
            assert shared.reset_s == pytest.approx(mine.reset_s, abs=2)
            assert shared.retry_s == pytest.approx(mine.retry_s, abs=2)


async def test_each_of_many_at_once_is_counted_once_also_by_a_server_that_forgot_the_script(limiter, direct):
    for _ in range(2):
        direct.script_flush()
        direct.flushdb()
        taken = await asyncio.gather(*(limiter.take(f"client-{n % 3}", 100, 3600) for n in range(90)))
        for client in range(3):
            assert sorted(t.remaining for t in taken[client::3]) == list(range(70, 100))


async def test_a_key_is_gone_when_its_allowance_is_whole(limiter, direct):
    await limiter.take("a", 10, 1)
    assert 0 < direct.pttl("tg:limit:a") <= 102


async def test_the_rate_is_kept_over_time(limiter):
    started = time.monotonic()

    async def ask() -> int:
        allowed = 0
        while time.monotonic() - started < 4:
            allowed += (await limiter.take("a", 20, 1)).allowed
        return allowed

    # Many and a low rate, so that a busy machine too asks more often than it lets through.
    allowed = sum(await asyncio.gather(*(ask() for _ in range(32))))
    expected = 20 + 20 * (time.monotonic() - started)
    # One at the end of the span may or may not be in it.
    assert abs(allowed - expected) <= 0.01 * expected + 1


async def test_a_server_that_is_away_is_not_waited_for_again_and_again(valkey, limiter):
    now = 0.0
    away = RedisLimiter("redis://127.0.0.1:1/0", prefix="x", clock=lambda: now)
    with pytest.raises(DependencyError) as first:
        await away.take("a", 1, 1)
    assert "127.0.0.1" not in str(first.value)
    with pytest.raises(DependencyError, match="just now"):
        await away.take("a", 1, 1)
    now = 1.0
    with pytest.raises(DependencyError, match="does not count"):
        await away.take("a", 1, 1)
    await away.close()
