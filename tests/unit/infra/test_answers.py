import asyncio

import pytest

from infra import answers
from infra.answers import Answers


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(answers, "time", found)
    return found


class Asked:
    def __init__(self):
        self.times = 0
        self.error: Exception | None = None

    async def __call__(self):
        self.times += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.times


async def test_a_question_that_many_ask_at_once_is_answered_once(clock):
    found, asked = Answers(10), Asked()
    assert await asyncio.gather(*(found.get("q", asked) for _ in range(5))) == [1] * 5
    assert await found.get("q", asked) == 1
    assert await found.get("another", asked) == 2


async def test_an_answer_is_kept_for_its_time(clock):
    found, asked = Answers(10, kept_s=1.0), Asked()
    assert await found.get("q", asked) == 1
    clock.now = 1.0
    assert await found.get("q", asked) == 1
    clock.now = 1.1
    assert await found.get("q", asked) == 2


async def test_a_failure_is_not_kept(clock):
    found, asked = Answers(10), Asked()
    asked.error = ValueError("away")
    for _ in range(2):
        with pytest.raises(ValueError, match="away"):
            await found.get("q", asked)
    asked.error = None
    assert await found.get("q", asked) == 3


async def test_the_oldest_answer_makes_room(clock):
    found, asked = Answers(2), Asked()
    for question in ("a", "b", "c", "a"):
        await found.get(question, asked)
    assert asked.times == 4


async def test_who_asked_first_may_go_and_the_others_get_their_answer(clock):
    found, asked = Answers(2), Asked()
    first = asyncio.ensure_future(found.get("q", asked))
    second = asyncio.ensure_future(found.get("q", asked))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 1


async def test_the_answer_of_another_version_is_made_again_and_lets_go_of_the_one_before(clock):
    found, asked = Answers(10), Asked()
    answers = [await found.get("q", asked, version) for version in ("a", "a", "b", "b", "a")]
    assert answers == [1, 1, 2, 2, 3]
    assert len(found._found) == 1


async def test_an_answer_under_way_of_an_older_version_does_not_take_the_place_of_the_newer(clock):
    found, slow, quick = Answers(10), asyncio.Event(), Asked()

    async def old():
        await slow.wait()
        return "old"

    first = asyncio.ensure_future(found.get("q", old, "a"))
    await asyncio.sleep(0)
    assert await found.get("q", quick, "b") == 1
    slow.set()
    assert await first == "old"
    assert await found.get("q", quick, "b") == 1


async def test_answers_make_room_by_their_size(clock):
    made = []

    def answer(text):
        async def make():
            made.append(text)
            return text

        return make

    found = Answers(10, size=len, most_size=10)
    for text in ("aaaa", "bbbb", "cccc", "bbbb", "cccc", "aaaa"):
        await found.get(text, answer(text))
    assert made == ["aaaa", "bbbb", "cccc", "aaaa"]
    # One that is larger than all room is answered, and not kept.
    for _ in range(2):
        assert await found.get("long", answer("d" * 11)) == "d" * 11
    assert made[4:] == ["d" * 11] * 2
    assert found._held == 0


async def test_what_failed_is_not_held(clock):
    found, asked = Answers(10), Asked()
    asked.error = ValueError("away")
    with pytest.raises(ValueError, match="away"):
        await found.get("q", asked)
    assert not found._found
