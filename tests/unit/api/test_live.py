import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.live import LiveHub, event_id, parse_event_id
from api.ports import Dropped, InvalidPosition, ScoreFilter
from schemas.errors import DependencyError

ALL = ScoreFilter()


def score(partition, offset, customer="c-1", decision="allow"):
    return json.dumps({"customer_id": customer, "decision": decision, "at": [partition, offset]}).encode()


def seen(found):
    return [tuple(json.loads(live.score)["at"]) for live in found]


class Log:
    """A topic in memory, as a `ScoreSource`."""

    def __init__(self, partitions=2, first=0):
        self.logs = [[] for _ in range(partitions)]
        self.first = first
        self.news = asyncio.Queue()
        self.error = None

    def put(self, partition, customer="c-1", decision="allow"):
        offset = len(self.logs[partition])
        value = score(partition, offset, customer, decision)
        self.logs[partition].append(value)
        self.news.put_nowait((partition, offset, value))

    async def start(self):
        if self.error:
            raise self.error
        while not self.news.empty():
            self.news.get_nowait()
        return [len(log) for log in self.logs]

    async def fetch(self):
        found = [await self.news.get()]
        while not self.news.empty():
            found.append(self.news.get_nowait())
        if found[0] is None:
            raise DependencyError("away")
        return found

    async def read(self, partition, start, end):
        if start < self.first:
            raise InvalidPosition("not kept any more")
        await asyncio.sleep(0)
        return list(enumerate(self.logs[partition]))[start:end]

    async def stop(self):
        pass


@asynccontextmanager
async def running(log, **options):
    hub = LiveHub(log, **options)
    task = asyncio.ensure_future(hub.run())
    while not hub.status()["up"]:
        await asyncio.sleep(0)
    try:
        yield hub
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settle(hub, log):
    """Until the hub has taken everything."""
    while hub.position != tuple(map(len, log.logs)):
        await asyncio.sleep(0)


async def drain(client):
    found = []
    while got := await client.next(0.01):
        found += got
    return found


async def test_clients_get_what_they_asked_for_in_order():
    log = Log()
    async with running(log) as hub:
        every, mine, alerts = [
            await hub.subscribe(which, None)
            for which in (
                ALL,
                ScoreFilter(customers=frozenset({"c-2", "c-3"})),
                ScoreFilter(frozenset({"block", "review"}), frozenset({"c-2"})),
            )
        ]
        for n in range(6):
            log.put(n % 2, f"c-{n % 3 + 1}", "block" if n == 4 else "allow")
        await settle(hub, log)
        assert seen(await drain(every)) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
        assert seen(await drain(mine)) == [(1, 0), (0, 1), (0, 2), (1, 2)]
        assert seen(await drain(alerts)) == [(0, 2)]
        assert hub.status()["clients"] == 3
        for client in (every, mine, alerts):
            client.close()
        assert hub.status()["clients"] == 0
        assert hub._by_customer == {}


async def test_a_client_that_is_too_slow_is_dropped_with_a_reason_and_the_others_stay():
    log = Log()
    async with running(log, waiting=5) as hub:
        slow, quick = await hub.subscribe(ALL, None), await hub.subscribe(ALL, None)
        for _ in range(2):
            for _ in range(4):
                log.put(0)
            await settle(hub, log)
            assert len(await drain(quick)) == 4
        assert slow.dropped.is_set()
        with pytest.raises(Dropped, match="too slow: 5 scores were waiting"):
            await slow.next(1)
        assert (hub.status()["clients"], hub.status()["dropped"]) == (1, 1)


@settings(max_examples=60)
@given(data=st.data(), order=st.lists(st.integers(0, 2), min_size=1, max_size=60), kept=st.integers(0, 20))
def test_whoever_comes_back_with_the_last_id_misses_nothing_and_sees_nothing_twice(data, order, kept):
    """At any moment, also at another process that read the partitions in another order."""
    stops = data.draw(st.sets(st.integers(0, len(order)), max_size=5))
    other = data.draw(st.permutations(order))

    async def run():
        logs = [Log(3), Log(3)]
        found, at = [], event_id((0, 0, 0))
        async with running(logs[0], kept=kept) as one, running(logs[1], kept=kept) as two:
            for number, (p, q) in enumerate(zip(order, other, strict=True)):
                logs[0].put(p)
                logs[1].put(q)
                if number in stops:
                    hub, log = ((one, logs[0]), (two, logs[1]))[number % 2]
                    await settle(hub, log)
                    client = await hub.subscribe(ALL, at)
                    got = (await drain(client))[: data.draw(st.integers(0, 10))]
                    found += seen(got)
                    at = got[-1].id if got else at
                    client.close()
            await settle(one, logs[0])
            client = await one.subscribe(ALL, at)
            found += seen(await drain(client))
            assert client.position == event_id(one.position)
        return found, [len(log) for log in logs[0].logs]

    found, lengths = asyncio.run(run())
    for p, length in enumerate(lengths):
        assert [o for q, o in found if q == p] == list(range(length))


async def test_an_id_that_was_not_given_out_is_refused():
    log = Log()
    async with running(log, catch_up=10) as hub:
        for text in (
            "",
            "x",
            "0:1",
            "0:1,1:-1",
            "1:0,0:0",
            "0:1,1:2,2:3",
            "0:01,1:0",
            f"0:{2**63},1:0",
            "0:99,1:0",
        ):
            with pytest.raises(InvalidPosition):
                await hub.subscribe(ALL, text)
    assert parse_event_id("0:7,1:0", 2) == (7, 0)


async def test_what_lies_too_far_back_is_refused():
    log = Log(first=3)
    for _ in range(30):
        log.put(0)
    async with running(log, catch_up=20) as hub:
        hub._catch_up = 1000
        with pytest.raises(InvalidPosition, match="not kept any more"):
            await hub.subscribe(ALL, "0:2,1:0")
        hub._catch_up = 20
        with pytest.raises(InvalidPosition, match="more than 20 scores ago"):
            await hub.subscribe(ALL, "0:5,1:0")
        client = await hub.subscribe(ALL, "0:15,1:0")
        assert seen(await drain(client)) == [(0, o) for o in range(15, 30)]


async def test_before_kafka_answers_there_is_no_subscription():
    log = Log()
    log.error = DependencyError("Kafka is away")
    hub = LiveHub(log)
    with pytest.raises(DependencyError):
        await hub.subscribe(ALL, None)


async def test_when_the_service_ends_every_client_is_told():
    log = Log()
    async with running(log) as hub:
        client = await hub.subscribe(ALL, None)
    with pytest.raises(Dropped, match="the service ends"):
        await client.next(1)


async def test_what_is_no_score_is_passed_over():
    log = Log(1)
    async with running(log) as hub:
        client = await hub.subscribe(ALL, None)
        log.logs[0].append(b"no json")
        log.news.put_nowait((0, 0, b"no json"))
        log.put(0)
        await settle(hub, log)
        assert seen(await drain(client)) == [(0, 1)]
        assert client.position == "0:2"
