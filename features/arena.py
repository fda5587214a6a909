"""Decoded histories in one block of memory: where the engine reads and the worker caches."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from features import kernels
from features.codec import (
    NEVER,
    Headers,
    History,
    Totals,
    empty_headers,
    encode_header,
    read_headers,
    totals_of,
)
from features.definitions import MAX_EVENTS, RETENTION_MS
from features.record import RECORD, Records
from features.retention import retained

_SMALLEST = 16
_LEAST_POOL = 4096
# A pool that is so many times what is held is given back when customers are forgotten.
_SHRINK = 8


class _Memory:
    """What arenas that share their memory have together; see `HistoryArena`."""

    def __init__(self) -> None:
        self.pool: Records = np.zeros(_LEAST_POOL, dtype=RECORD)
        self.start: npt.NDArray[np.int64] = np.zeros(64, dtype=np.int64)
        self.length: npt.NDArray[np.int64] = np.zeros(64, dtype=np.int64)
        self.capacity: npt.NDArray[np.int64] = np.zeros(64, dtype=np.int64)
        self.headers: Headers = empty_headers(64)
        self.stored_bytes: npt.NDArray[np.int64] = np.zeros(64, dtype=np.int64)
        self.arena: npt.NDArray[np.int64] = np.zeros(64, dtype=np.int64)  # whose a slot is
        self.held: list[int] = []  # records in blocks of living slots, by arena
        self.free_slots: list[int] = list(range(63, -1, -1))
        self.free_blocks: dict[int, list[int]] = defaultdict(list)
        self.used = 0  # records of the pool ever handed out


class HistoryArena:
    """Histories of many customers, each a run of records in time order with room to grow.

    Blocks have sizes of powers of two and are reused by size. When most of the pool is free blocks of
    sizes that nobody asks for, it is packed instead of grown, so memory stays bounded by what the
    customers in it need. Customers not used for longest are evicted when `max_records` is passed.

    Args:
        max_records: Bound of what is kept, in blocks.
        beside: Another arena to share the memory with. Customers are each one's own; what is done to
            slots by either may be done to slots of both, in one pass.
    """

    def __init__(self, max_records: int = 4_000_000, beside: "HistoryArena | None" = None) -> None:
        self._memory: _Memory = _Memory() if beside is None else beside._memory
        self._number = len(self._memory.held)
        self._memory.held.append(0)
        self._slots: OrderedDict[str, int] = OrderedDict()
        self._max_records = max_records

    @property
    def pool(self) -> Records:
        """All records."""
        return self._memory.pool

    @property
    def start(self) -> npt.NDArray[np.int64]:
        """`(n_slots,)` where a slot's records begin."""
        return self._memory.start

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """`(n_slots,)` how many records a slot has."""
        return self._memory.length

    @property
    def headers(self) -> Headers:
        """`(n_slots,)` of `codec.HEADER`: lifetime totals as they are stored."""
        return self._memory.headers

    @property
    def stored_bytes(self) -> npt.NDArray[np.int64]:
        """`(n_slots,)` for whoever keeps histories in a store: what it holds of a slot, no packed block."""
        return self._memory.stored_bytes

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, customer_id: object) -> bool:
        return customer_id in self._slots

    def slot(self, customer_id: str) -> int:
        """Slot of a customer that is here; counts as a use.

        Raises:
            KeyError: The customer is not here.
        """
        self._slots.move_to_end(customer_id)
        return self._slots[customer_id]

    def slots(self, customer_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Slots of customers that are here, `(n,)`; counts as a use of each.

        Raises:
            KeyError: One is not here.
        """
        used = self._slots.move_to_end
        for customer_id in dict.fromkeys(customer_ids):
            used(customer_id)
        return np.array([*map(self._slots.__getitem__, customer_ids)], dtype=np.int64)

    def missing(self, customer_ids: Iterable[str]) -> list[str]:
        """Customers that are not here, each once, in their order."""
        return [c for c in dict.fromkeys(customer_ids) if c not in self._slots]

    def put(self, customer_id: str, history: History) -> int:
        """Take in a decoded history; returns its slot."""
        if customer_id in self._slots:
            self.drop(customer_id)
        memory = self._memory
        if not memory.free_slots:
            self._grow_slots()
        slot = memory.free_slots.pop()
        memory.arena[slot] = self._number
        n = len(history.records)
        capacity = _capacity_for(n)
        self.start[slot] = self._allocate(slot, capacity)
        memory.capacity[slot], self.length[slot] = capacity, n
        _copy(history.records, self.pool, int(self.start[slot]))
        self.headers[slot] = empty_headers(1)[0]
        self.set_totals(slot, history.totals)
        self.stored_bytes[slot] = 0
        self._slots[customer_id] = slot
        return slot

    def put_new(self, customer_ids: Sequence[str]) -> None:
        """Take in customers without a history, none of whom is here."""
        n, memory = len(customer_ids), self._memory
        while len(memory.free_slots) < n:
            self._grow_slots()
        # Before the free slots are touched: a pool that cannot grow leaves them as they were.
        blocks = self._allocate_many(n, _SMALLEST)
        taken = [memory.free_slots.pop() for _ in range(n)]
        slots = np.array(taken, dtype=np.int64)
        memory.arena[slots] = self._number
        self.start[slots], memory.capacity[slots] = blocks, _SMALLEST
        self.length[slots] = self.stored_bytes[slots] = 0
        self.headers[slots] = empty_headers(1)
        self._slots.update(zip(customer_ids, taken, strict=True))

    def drop(self, customer_id: str) -> None:
        """Forget a customer."""
        slot = self._slots.pop(customer_id)
        self._release(slot)
        self._memory.free_slots.append(slot)

    def clear(self) -> None:
        """Forget all customers of this arena; those of arenas beside it stay."""
        memory = self._memory
        slots = np.fromiter(self._slots.values(), dtype=np.int64, count=len(self._slots))
        capacities, starts = memory.capacity[slots], memory.start[slots]
        for capacity in np.unique(capacities).tolist():
            memory.free_blocks[capacity] += starts[capacities == capacity].tolist()
        memory.capacity[slots] = 0
        memory.free_slots += slots.tolist()
        memory.held[self._number] = 0
        self._slots.clear()
        held = sum(memory.held)
        if _SHRINK * held < len(memory.pool) > _LEAST_POOL:
            self._pack(max(_LEAST_POOL, 2 * held))

    def evict(self, keep: int = 0) -> None:
        """Drop the longest unused customers until the bound holds, but not the last `keep`."""
        held = self._memory.held
        while held[self._number] > self._max_records and len(self._slots) > keep:
            self.drop(next(iter(self._slots)))

    def records(self, slot: int) -> Records:
        """View of a slot's records, in time order."""
        start = self.start[slot]
        return self.pool[start : start + self.length[slot]]

    def kept(self, slot: int) -> Records:
        """View of those of a slot's records that features may look at: others are only not yet let go."""
        return retained(self.records(slot))

    def totals(self, slot: int) -> Totals:
        """Lifetime totals of a slot's customer."""
        if not self._memory.capacity[slot]:
            raise KeyError(slot)
        return totals_of(self.headers[slot])

    def set_totals(self, slot: int, totals: Totals) -> None:
        """Replace a slot's totals."""
        packed_bytes = int(self.headers["packed_bytes"][slot])
        self.headers[slot] = read_headers(encode_header(totals, packed_bytes))[0]

    def newest_ms(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Time of each slot's last record, `(n,)`; 0 for none."""
        length = self.length[slots]
        last = self.start[slots] + np.maximum(length, 1) - 1
        return np.where(length > 0, self.pool["time_ms"][last], 0)

    def churn_days(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Day of the last churn score of each slot, `(n,)`; -1 before the first."""
        days = self.headers["churn_day"][slots].astype(np.int64)
        days[days == NEVER] = -1
        return days

    def set_churn(
        self, slots: npt.NDArray[np.int64], days: npt.NDArray[np.int64], bands: Sequence[int]
    ) -> None:
        """Remember day and band of churn scores; of a slot that is named twice the last."""
        self.headers["churn_day"][slots] = np.minimum(days, NEVER - 1)
        self.headers["churn_band"][slots] = bands

    def insert(self, slot: int, record: Records) -> None:
        """Put one record (shape `(1,)`) where its time belongs."""
        self.reserve(np.array([slot]))
        kernels.insert_record(self.pool, int(self.start[slot]), int(self.length[slot]), record, 0)
        self.length[slot] += 1

    def reserve(self, slots: npt.NDArray[np.int64]) -> None:
        """Make room for one more record for each time a slot is named.

        What no longer counts is let go first.
        """
        if (self.length[slots] + len(slots) <= self._memory.capacity[slots]).all():
            return
        known, number = kernels.numbered(slots)
        wanted = np.bincount(number, minlength=len(known))
        short = np.flatnonzero(self.length[known] + wanted > self._memory.capacity[known])
        if not len(short):
            return
        slots, wanted = known[short], wanted[short]
        span = self.newest_ms(slots) - self.pool["time_ms"][self.start[slots]]
        old = (span > RETENTION_MS) | (self.length[slots] > MAX_EVENTS)
        for slot, more, prunable in zip(slots.tolist(), wanted.tolist(), old.tolist(), strict=True):
            if prunable:
                self.prune(slot)
            needed = int(self.length[slot]) + more
            if needed > self._memory.capacity[slot]:
                self._move(slot, _capacity_for(needed))

    def prune(self, slot: int) -> None:
        """Let go of records that no feature can look at any more."""
        kept = self.kept(slot)
        if len(kept) < self.length[slot]:
            _copy(kept, self.pool, int(self.start[slot]))
            self.length[slot] = len(kept)

    def _move(self, slot: int, capacity: int) -> None:
        # Where they stand is nobody's now, and stays as it is until it is handed out.
        records = self.records(slot)
        self._release(slot)
        self.start[slot] = self._allocate(slot, capacity)
        self._memory.capacity[slot] = capacity
        _copy(records, self.pool, int(self.start[slot]))

    def _release(self, slot: int) -> None:
        memory = self._memory
        capacity = int(memory.capacity[slot])
        memory.free_blocks[capacity].append(int(memory.start[slot]))
        memory.capacity[slot] = 0
        memory.held[memory.arena[slot]] -= capacity

    def _allocate(self, slot: int, capacity: int) -> int:
        memory = self._memory
        memory.held[memory.arena[slot]] += capacity
        if memory.free_blocks[capacity]:
            return memory.free_blocks[capacity].pop()
        return self._cut(capacity)

    def _allocate_many(self, count: int, capacity: int) -> npt.NDArray[np.int64]:
        memory = self._memory
        memory.held[self._number] += count * capacity
        free = memory.free_blocks[capacity]
        if len(free) >= count:
            return np.array([free.pop() for _ in range(count)], dtype=np.int64)
        return self._cut(count * capacity) + capacity * np.arange(count, dtype=np.int64)

    def _cut(self, records: int) -> int:
        """Hand out records of the pool that never were, or are not any more, in a block."""
        memory = self._memory
        if memory.used + records > len(memory.pool):
            if 2 * sum(memory.held) <= len(memory.pool):
                self._pack(len(memory.pool))
            else:
                grown = np.zeros(max(2 * len(memory.pool), memory.used + records), dtype=RECORD)
                _copy(memory.pool[: memory.used], grown, 0)
                memory.pool = grown
        block = memory.used
        memory.used += records
        return block

    def _pack(self, records: int) -> None:
        """Move all blocks to the front of a pool of so many records and forget the free ones."""
        memory = self._memory
        packed = np.zeros(records, dtype=RECORD)
        memory.used = 0
        # A slot between two blocks has no capacity.
        for slot in np.flatnonzero(memory.capacity).tolist():
            _copy(self.records(slot), packed, memory.used)
            memory.start[slot] = memory.used
            memory.used += int(memory.capacity[slot])
        memory.pool = packed
        memory.free_blocks.clear()

    def _grow_slots(self) -> None:
        memory = self._memory
        n = len(memory.start)
        for name in ("start", "length", "stored_bytes", "capacity", "arena"):
            setattr(memory, name, np.concatenate([getattr(memory, name), np.zeros(n, dtype=np.int64)]))
        memory.headers = np.concatenate([memory.headers, empty_headers(n)])
        memory.free_slots = [*range(2 * n - 1, n - 1, -1), *memory.free_slots]


def _copy(records: Records, pool: Records, first: int) -> None:
    """Put records into a pool, byte by byte: numpy copies those of many fields field by field."""
    size = RECORD.itemsize
    whole = np.ascontiguousarray(records).view(np.uint8)
    pool.view(np.uint8)[first * size : first * size + len(whole)] = whole


def _capacity_for(n: int) -> int:
    return max(_SMALLEST, 1 << n.bit_length())
