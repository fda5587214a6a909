import asyncio
import time

import pytest

from stream_app.alignment import Alignment


class Worker:
    """Three partitions, all busy."""

    def __init__(self, patience_s=5.0):
        self.idle = set()
        self.alignment = Alignment(lambda p: p in self.idle, patience_s=patience_s)
        self.interrupted = asyncio.Event()
        for partition in range(3):
            self.alignment.begin(partition, 100)

    def wait(self, partition, hour):
        return asyncio.create_task(self.alignment.wait(partition, hour, self.interrupted))


async def test_partition_goes_one_hour_ahead_of_the_others_and_no_further():
    worker = Worker()
    assert await worker.wait(0, 101) == 101
    ahead = worker.wait(0, 102)
    assert await worker.wait(1, 101) == 101
    assert not ahead.done()  # partition 2 is at 100
    worker.alignment.reach(2, 101)
    assert await ahead == 102


async def test_partition_with_nothing_to_read_holds_nobody():
    worker = Worker()
    worker.idle |= {1, 2}
    assert await worker.wait(0, 5000) is None
    worker.idle.remove(2)
    assert worker.alignment.limit(0) == 101


async def test_the_one_that_is_furthest_behind_can_always_go():
    worker = Worker()
    hours = {0: 400, 1: 300, 2: 200}
    waiting = {p: worker.wait(p, hour) for p, hour in hours.items()}
    assert await waiting[2] == 301
    worker.alignment.reach(2, 300)
    assert await waiting[1] == 301
    worker.alignment.reach(1, 450)
    worker.alignment.reach(2, 450)
    assert await waiting[0] == 451


async def test_wait_ends_when_the_partition_is_taken_away():
    worker = Worker()
    waiting = worker.wait(0, 5000)
    await asyncio.sleep(0)
    worker.interrupted.set()
    await asyncio.wait_for(waiting, 5)


async def test_partitions_that_stand_still_are_left_behind_until_they_move():
    worker = Worker(patience_s=0.0)
    assert await worker.wait(0, 5000) is None
    worker.alignment.reach(1, 101)
    assert worker.alignment.limit(0) == 102


async def test_a_worker_that_stood_still_itself_leaves_nobody_behind():
    worker = Worker(patience_s=0.05)
    ahead = worker.wait(0, 102)
    await asyncio.sleep(0)
    time.sleep(0.2)
    for _ in range(50):
        await asyncio.sleep(0)
    worker.alignment.reach(1, 101)
    worker.alignment.reach(2, 101)
    assert await ahead == 102


@pytest.mark.parametrize("hour", [99, 100])
async def test_hours_do_not_go_back_but_for_a_new_lease(hour):
    worker = Worker()
    worker.alignment.reach(1, 200)
    worker.alignment.reach(2, 200)
    worker.alignment.reach(1, hour)
    assert worker.alignment.limit(0) == 201
    worker.alignment.begin(1, hour)
    assert worker.alignment.limit(0) == hour + 1
