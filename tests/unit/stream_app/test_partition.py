import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from features.arena import HistoryArena
from features.codec import HEADER, History, Totals, decode, packed_length
from features.kernels import newest_times
from features.ports import Lease, LeaseLost
from features.record import label_record
from infra.memory_store import MemoryHistoryStore
from schemas.label import Label
from stream_app.partition import Partition, group_rows
from tests.scoring import at, events

DAY_MS = 86_400_000


def partition() -> Partition:
    return Partition(0, MemoryHistoryStore(), 100_000)


def test_lease_is_required() -> None:
    fresh = partition()
    with pytest.raises(LeaseLost):
        fresh.require_lease()
    assert fresh.next_offset("transactions") is None
    lease = Lease(0, 1, "me", {"transactions": 5})
    fresh.begin(lease, {"transactions": 5, "labels": 2}, {})
    assert fresh.require_lease() is lease
    assert fresh.next_offset("transactions") == 5
    assert fresh.next_offset("labels") == 2
    assert fresh.next_offset("customers") is None


async def test_a_new_lease_starts_with_nothing_cached() -> None:
    store = MemoryHistoryStore()
    fresh = Partition(0, store, 100_000)
    fresh.begin(await store.acquire(0), {}, {})
    await fresh.load(["a"])
    assert fresh.is_known("a")
    fresh.interrupted.set()
    fresh.begin(await store.acquire(0), {}, {})
    assert not fresh.is_known("a")
    assert not fresh.interrupted.is_set()


async def test_move_wakes_who_waits_and_so_does_the_end_of_the_lease() -> None:
    fresh = partition()
    lease = Lease(0, 1, "me")
    fresh.begin(lease, {}, {})
    waiting = asyncio.create_task(fresh.moved(lease, 60))
    await asyncio.sleep(0)
    fresh.advance("transactions", 3)
    assert await waiting
    waiting = asyncio.create_task(fresh.moved(lease, 60))
    await asyncio.sleep(0)
    fresh.forget()
    assert await waiting
    assert await fresh.moved(lease, 60)
    fresh.begin(lease, {}, {})
    assert not await fresh.moved(lease, 0.001)


async def test_history_is_packed_when_much_of_it_is_not_and_what_no_longer_counts_is_let_go() -> None:
    here = Partition(0, MemoryHistoryStore(), 100_000)
    here.begin(await here._store.acquire(0), {}, {})
    await here.load(["a"])
    slot = here.arena.slot("a")
    stored = b""
    replaced, lengths = [], []
    for n in range(300):
        new = events([at(n / 2, customer_id="a", transaction_id=f"t-{n}")]).records
        here.arena.reserve(np.array([slot]))
        here.arena.insert(slot, new)
        (change,) = here.changes(["a"], new, [1])
        assert change.expected_bytes == len(stored) - packed_length(stored)
        kept = b"" if change.replaced else stored[HEADER.itemsize : len(stored) - packed_length(stored)]
        block = change.packed if change.replaced else stored[len(stored) - packed_length(stored) :]
        stored = change.header + kept + change.appended + block
        here.committed([change])
        if change.replaced:
            replaced.append(n)
            lengths.append(len(decode(stored).records))
        live = here.arena.records(slot)
        assert decode(stored).records[-len(live) :].tobytes() == live.tobytes()

    assert replaced[:2] == [16, 34]
    # 120 days of two events a day are kept, and the one of 120 days ago to the millisecond.
    assert lengths[-1] == 241
    # Read again, it goes on where it was.
    reader = Partition(0, _Holding(stored), 100_000)
    reader.begin(Lease(0, 1, "me"), {}, {})
    await reader.load(["a"])
    there, slot = reader.arena.slot("a"), here.arena.slot("a")
    assert reader.arena.headers[there] == here.arena.headers[slot]
    assert reader.arena.stored_bytes[there] == here.arena.stored_bytes[slot]


class _Holding(MemoryHistoryStore):
    def __init__(self, stored: bytes) -> None:
        super().__init__()
        self._stored = stored

    async def load(
        self, partition: int, customer_ids: Sequence[str], lease: Lease | None = None
    ) -> list[bytes | None]:
        return [self._stored]


async def test_bytes_of_evicted_customers_are_forgotten() -> None:
    store = MemoryHistoryStore()
    here = Partition(0, store, 1000)
    here.begin(await store.acquire(0), {}, {})
    for start in range(0, 4000, 100):
        await here.load([f"c-{n}" for n in range(start, start + 100)])
        here.committed([])

    assert len(here.arena) * 16 <= 1000
    assert len(here.arena.stored_bytes) < 1000


def test_labels_are_no_sign_of_life() -> None:
    bought = events([at(3), at(5)]).records
    found_out = label_record(
        Label(customer_id="c-1", transaction_id="t", label="fraud", label_time=at(40).event_time)
    )
    arena = HistoryArena()
    slots = [
        arena.put(f"c-{n}", History(Totals(), records))
        for n, records in enumerate((np.concatenate([bought, found_out]), found_out, bought[:0]))
    ]
    newest = newest_times(arena.pool, arena.start, arena.length, np.array(slots))
    assert newest.tolist() == [at(5).event_time_ms, 0, 0]


def test_rows_are_grouped_in_order() -> None:
    grouped = group_rows(["a", "b", "a", "c"], [0, 1, 2])
    assert grouped == {"a": [0, 2], "b": [1]}
