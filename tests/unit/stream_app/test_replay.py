"""Whatever the chunks and wherever the worker dies: the log alone decides the state and the messages."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.model_set import Models
from schemas.errors import DependencyError
from schemas.topics import ALERTS, CHURN_SCORES, DEAD_LETTERS, FRAUD_SCORES, TRANSACTIONS
from tests.streaming import DAY_MS, START_MS, Crash, Stream, transaction

T = TRANSACTIONS.name
POINTS = ("before-publish", "after-publish", "before-commit", "after-commit")
# Days apart: the first so that days pass and the quiet are swept, the last for late events.
STEPS_MS = (0, 1000, 3_600_000, DAY_MS // 2, DAY_MS, 3 * DAY_MS, -DAY_MS // 2, -9 * DAY_MS)


@st.composite
def logs(draw: st.DrawFn) -> list[bytes | dict[str, Any]]:
    """Messages of a few customers in some disorder, with bad and repeated ones."""
    now, log = START_MS + 10 * DAY_MS, []
    for n in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(["new"] * 8 + ["bad", "again"]))
        if kind == "bad":
            log.append(b"?")
            continue
        step = draw(st.sampled_from(STEPS_MS))
        number = draw(st.integers(0, n)) if kind == "again" else n
        customer = draw(st.sampled_from("aaabbcd"))
        log.append(
            transaction(number, customer=customer, event_time=now + step, amount=draw(st.integers(1, 900)))
        )
        now = max(now, now + step)
    return log


def died(crashes: list[tuple[str, int]]) -> Callable[[str], None]:
    """Dies at each named point in turn, when it is reached for so many times."""
    left = [list(crash) for crash in crashes]

    def crash(reached: str) -> None:
        if left and reached == left[0][0]:
            left[0][1] -= 1
            if left[0][1] <= 0:
                left.pop(0)
                raise Crash

    return crash


async def calm(log: list[Any], models: Models) -> Stream:
    stream = Stream(models)
    for value in log:
        stream.kafka.put(T, 0, value)
    await stream.start()
    await stream.run()
    return stream


def in_order(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Within one publish, letters of what cannot be read come before those of duplicates, and alerts of frauds
    # before those of churn: where a publish ends, chunks decide.
    return sorted(messages, key=lambda m: (m.get("source", {}).get("offset", 0), m.get("kind", "")))


def distinct(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m for i, m in enumerate(messages) if m not in messages[:i]]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    log=logs(),
    sizes=st.lists(st.integers(1, 15), max_size=30),
    crashes=st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 6)), max_size=4),
    publishes=st.lists(st.integers(0, 6), max_size=3),
)
def test_any_chunks_and_any_crashes_leave_the_same_state_and_messages(
    models: Models, log: list[Any], sizes: list[int], crashes: list[tuple[str, int]], publishes: list[int]
) -> None:
    async def run() -> None:
        once, often = await calm(log, models), Stream(models)
        for value in log:
            often.kafka.put(T, 0, value)
        often.crash = died(crashes)
        often.publisher.failures = [(through, DependencyError("gone")) for through in publishes]
        left = iter(sizes)
        for _ in range(len(crashes) + 1):
            try:
                await often.start()
                await often.run(left)
            except Crash:
                continue
            break
        for stream in (once, often):
            # A sweep that a crash cut off is made up for when the next chunk comes.
            stream.crash = lambda reached: None
            stream.kafka.put(T, 0, b"the last one")
            await stream.run()
        assert not often.worker.failed.done()
        assert often.store.state() == once.store.state()
        for topic in (FRAUD_SCORES, DEAD_LETTERS, ALERTS, CHURN_SCORES):
            repeated, calmly = (s.kafka.messages(topic.name) for s in (often, once))
            assert in_order(distinct(repeated)) == in_order(calmly), topic.name

    asyncio.run(run())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_sweep_finds_the_same_customers_whatever_the_chunks(models: Models, size: int) -> None:
    """Found by the test above: a chunk that passed some days was swept once, behind its last event."""
    log = [transaction(0, customer="quiet")]
    log += [transaction(n, customer="busy", event_time=START_MS + n * DAY_MS) for n in range(1, 12)]
    log += [transaction(20, customer="quiet", event_time=START_MS + 11 * DAY_MS + 1)]
    stream = Stream(models)
    for value in log:
        stream.kafka.put(T, 0, value)
    await stream.start()
    await stream.run([size] * 13)

    swept = [m["as_of"][:10] for m in stream.kafka.messages(CHURN_SCORES.name) if m["trigger"] == "sweep"]
    assert swept == ["2026-01-09", "2026-01-10", "2026-01-11", "2026-01-12"]
