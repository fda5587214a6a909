import asyncio

import pytest

from infra.gathered import Gathered


class Store:
    """Answers when it is let; notes which keys came together."""

    def __init__(self):
        self.calls: list[list[int]] = []
        self.let = asyncio.Event()
        self.let.set()
        self.error: Exception | None = None

    async def __call__(self, keys):
        self.calls.append(keys)
        await self.let.wait()
        if self.error is not None:
            raise self.error
        return [key * 10 for key in keys]


async def turns(number=5):
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_comes_together_is_asked_with_one_call_and_each_gets_its_own():
    store = Store()
    found = Gathered(store)
    assert await asyncio.gather(*(found.get(n) for n in range(5))) == [0, 10, 20, 30, 40]
    assert await found.get(7) == 70
    assert store.calls == [[0, 1, 2, 3, 4], [7]]


async def test_what_comes_while_calls_are_under_way_goes_with_the_next():
    store = Store()
    store.let.clear()
    found = Gathered(store, calls=1, most=3)
    asked = [asyncio.ensure_future(found.get(0))]
    await turns()
    asked += [asyncio.ensure_future(found.get(n)) for n in range(1, 6)]
    await turns()
    assert store.calls == [[0]]
    store.let.set()
    assert await asyncio.gather(*asked) == [0, 10, 20, 30, 40, 50]
    assert store.calls == [[0], [1, 2, 3], [4, 5]]


async def test_a_call_that_fails_fails_its_own_and_the_next_is_made():
    store = Store()
    store.error = ConnectionError("away")
    found = Gathered(store)
    answers = await asyncio.gather(*(found.get(n) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError] * 3
    store.error = None
    assert await found.get(1) == 10


async def test_who_goes_away_takes_nobody_along():
    store = Store()
    store.let.clear()
    found = Gathered(store)
    asked = [asyncio.ensure_future(found.get(n)) for n in range(3)]
    await turns()
    asked[1].cancel()
    store.let.set()
    with pytest.raises(asyncio.CancelledError):
        await asked[1]
    assert await asyncio.gather(asked[0], asked[2]) == [0, 20]


async def test_who_waits_behind_a_call_that_fails_fails_with_it_and_waits_for_no_other():
    store = Store()
    store.let.clear()
    store.error = TimeoutError("away")
    found = Gathered(store, calls=1, most=2)
    asked = [asyncio.ensure_future(found.get(n)) for n in range(7)]
    await turns()
    store.let.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [TimeoutError] * 7
    assert store.calls == [[0, 1]]


async def test_what_cannot_be_said_of_one_key_is_said_of_the_others():
    async def ask(keys):
        return [ValueError("one") if key == 1 else key for key in keys]

    found = Gathered(ask)
    answers = await asyncio.gather(*(found.get(n) for n in range(3)), return_exceptions=True)
    assert [answers[0], type(answers[1]), answers[2]] == [0, ValueError, 2]
