import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.limits import Limits, LocalLimiter, Quota
from tests.serving import AWAY, Broken, assert_problem, serving

KINDS = ("auth", "read", "score", "bulk", "change")
PATH = "/customers/nobody-home/features"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def quotas(requests: int = 5, period_s: int = 10) -> dict:
    return dict.fromkeys(KINDS, Quota(requests, period_s))


@pytest.mark.parametrize("text", ["", "10", "10/s", "0/1s", "10/0s", "-1/1s", "1.5/1s", "10/1m", "10/1s "])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError, match="REQUESTS/SECONDSs"):
        Quota.of(text)


async def test_as_many_as_the_quota_come_at_once_and_then_one_an_interval():
    clock = Clock()
    limiter = LocalLimiter(clock)
    taken = [await limiter.take("a", 5, 10) for _ in range(7)]
    assert [t.allowed for t in taken] == [True] * 5 + [False] * 2
    assert [t.remaining for t in taken] == [4, 3, 2, 1, 0, 0, 0]
    assert taken[-1].retry_s == pytest.approx(2)
    clock.now += taken[-1].retry_s
    assert (await limiter.take("a", 5, 10)).allowed
    assert not (await limiter.take("a", 5, 10)).allowed
    clock.now += 10
    assert (await limiter.take("a", 5, 10)).remaining == 4


async def test_keys_do_not_share():
    limiter = LocalLimiter(Clock())
    assert (await limiter.take("a", 1, 10)).allowed
    assert (await limiter.take("b", 1, 10)).allowed
    assert not (await limiter.take("a", 1, 10)).allowed


@given(
    st.integers(1, 50),
    st.integers(1, 60),
    st.lists(st.floats(0, 30), min_size=1, max_size=200),
)
async def test_in_no_span_of_time_more_than_quota_and_rate_allow(requests, period_s, pauses):
    clock = Clock()
    limiter = LocalLimiter(clock)
    allowed = []
    for pause in pauses:
        clock.now += pause
        if (await limiter.take("a", requests, period_s)).allowed:
            allowed.append(clock.now)
    for i, start in enumerate(allowed):
        for j in range(i, len(allowed)):
            span = allowed[j] - start
            assert j - i + 1 <= requests + math.floor(span * requests / period_s + 0.01)


async def test_the_answer_says_what_is_left(world, eager):
    from tests.closing import Login

    login = Login(limits=Limits(quotas(), LocalLimiter(Clock()), LocalLimiter(Clock()), lambda event: None))
    async with serving(world.store, eager, security=login.security()) as api:
        first = await api.get(PATH, headers=login.bearer())
        assert first.status_code == 404
        assert first.headers["ratelimit-policy"] == '"read";q=5;w=10'
        assert first.headers["ratelimit"] == '"read";r=4;t=2'
        for _ in range(4):
            await api.get(PATH, headers=login.bearer())
        refused = await api.get(PATH, headers=login.bearer())
        assert_problem(refused, 429, "too-many-requests", "nobody-home")
        assert refused.headers["retry-after"] == "2"
        assert refused.headers["ratelimit"] == '"read";r=0;t=2'
        # Each route has an allowance of its own, and so has each client.
        scores = await api.get("/customers/nobody-home/scores", headers=login.bearer())
        assert scores.status_code == 404
        login.clients.known["other"] = login.clients.known["teller"]
        other = login.bearer(client_id="other", sub="other")
        assert (await api.get(PATH, headers=other)).status_code == 404


async def test_health_and_metrics_are_not_counted(world, eager):
    from tests.closing import Login

    login = Login(limits=Limits(quotas(1), LocalLimiter(Clock()), LocalLimiter(Clock()), lambda event: None))
    async with serving(world.store, eager, security=login.security()) as api:
        for path in ("/live", "/ready", "/health", "/metrics"):
            for _ in range(3):
                response = await api.get(path, headers=login.bearer())
                assert response.status_code == 200
                assert "ratelimit" not in response.headers


@pytest.mark.parametrize(("kind", "closed"), [(k, k in {"auth", "change"}) for k in KINDS])
async def test_while_redis_is_away_only_what_may_be_is_counted_here(kind, closed):
    events = []
    limits = Limits(quotas(1), Broken(AWAY), LocalLimiter(Clock()), events.append)
    if closed:
        with pytest.raises(type(AWAY)):
            await limits.take(kind, "teller", "GET /x")
        assert events == ["refused"]
    else:
        assert [(await limits.take(kind, "teller", "GET /x")).allowed for _ in range(2)] == [True, False]
        assert events == ["local", "local", "limited"]
