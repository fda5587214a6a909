import asyncio
from collections.abc import Sequence

from stream_app.lanes import ALONE, Lanes, Together
from stream_app.transport import Chunk
from tests.streaming import Record


def chunk(
    first: int, count: int, *, topic: str = "t", partition: int = 0, after: int | None = None, seek: int = 1
) -> Chunk:
    records = [Record(topic, partition, first + n, b"", None) for n in range(count)]
    return Chunk(topic, partition, list(records), first if after is None else after, seek)


class Handler:
    def __init__(self) -> None:
        self.handled: list[Chunk] = []
        self.passes: list[list[tuple[int, int]]] = []
        self.go = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def __call__(self, chunks: Sequence[Chunk]) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.go.wait()
        self.handled += chunks
        self.passes.append([(c.partition, len(c.records)) for c in chunks])
        self.under_way -= 1

    @property
    def offsets(self) -> list[list[int]]:
        return [[r.offset for r in c.records] for c in self.handled]


async def finished(lanes: Lanes, *partitions: int) -> None:
    async with asyncio.timeout(5):
        while not all(lanes.is_idle("t", p) for p in partitions or (0,)):
            await asyncio.sleep(0)


async def test_chunks_of_a_partition_are_handled_in_order_and_one_at_a_time() -> None:
    handler = Handler()
    lanes = Lanes(handler, 10)
    for first in range(0, 40, 10):
        lanes.submit(chunk(first, 10))
    await asyncio.sleep(0.001)
    assert handler.under_way == 1
    handler.go.set()
    await finished(lanes)
    assert handler.offsets == [list(range(first, first + 10)) for first in range(0, 40, 10)]
    assert handler.most == 1


async def test_what_waits_of_dropped_partitions_is_not_handled() -> None:
    handler = Handler()
    lanes = Lanes(handler, 10)
    for partition in range(3):
        for first in (0, 10):
            lanes.submit(chunk(first, 10, partition=partition))
    await asyncio.sleep(0.001)
    lanes.drop({0, 2})
    handler.go.set()
    await finished(lanes, 0, 1, 2)
    handled = sorted((c.partition, c.records[0].offset) for c in handler.handled)
    assert handled == [(0, 0), (1, 0), (1, 10), (2, 0)]


async def test_partitions_and_topics_are_handled_side_by_side() -> None:
    handler = Handler()
    lanes = Lanes(handler, 10)
    lanes.submit(chunk(0, 1))
    lanes.submit(chunk(0, 1, partition=1))
    lanes.submit(chunk(0, 1, topic="u"))
    await asyncio.sleep(0.001)
    assert handler.under_way == 3
    handler.go.set()
    await finished(lanes, 0, 1)


async def test_small_chunks_that_wait_become_one() -> None:
    handler = Handler()
    lanes = Lanes(handler, 10)
    for first in (0, 2, 4, 6, 8, 10, 12):
        lanes.submit(chunk(first, 2))
        await asyncio.sleep(0)
    handler.go.set()
    await finished(lanes)
    assert handler.offsets == [[0, 1], list(range(2, 12)), [12, 13]]
    assert [(c.after, c.next_offset, c.seek) for c in handler.handled] == [(0, 2, 1), (2, 12, 1), (12, 14, 1)]


async def test_chunks_of_different_seeks_or_with_a_gap_stay_apart() -> None:
    handler = Handler()
    lanes = Lanes(handler, 100)
    lanes.submit(chunk(0, 1))
    await asyncio.sleep(0)
    lanes.submit(chunk(1, 1))
    lanes.submit(chunk(2, 1, seek=2))
    lanes.submit(chunk(5, 1, seek=2))
    lanes.submit(chunk(7, 1, after=6, seek=2))
    handler.go.set()
    await finished(lanes)
    assert handler.offsets == [[0], [1], [2], [5, 7]]


async def test_room_is_what_a_chunk_may_have() -> None:
    handler = Handler()
    lanes = Lanes(handler, 5)
    assert lanes.has_room("t", 0)
    lanes.submit(chunk(0, 5))
    await asyncio.sleep(0)
    assert lanes.has_room("t", 0)
    lanes.submit(chunk(5, 4))
    assert lanes.has_room("t", 0)
    lanes.submit(chunk(9, 3))
    assert not lanes.has_room("t", 0)
    assert lanes.has_room("t", 1)
    handler.go.set()
    await finished(lanes)
    assert lanes.has_room("t", 0)


async def test_lane_starts_again_after_it_was_idle() -> None:
    handler = Handler()
    handler.go.set()
    lanes = Lanes(handler, 5)
    for first in range(3):
        lanes.submit(chunk(first, 1))
        await finished(lanes)
    assert handler.offsets == [[0], [1], [2]]


async def test_close_drops_what_waits_and_cancels_what_is_under_way() -> None:
    handler = Handler()
    lanes = Lanes(handler, 1)
    lanes.submit(chunk(0, 1))
    lanes.submit(chunk(1, 1))
    await asyncio.sleep(0)
    await lanes.close()
    assert handler.handled == []
    assert lanes.is_idle("t", 0)


class TestPassesOfSeveralPartitions:
    async def test_small_chunks_that_wait_together_go_in_one_pass(self) -> None:
        handler = Handler()
        lanes = Lanes(handler, 100, together=("t",), hold_s=60)
        for partition in range(3):
            lanes.submit(chunk(0, 2, partition=partition))
        await asyncio.sleep(0.001)
        for partition in (2, 0, 3):
            lanes.submit(chunk(2, 3, partition=partition))
        await asyncio.sleep(0.001)
        assert handler.under_way == 1
        assert not any(lanes.is_idle("t", p) for p in range(4))
        handler.go.set()
        await finished(lanes, 0, 1, 2, 3)

        assert handler.passes[0] == [(0, 2), (1, 2), (2, 2)]
        assert sorted(handler.passes[1]) == [(0, 3), (2, 3), (3, 3)]
        assert len(handler.passes) == 2

    async def test_what_is_large_enough_does_not_wait_for_another_pass(self) -> None:
        handler = Handler()
        lanes = Lanes(handler, 80, together=("t",), hold_s=60)
        lanes.submit(chunk(0, 1))
        await asyncio.sleep(0.001)
        lanes.submit(chunk(0, 9, partition=1))
        await asyncio.sleep(0.001)
        assert handler.under_way == 1
        lanes.submit(chunk(0, 1, partition=2))
        await asyncio.sleep(0.001)
        assert handler.under_way == 2
        handler.go.set()
        await finished(lanes, 0, 1, 2)
        assert handler.passes == [[(0, 1)], [(1, 9), (2, 1)]]

    async def test_pass_has_no_more_records_than_a_chunk_may_have(self) -> None:
        handler = Handler()
        lanes = Lanes(handler, 10, together=("t",), hold_s=60)
        for partition in range(4):
            lanes.submit(chunk(0, 4, partition=partition))
        await asyncio.sleep(0.001)
        assert handler.under_way == 2
        handler.go.set()
        await finished(lanes, 0, 1, 2, 3)
        assert handler.passes == [[(0, 4), (1, 4)], [(2, 4), (3, 4)]]

    async def test_partitions_of_other_topics_go_each_in_a_pass_of_its_own(self) -> None:
        handler = Handler()
        lanes = Lanes(handler, 100, together=("u",), hold_s=60)
        lanes.submit(chunk(0, 1))
        lanes.submit(chunk(0, 1, partition=1))
        await asyncio.sleep(0.001)
        assert handler.under_way == 2
        handler.go.set()
        await finished(lanes, 0, 1)
        assert handler.passes == [[(0, 1)], [(1, 1)]]

    async def test_pass_that_stands_still_holds_nobody_back(self) -> None:
        handler = Handler()
        lanes = Lanes(handler, 800, together=("t",), hold_s=0.3)
        lanes.submit(chunk(0, 1))
        await asyncio.sleep(0.001)
        lanes.submit(chunk(0, 1, partition=1))
        await asyncio.sleep(0.001)
        assert handler.under_way == 1
        async with asyncio.timeout(5):
            while handler.under_way < 2:
                await asyncio.sleep(0)
        handler.go.set()
        await finished(lanes, 0, 1)

    async def test_small_partition_beside_others_with_full_chunks_has_its_turn(self) -> None:
        handler = Handler()
        handler.go.set()
        lanes = Lanes(handler, 10, together=("t",), hold_s=60)
        for first in range(0, 200, 10):
            lanes.submit(chunk(first, 10))
            lanes.submit(chunk(first, 10, partition=1))
        lanes.submit(chunk(0, 1, partition=2))
        await finished(lanes, 2)
        assert [(2, 1)] in handler.passes[:6]
        await finished(lanes, 0, 1)


class TestPartitionsThatMayWaitForEachOther:
    """A partition has reached the hour of its first offset; the last one is the last hour."""

    def lanes(self, handler: Handler) -> Lanes:
        return Lanes(handler, 800, ("t",), lambda c: Together(False, c.after, c.next_offset - 1), hold_s=60)

    async def test_only_chunks_close_together_share_a_pass(self) -> None:
        handler = Handler()
        lanes = self.lanes(handler)
        for partition, first in enumerate((10, 11, 14, 10)):
            lanes.submit(chunk(first, 1, partition=partition))
        await asyncio.sleep(0.001)
        assert handler.under_way == 1
        handler.go.set()
        await finished(lanes, 0, 1, 2, 3)
        assert handler.passes == [[(0, 1), (1, 1), (3, 1)], [(2, 1)]]

    async def test_chunk_that_must_be_alone_is_and_waits_for_nobody(self) -> None:
        handler = Handler()
        lanes = Lanes(handler, 800, ("t",), lambda c: ALONE if c.partition == 1 else Together(False, 5, 5))
        for partition in range(3):
            lanes.submit(chunk(0, 1, partition=partition))
        await asyncio.sleep(0.001)
        handler.go.set()
        await finished(lanes, 0, 1, 2)
        assert handler.passes == [[(0, 1), (2, 1)], [(1, 1)]]

    async def test_what_a_pass_may_wait_for_does_not_wait_for_its_end(self) -> None:
        handler = Handler()
        lanes = self.lanes(handler)
        lanes.submit(chunk(10, 5))
        await asyncio.sleep(0.001)
        lanes.submit(chunk(10, 2, partition=1))
        lanes.submit(chunk(13, 1, partition=2))
        await asyncio.sleep(0.001)
        assert handler.under_way == 2
        lanes.submit(chunk(3, 1, partition=3))
        await asyncio.sleep(0.001)
        assert handler.under_way == 3
        handler.go.set()
        await finished(lanes, 0, 1, 2, 3)
        assert handler.passes == [[(0, 5)], [(1, 2)], [(3, 1)], [(2, 1)]]

    async def test_what_is_as_late_as_the_pass_under_way_waits_for_it(self) -> None:
        handler = Handler()
        lanes = self.lanes(handler)
        lanes.submit(chunk(10, 1))
        await asyncio.sleep(0.001)
        lanes.submit(chunk(10, 1, partition=1))
        lanes.submit(chunk(11, 1, partition=2))
        await asyncio.sleep(0.001)
        assert handler.under_way == 1
        handler.go.set()
        await finished(lanes, 0, 1, 2)
        assert handler.passes == [[(0, 1)], [(1, 1), (2, 1)]]
