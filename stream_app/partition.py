"""What a worker holds of one partition: its lease, its cached histories, and how far it is."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from features import kernels
from features.arena import HistoryArena
from features.codec import HEADER, decode, packed_length
from features.packing import pack
from features.ports import HistoryChange, HistoryStore, Lease, LeaseLost
from features.record import RECORD, Records
from schemas.topics import TRANSACTIONS
from stream_app.labels_ahead import LabelsAhead

# Records are appended until there are so many, plus a share of the history, that are not packed. Redis keeps
# twice the room for what was appended to, and packing costs time: figures in docs/benchmarks.md.
_UNPACKED = 16
_UNPACKED_SHARE = 32


class Partition:
    """State of one partition while this worker owns it.

    Args:
        number: Of the partition.
        store: Where its histories are.
        cached_records: Bound of the cache.
        beside: Another partition's arena: both are then computed in one pass.

    Everything that changes a partition (transactions, labels, profiles, the sweep) holds `lock`.

    Attributes:
        lease: The right to write; `None` while it is not ours.
        starts: For each topic the offset it was sought to under this lease.
        interrupted: Set when the partition is taken over or the worker stops: whoever waits for a
            dependency under the lock lets go.
        arena: Decoded histories.
        published_upto: For a topic the offset up to which its scores were published before.
        on_forget: Called when lease and cache are dropped.
        erasures_read: Whether every erasure that was asked for before the lease is done.
        alone: Whether the broker did not take what was published of it the last time: it shares no pass until
            it does.
        ahead: What of its labels was looked at ahead of their turn; `None` while it is not ours.
        models_until: Offset of transactions before which the lease's set of models scores, whatever is in
            use: an earlier owner may have published from there.
    """

    def __init__(
        self, number: int, store: HistoryStore, cached_records: int, beside: HistoryArena | None = None
    ) -> None:
        self.number = number
        self.lock = asyncio.Lock()
        self.lease: Lease | None = None
        self.starts: dict[str, int] = {}
        self.arena = HistoryArena(cached_records, beside)
        self.published_upto: dict[str, int] = {}
        self.on_forget: Callable[[int], None] = lambda number: None
        self.erasures_read = False
        self.models_until = 0
        self.ahead: LabelsAhead | None = None
        self.alone = False
        self._store = store
        self._moved = asyncio.Event()
        self.interrupted = asyncio.Event()

    def begin(
        self,
        lease: Lease,
        starts: Mapping[str, int],
        published_upto: Mapping[str, int],
        models_until: int = 0,
        ahead: LabelsAhead | None = None,
    ) -> None:
        """Start under a new lease, with nothing cached: what was cached may be ahead of the store."""
        self.forget()
        self.lease = lease
        self.starts = dict(starts)
        self.published_upto = dict(published_upto)
        self.models_until = models_until
        self.ahead = ahead
        self.interrupted.clear()

    def forget(self) -> None:
        """Drop lease and cache."""
        self.lease = None
        self.starts = {}
        self.forget_histories()
        self.published_upto = {}
        self.models_until = 0
        self.ahead = None
        self.erasures_read = False
        self.on_forget(self.number)
        self._signal()

    def forget_histories(self) -> None:
        """Drop the cache only."""
        self.arena.clear()

    def require_lease(self) -> Lease:
        """The lease.

        Raises:
            LeaseLost: The partition is not ours.
        """
        if self.lease is None:
            raise LeaseLost(f"partition {self.number} is not ours")
        return self.lease

    @property
    def holds_up(self) -> bool:
        """Whether a chunk of it would keep others in the same pass waiting."""
        return self.alone or self.lock.locked() or not self.erasures_read

    def next_offset(self, topic: str) -> int | None:
        """Offset that is next of a topic; `None` where the partition is not ours or was not sought."""
        if self.lease is None:
            return None
        return self.lease.next_offsets.get(topic, self.starts.get(topic))

    async def load(self, customer_ids: Sequence[str]) -> int:
        """Bring the histories of customers into the arena; Redis is asked only for those not there.

        Returns:
            How many were not.

        Raises:
            DependencyError: The store does not answer.
            HistoryError: A stored history cannot be read.
            LeaseLost: The partition is not ours any more: its histories may be ahead of us.
            StoreRolledBack: The store went back: its histories may be behind us.
        """
        lease = self.require_lease()
        missing = self.arena.missing(customer_ids)
        if missing:
            histories = await self._store.load(self.number, missing, lease)
            self.arena.put_new([c for c, stored in zip(missing, histories, strict=True) if stored is None])
            for customer_id, stored in zip(missing, histories, strict=True):
                if stored is not None:
                    slot = self.arena.put(customer_id, decode(stored))
                    packed_bytes = packed_length(stored)
                    self.arena.headers["packed_bytes"][slot] = packed_bytes
                    self.arena.stored_bytes[slot] = len(stored) - packed_bytes
        return len(missing)

    def is_published(self, offset: int) -> bool:
        """Whether what follows from a transaction of this offset is on the output topics already."""
        return offset < self.published_upto.get(TRANSACTIONS.name, 0)

    def is_boundary(self, offset: int) -> bool:
        """Whether a transaction of this offset is the last that was published, or of the lease's models."""
        last = offset + 1
        return last == self.models_until or (self.is_published(offset) and not self.is_published(last))

    def is_known(self, customer_id: str) -> bool:
        """Whether the customer was already seen in this partition."""
        return customer_id in self.arena

    def changes(
        self, customer_ids: Sequence[str], appended: Records, counts: Sequence[int]
    ) -> list[HistoryChange]:
        """The stored form of what was done to customers' histories in the arena; see `history_changes`."""
        return history_changes(self.arena, customer_ids, self.arena.slots(customer_ids), appended, counts)

    def committed(self, changes: Sequence[HistoryChange]) -> None:
        """Remember what the store now holds."""
        stored = [
            max(HEADER.itemsize, 0 if change.replaced else change.expected_bytes) + len(change.appended)
            for change in changes
        ]
        self.arena.stored_bytes[self.arena.slots([change.customer_id for change in changes])] = stored
        self.arena.evict()

    def advance(self, topic: str, next_offset: int, watermark_ms: int = 0) -> None:
        """Note how far the store is."""
        if self.lease is not None:
            self.lease.next_offsets[topic] = next_offset
            self.lease.watermark_ms = max(self.lease.watermark_ms, watermark_ms)
        self._signal()

    async def moved(self, lease: Lease, seconds: float) -> bool:
        """Wait until a topic has moved on or the lease is gone; false where neither came in time."""
        if self.lease is lease:
            try:
                await asyncio.wait_for(self._moved.wait(), seconds)
            except TimeoutError:
                return False
        return True

    def _signal(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


def history_changes(
    arena: HistoryArena,
    customer_ids: Sequence[str],
    slots: npt.NDArray[np.int64],
    appended: Records,
    counts: Sequence[int],
) -> list[HistoryChange]:
    """The stored form of what was done to customers' histories.

    Args:
        arena: Holds them, with the new records already in them; or arenas that share its memory do.
        customer_ids: Each once.
        slots: Theirs.
        appended: The new records, customer after customer, each in order of arrival.
        counts: How many of them are whose.
    """
    size = HEADER.itemsize
    before = arena.stored_bytes[slots]
    unpacked = np.maximum(0, before - size) // RECORD.itemsize + counts
    packed: dict[int, bytes] = {}
    for number in np.flatnonzero(unpacked > _UNPACKED + arena.length[slots] // _UNPACKED_SHARE).tolist():
        slot = int(slots[number])
        arena.prune(slot)
        packed[number] = pack(arena.records(slot))
        arena.headers["packed_bytes"][slot] = len(packed[number])
    newest = kernels.newest_times(arena.pool, arena.start, arena.length, slots).tolist()
    headers, bodies, end = arena.headers[slots].tobytes(), appended.tobytes(), 0
    changes = []
    for number, (customer_id, stored, count, last_ms) in enumerate(
        zip(customer_ids, before.tolist(), counts, newest, strict=True)
    ):
        header = headers[number * size : (number + 1) * size]
        start, end = end, end + count * RECORD.itemsize
        if number in packed:
            change = HistoryChange(customer_id, stored, header, b"", last_ms, True, packed[number])
        else:
            change = HistoryChange(customer_id, stored, header, bodies[start:end], last_ms)
        changes.append(change)
    return changes


def group_rows(customer_ids: Sequence[str], rows: Sequence[int]) -> dict[str, list[int]]:
    """Rows by customer, each in order."""
    grouped: dict[str, list[int]] = {}
    for row in rows:
        grouped.setdefault(customer_ids[row], []).append(row)
    return grouped
