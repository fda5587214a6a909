import pytest

from models.model_set import Models
from schemas.errors import DependencyError
from schemas.topics import ALERTS, CHURN_SCORES, TRANSACTIONS
from tests.streaming import DAY_MS, START_MS, Crash, Stream, label, transaction

T = TRANSACTIONS.name


def swept(stream: Stream) -> list[tuple[str, str]]:
    scores = stream.kafka.messages(CHURN_SCORES.name)
    return [(m["as_of"][:10], m["customer_id"]) for m in scores if m["trigger"] == "sweep"]


def day(number: int, customer: str, name: str) -> dict[str, object]:
    return transaction(
        0, customer=customer, transaction_id=name, event_time=START_MS + number * DAY_MS + 3_600_000
    )


async def days(stream: Stream, first: int, last: int, customer: str = "busy") -> None:
    for number in range(first, last):
        stream.kafka.put(T, 0, day(number, customer, f"{customer}-{number}"))
        await stream.run()


async def test_silent_customer_is_rescored_once_a_day_from_the_seventh_to_the_ninetieth(
    models: Models,
) -> None:
    stream = Stream(models)
    stream.kafka.put(T, 0, day(0, "quiet", "q"))
    await stream.start()
    await days(stream, 0, 100)

    found = [when for when, who in swept(stream) if who == "quiet"]
    # Silent since an hour into 1 January: seven days have passed at the start of the 9th.
    assert found[0] == "2026-01-09"
    assert found[-1] == "2026-04-01"
    assert len(found) == len(set(found)) == 83
    assert {who for _, who in swept(stream)} == {"quiet"}
    assert stream.observer.outcomes["swept"] == 83


async def test_customer_who_comes_back_is_no_longer_swept(stream: Stream) -> None:
    stream.kafka.put(T, 0, day(0, "quiet", "q"))
    await stream.start()
    await days(stream, 0, 10)
    assert len(swept(stream)) == 2
    stream.kafka.put(T, 0, day(9, "quiet", "back"))
    await days(stream, 10, 17)

    assert len(swept(stream)) == 2


async def test_label_does_not_end_a_silence(stream: Stream) -> None:
    stream.kafka.put(T, 0, day(0, "quiet", "q"))
    await stream.start()
    await days(stream, 0, 6)
    stream.kafka.put("labels", 0, label("q", customer="quiet", at_ms=START_MS + 6 * DAY_MS))
    await days(stream, 6, 10)

    assert [when for when, _ in swept(stream)] == ["2026-01-09", "2026-01-10"]


async def test_first_day_of_a_partition_sweeps_nobody(stream: Stream) -> None:
    await stream.start()
    await days(stream, 50, 51)

    assert stream.store.state()[0][2] == START_MS // DAY_MS + 50
    assert swept(stream) == []


@pytest.mark.parametrize("point", ["before-commit", "after-commit"])
@pytest.mark.parametrize("time", range(1, 4))
async def test_sweep_that_a_crash_cuts_off_is_made_up_for(models: Models, point: str, time: int) -> None:
    calm, broken = Stream(models), Stream(models)
    for stream in (calm, broken):
        for n in range(4):
            stream.kafka.put(T, 0, day(0, f"quiet-{n}", f"q-{n}"))
        await stream.start()
        await days(stream, 0, 8)
        stream.kafka.put(T, 0, day(8, "busy", "busy-8"))
    left = [time]

    def crash(reached: str) -> None:
        left[0] -= reached == point
        if left[0] == 0:
            raise Crash

    broken.crash = crash
    try:
        await broken.run()
    except Crash:
        broken.crash = lambda reached: None
        await broken.start()
    for stream in (calm, broken):
        stream.kafka.put(T, 0, day(8, "other", "other-8"))
        await stream.run()

    assert broken.store.state() == calm.store.state()
    assert set(swept(broken)) == set(swept(calm)) != set()
    messages = broken.kafka.messages(CHURN_SCORES.name)
    assert [m for i, m in enumerate(messages) if m not in messages[:i]] == calm.kafka.messages(
        CHURN_SCORES.name
    )


async def test_sweep_waits_for_the_store(stream: Stream) -> None:
    stream.kafka.put(T, 0, day(0, "quiet", "q"))
    await stream.start()
    await days(stream, 0, 8)
    silent_since = stream.store.silent_since
    failures = [DependencyError("no redis")] * 3

    async def away(partition: int, after_ms: int, before_ms: int) -> list[str]:
        if failures:
            raise failures.pop()
        return await silent_since(partition, after_ms, before_ms)

    stream.store.silent_since = away  # type: ignore[method-assign]
    await days(stream, 8, 9)

    assert swept(stream) == [("2026-01-09", "quiet")]
    assert stream.observer.retries["redis"] == 3


async def test_band_that_rises_is_an_alert_with_an_id_that_repeats(stream: Stream) -> None:
    stream.kafka.put(T, 0, day(0, "quiet", "q"))
    for n in range(1, 15):
        stream.kafka.put(T, 0, day(n, "quiet", f"q-{n}"))
    await stream.start()
    await stream.run()
    await days(stream, 15, 80)

    alerts = [a for a in stream.kafka.messages(ALERTS.name) if a["customer_id"] == "quiet"]
    assert alerts
    assert {a["kind"] for a in alerts} == {"churn"}
    assert all(a["alert_id"] == f"churn:quiet:{a['event_time']}" for a in alerts)
