import asyncio

import pytest

from schemas.errors import DependencyError
from stream_app.vitals import Vitals

T = ("transactions", 0)


class Known:
    """Partitions as a worker would know them."""

    def __init__(self):
        self.given, self.at, self.end, self.oldest = {T}, 0, 0, None

    def assigned(self):
        return self.given

    def reached(self, topic, partition):
        return self.at

    def log_end(self, topic, partition):
        return self.end

    def oldest_ms(self, topic, partition):
        return self.oldest

    def watermarks_ms(self):
        return {0: 5}


class Shown:
    def __init__(self):
        self.behind, self.watermarks, self.delays = {}, {}, []

    def backlog(self, behind):
        self.behind = dict(behind)

    def owned(self, watermarks_ms):
        self.watermarks = dict(watermarks_ms)

    def loop_delay(self, seconds):
        self.delays.append(seconds)


@pytest.fixture
def known():
    return Known()


@pytest.fixture
def shown():
    return Shown()


@pytest.fixture
def now():
    return [1000.0]


async def _quiet():
    return None


@pytest.fixture
def vitals(known, shown, now):
    return Vitals(known, shown, _quiet, lambda: now[0])


def test_partition_that_is_up_to_date_has_no_age(vitals, known, shown):
    known.at = known.end = 9
    vitals.look()
    assert shown.behind == {T: (0, 0.0)}
    assert shown.watermarks == {0: 5}


def test_age_is_that_of_the_oldest_record_held(vitals, known, shown):
    known.at, known.end, known.oldest = 3, 9, 988_000
    vitals.look()
    assert shown.behind == {T: (6, 12.0)}


def test_records_not_fetched_yet_age_from_when_they_were_first_seen(vitals, known, shown, now):
    known.end = 4
    vitals.look()
    now[0] += 7
    vitals.look()
    assert shown.behind == {T: (4, 7.0)}
    known.at = 4
    vitals.look()
    known.end = 5
    now[0] += 1
    vitals.look()
    assert shown.behind == {T: (1, 0.0)}


def test_record_held_is_behind_even_where_the_log_was_not_asked_lately(vitals, known, shown):
    known.at, known.end, known.oldest = 4, 4, 999_000
    vitals.look()
    assert shown.behind == {T: (1, 1.0)}


def test_partition_without_a_lease_is_not_shown(vitals, known, shown):
    known.at = None
    vitals.look()
    assert shown.behind == {}


async def test_redis_is_asked_again_after_it_did_not_answer(known, shown, monkeypatch):
    monkeypatch.setattr("stream_app.vitals._EVERY_S", 0.001)
    asked = asyncio.Event()
    answers = iter([DependencyError("away"), None])

    async def ask():
        if (error := next(answers)) is not None:
            raise error
        asked.set()

    running = asyncio.create_task(Vitals(known, shown, ask).run())
    await asyncio.wait_for(asked.wait(), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert shown.delays
