import asyncio
from collections.abc import Iterable, Mapping

import pytest

from schemas.errors import DependencyError
from stream_app.liveness import Liveness

TP = ("transactions", 0)
OTHER = ("labels", 0)


class Fake:
    def __init__(self) -> None:
        self.now = 0.0
        self.at: dict[tuple[str, int], int | None] = {TP: 5, OTHER: 5}
        self.given = {TP, OTHER}
        self.behind = {TP, OTHER}
        self.busy: set[tuple[str, int]] = set()
        self.sought: list[int] = []
        self.failed: list[Exception] = []
        self.error: Exception | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def assigned(self) -> set[tuple[str, int]]:
        return self.given

    def is_busy(self, topic: str, partition: int) -> bool:
        return (topic, partition) in self.busy

    def reached(self, topic: str, partition: int) -> int | None:
        return self.at[topic, partition]

    async def is_behind(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], bool]:
        return {tp: tp in self.behind for tp in partitions}

    async def seek(self, partition: int) -> None:
        self.sought.append(partition)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def liveness(fake: Fake) -> Liveness:
    return Liveness(fake, lost_s=10, still_s=60, fail=fake.failed.append, clock=lambda: fake.now)


async def look(liveness: Liveness, fake: Fake, *times: float) -> None:
    for now in times:
        fake.now = now
        await liveness.look()


async def test_partition_without_a_lease_is_taken_again_after_a_while(liveness: Liveness, fake: Fake) -> None:
    fake.at = {TP: None, OTHER: None}
    await look(liveness, fake, 0, 5, 9)
    assert fake.sought == []
    await look(liveness, fake, 10)
    assert fake.sought == [0]
    await look(liveness, fake, 11, 20)
    assert fake.sought == [0]
    await look(liveness, fake, 22)
    assert fake.sought == [0, 0]
    assert fake.failed == []


async def test_partition_that_moves_or_has_nothing_left_is_left_alone(liveness: Liveness, fake: Fake) -> None:
    fake.behind = {TP}
    for now in range(0, 600, 30):
        fake.at[TP] = now
        await look(liveness, fake, now)
    assert fake.sought == []


async def test_partition_that_stands_still_is_sought_once_and_then_ends_the_worker(
    liveness: Liveness, fake: Fake
) -> None:
    fake.behind = {TP}
    await look(liveness, fake, 0, 30, 59)
    assert fake.sought == []
    await look(liveness, fake, 60)
    assert fake.sought == [0]
    await look(liveness, fake, 61, 119)
    assert fake.failed == []
    await look(liveness, fake, 121)
    assert [str(error) for error in fake.failed] == ["transactions[0] stands still at offset 5"]
    assert fake.sought == [0]


async def test_a_seek_that_helps_starts_the_time_again(liveness: Liveness, fake: Fake) -> None:
    fake.behind = {TP}
    await look(liveness, fake, 0, 60)
    fake.at[TP] = 6
    await look(liveness, fake, 100, 159)
    assert fake.sought == [0]
    await look(liveness, fake, 161)
    assert fake.sought == [0, 0]
    assert fake.failed == []


async def test_chunk_under_way_is_not_standing_still(liveness: Liveness, fake: Fake) -> None:
    """It may wait for a dependency, which has its own limit."""
    fake.busy = {TP, OTHER}
    await look(liveness, fake, *range(0, 1000, 50))
    assert fake.sought == []
    fake.busy = set()
    await look(liveness, fake, 1000, 1059)
    assert fake.sought == []
    await look(liveness, fake, 1060)
    assert fake.sought == [0]


async def test_labels_that_wait_do_not_hide_transactions_that_stand_still(
    liveness: Liveness, fake: Fake
) -> None:
    fake.busy = {OTHER}
    await look(liveness, fake, 0, 60)
    assert fake.sought == [0]


async def test_what_is_not_assigned_is_not_looked_at(liveness: Liveness, fake: Fake) -> None:
    fake.at = {TP: None, OTHER: None}
    fake.given = set()
    await look(liveness, fake, 0, 50, 100)
    fake.given = {TP}
    await look(liveness, fake, 101)
    assert fake.sought == []


async def test_end_of_the_clients_own_tasks_ends_the_worker(liveness: Liveness, fake: Fake) -> None:
    fake.error = RuntimeError("not in the group")
    async with asyncio.timeout(5):
        await liveness.run(0.001)
    assert [str(error) for error in fake.failed] == ["not in the group"]


async def test_broker_that_is_away_ends_nothing(liveness: Liveness, fake: Fake) -> None:
    fake.error = DependencyError("no broker")
    running = asyncio.create_task(liveness.run(0.001))
    await asyncio.sleep(0.02)
    assert not running.done()
    assert fake.failed == []
    running.cancel()
