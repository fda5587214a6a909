import asyncio

import pytest
from structlog.testing import capture_logs

from schemas.errors import DependencyError, EventError
from stream_app.retry import Interrupted, Retry


class Flaky:
    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures, self.error, self.calls = failures, error or DependencyError("Redis is away"), 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return self.calls


def retry(give_up_s: float = 60.0, first_s: float = 0.0001) -> tuple[Retry, list[str]]:
    seen: list[str] = []
    return Retry(first_s, first_s * 2, give_up_s, seen.append), seen


async def test_call_that_succeeds_is_made_once() -> None:
    patient, seen = retry()
    assert await patient.until_done("redis", Flaky(0), asyncio.Event()) == 1
    assert seen == []


async def test_dependency_is_waited_for_and_each_wait_is_said() -> None:
    patient, seen = retry()
    with capture_logs() as logs:
        assert await patient.until_done("redis", Flaky(3), asyncio.Event()) == 4
    assert seen == ["redis"] * 3
    assert [log["event"] for log in logs] == ["waiting"] * 3
    assert logs[0] | {"again_in_s": 0} == {
        "event": "waiting",
        "dependency": "redis",
        "error": "Redis is away",
        "again_in_s": 0,
        "log_level": "warning",
    }


async def test_other_errors_are_not_tried_again() -> None:
    patient, seen = retry()
    flaky = Flaky(3, EventError("not_json", "bad"))
    with pytest.raises(EventError):
        await patient.until_done("redis", flaky, asyncio.Event())
    assert flaky.calls == 1
    assert seen == []


async def test_it_gives_up_with_the_dependencys_own_error() -> None:
    patient, _ = retry(give_up_s=0.02)
    with pytest.raises(DependencyError, match="Redis is away"):
        await patient.until_done("redis", Flaky(1_000_000), asyncio.Event())


async def test_interruption_ends_a_pause_at_once() -> None:
    patient, seen = retry(first_s=3600)
    interrupted = asyncio.Event()
    waiting = asyncio.create_task(patient.until_done("redis", Flaky(9), interrupted))
    async with asyncio.timeout(5):
        while not seen:
            await asyncio.sleep(0)
        interrupted.set()
        with pytest.raises(Interrupted):
            await waiting


async def test_what_is_already_interrupted_is_still_tried_once() -> None:
    patient, _ = retry(first_s=3600)
    interrupted = asyncio.Event()
    interrupted.set()
    assert await patient.until_done("redis", Flaky(0), interrupted) == 1
    with pytest.raises(Interrupted):
        await patient.until_done("redis", Flaky(1), interrupted)
