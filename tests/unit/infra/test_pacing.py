import pytest

from infra.pacing import Pacer
from schemas.errors import ConfigError


class Clock:
    """A clock that moves only when someone sleeps, or a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


async def times(pacer: Pacer, clock: Clock, event_times_ms: list[int]) -> list[float]:
    """When each event was let through, in seconds after the first."""
    passed = []
    for time_ms in event_times_ms:
        await pacer.wait(time_ms)
        passed.append(round(clock.now - 100.0, 6))
    return passed


async def test_without_a_pace_nothing_waits() -> None:
    clock = Clock()
    assert await times(Pacer(clock=clock, sleep=clock.sleep), clock, [0, 10**9]) == [0, 0]
    assert clock.slept == []


async def test_a_rate_spaces_messages_evenly_whatever_their_times() -> None:
    clock = Clock()
    pacer = Pacer(rate=4, clock=clock, sleep=clock.sleep)
    assert await times(pacer, clock, [0, 9_000, 3, 3]) == [0, 0.25, 0.5, 0.75]


async def test_a_rate_catches_up_after_a_stall() -> None:
    clock = Clock()
    pacer = Pacer(rate=10, clock=clock, sleep=clock.sleep)
    await times(pacer, clock, [0, 0])
    clock.now += 0.35
    # Five are due at once, then the old schedule goes on.
    assert await times(pacer, clock, [0] * 5) == [0.45, 0.45, 0.45, 0.5, 0.6]


async def test_a_high_rate_does_not_sleep_for_less_than_a_sleep_takes() -> None:
    clock = Clock()
    pacer = Pacer(rate=10_000, clock=clock, sleep=clock.sleep)
    await times(pacer, clock, [0] * 101)
    assert len(clock.slept) <= 5
    assert sum(clock.slept) == pytest.approx(0.01, abs=0.002)


async def test_speedup_keeps_the_events_gaps_divided() -> None:
    clock = Clock()
    pacer = Pacer(speedup=3600, clock=clock, sleep=clock.sleep)
    assert await times(pacer, clock, [0, 3_600_000, 3_600_000, 9_000_000]) == [0, 1, 1, 2.5]


async def test_an_older_event_is_due_at_once_and_moves_nothing() -> None:
    clock = Clock()
    pacer = Pacer(speedup=1, clock=clock, sleep=clock.sleep)
    assert await times(pacer, clock, [10_000, 12_000, 5_000, 13_000]) == [0, 2, 2, 3]


@pytest.mark.parametrize("pace", [{"rate": 0}, {"rate": -1}, {"speedup": 0}, {"rate": float("nan")}])
def test_a_pace_that_is_none_is_refused(pace: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="needs a number above 0"):
        Pacer(**pace)  # type: ignore[arg-type]


def test_two_paces_are_refused() -> None:
    with pytest.raises(ConfigError, match="--rate or --speedup, not both"):
        Pacer(rate=1, speedup=1)
