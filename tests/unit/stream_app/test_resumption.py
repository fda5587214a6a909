import asyncio
from dataclasses import replace

import pytest

from features.ports import Lease
from schemas.errors import HistoryError
from schemas.topics import TRANSACTIONS
from stream_app.ports import LogRange
from stream_app.resumption import next_offset
from stream_app.transport import Chunk
from tests.streaming import Stream

T = TRANSACTIONS.name


def lease(**next_offsets: int) -> Lease:
    return Lease(3, 1, "me", dict(next_offsets))


class TestStartRules:
    def test_stored_offset_decides_whatever_kafka_says(self) -> None:
        assert next_offset(lease(transactions=7), T, 3, LogRange(0, 9, 2)) == 7

    def test_nothing_stored_and_nothing_committed_starts_at_the_beginning_of_the_log(self) -> None:
        assert next_offset(lease(), T, 3, LogRange(4, 9, None)) == 4
        assert next_offset(lease(labels=5), T, 3, LogRange(4, 9, 0)) == 4

    def test_store_that_went_back_before_a_topics_first_record_starts_at_its_beginning(self) -> None:
        assert next_offset(lease(transactions=5), "labels", 3, LogRange(0, 9, 2)) == 0
        with pytest.raises(HistoryError, match="histories were lost"):
            next_offset(lease(transactions=5), "labels", 3, LogRange(1, 9, 2))

    def test_commit_without_stored_state_is_refused(self) -> None:
        with pytest.raises(HistoryError, match=r"histories were lost.*TIDEGATE_GROUP"):
            next_offset(lease(), T, 3, LogRange(0, 9, 2))

    def test_state_before_the_logs_start_is_refused(self) -> None:
        with pytest.raises(HistoryError, match=r"goes on at offset 3, but the log starts at 4"):
            next_offset(lease(transactions=3), T, 3, LogRange(4, 9, 3))

    def test_state_behind_the_logs_end_is_refused(self) -> None:
        with pytest.raises(HistoryError, match="the log ends before"):
            next_offset(lease(transactions=10), T, 3, LogRange(0, 9, 3))

    def test_state_at_the_ends_of_the_log_goes_on(self) -> None:
        assert next_offset(lease(transactions=4), T, 3, LogRange(4, 9, 3)) == 4
        assert next_offset(lease(transactions=9), T, 3, LogRange(4, 9, 3)) == 9


class TestWhatIsLeftOfAChunk:
    async def test_overlap_is_cut_off(self, stream: Stream) -> None:
        stream.transact(10)
        await stream.start()
        whole = stream.consumer.fetch(T, 0)
        assert whole is not None
        await stream.worker.handle([replace(whole, records=whole.records[:6])])
        await stream.worker.handle([whole])
        await stream.worker.handle([whole])

        assert stream.scored == [f"t-{n}" for n in range(10)]
        assert stream.dead == []

    async def test_stale_chunk_behind_the_cursor_is_dropped(self, stream: Stream) -> None:
        stream.transact(10)
        await stream.start()
        first, second = stream.consumer.fetch(T, 0, 4), stream.consumer.fetch(T, 0, 6)
        assert first is not None
        assert second is not None
        await stream.consumer.seek_to_stored({(T, 0)})
        await stream.worker.handle([second])
        assert stream.scored == []
        await stream.run()

        assert stream.scored == [f"t-{n}" for n in range(10)]
        assert stream.consumer.seeks(T, 0) == 2

    async def test_chunk_that_jumps_is_sought_back_for(self, stream: Stream) -> None:
        """The first chunk of a new partition too: without it, its records would never be scored."""
        stream.transact(10)
        await stream.start()
        stream.consumer.fetch(T, 0, 4)
        lost = stream.consumer.fetch(T, 0, 6)
        assert lost is not None
        await stream.worker.handle([lost])
        assert stream.scored == []
        await stream.run()

        assert stream.scored == [f"t-{n}" for n in range(10)]
        assert not stream.worker.failed.done()

    async def test_holes_of_a_compacted_log_are_no_gap(self, stream: Stream) -> None:
        stream.transact(10)
        for hole in (0, 3, 4):
            stream.kafka.logs[T, 0][hole] = None
        await stream.start()
        await stream.run([2, 2, 2])

        assert stream.scored == [f"t-{n}" for n in (1, 2, 5, 6, 7, 8, 9)]

    async def test_retention_that_passed_the_worker_ends_it(self, stream: Stream) -> None:
        stream.transact(10)
        await stream.start()
        await stream.run([2])
        stream.transact(10, first=10)
        stream.kafka.starts[T, 0] = 13
        stream.kafka.logs[T, 0][10:13] = [None] * 3
        await stream.run()

        assert isinstance(stream.worker.failed.result(), HistoryError)
        assert "the log starts at 13" in str(stream.worker.failed.result())

    async def test_retention_that_passed_what_waited_ends_it_too(self, stream: Stream) -> None:
        """What is fetched behind the gap becomes one chunk with what waits before it."""
        stream.transact(20)
        await stream.start()
        waits = stream.consumer.fetch(T, 0, 4)
        stream.kafka.starts[T, 0] = 13
        stream.kafka.logs[T, 0][:13] = [None] * 13
        behind = stream.consumer.fetch(T, 0)
        assert waits is not None
        assert behind is not None
        for chunk in (waits, behind):
            stream.worker.submit(chunk)
        while not stream.worker.lanes.is_idle(T, 0):
            await asyncio.sleep(0)

        assert isinstance(stream.worker.failed.result(), HistoryError)
        assert "goes on at offset 4, but the log starts at 13" in str(stream.worker.failed.result())

    async def test_a_log_that_starts_again_ends_the_worker(self, stream: Stream) -> None:
        stream.transact(10)
        await stream.start()
        chunk = stream.consumer.fetch(T, 0, 4)
        assert chunk is not None
        await stream.worker.handle([chunk])
        # The broker came back with an empty log and the client reset its position.
        again = Chunk(T, 0, chunk.records, 4, chunk.seek)
        await stream.worker.handle([again])

        assert "made again" in str(stream.worker.failed.result())

    async def test_chunk_of_a_partition_that_is_not_ours_is_dropped(self, stream: Stream) -> None:
        stream.transact(3)
        worker = stream.worker = stream.new_worker(stream.consumer)
        stream.consumer.worker = worker
        stream.consumer.next[T, 0] = 0
        await stream.run()

        assert stream.scored == []
        assert worker.processed(T, 0) is None
