"""Commits to try on history stores, and all that can be read of what became of them."""

from collections.abc import Awaitable, Callable
from typing import Any

from features.codec import HEADER
from features.ports import Commit, CustomerState, HistoryChange, HistoryStore, Lease
from infra.history_store import RedisHistoryStore
from infra.partitioning import partition_for

PARTITIONS = 4
KEPT = 3
"""Scores kept of a customer."""
HERE = 2
A, B, C = [c for n in range(100) if partition_for(c := f"c-{n}", PARTITIONS) == HERE][:3]
AWKWARD = next(c for n in range(99) if partition_for(c := f"kundé {{{n}}}:日本\x00\n", PARTITIONS) == HERE)

State = tuple[bytes | None, list[bytes], bytes | None, bytes | None]


async def begin(
    store: HistoryStore,
    partition: int = HERE,
    acquire: Callable[[int], Awaitable[Lease]] | None = None,
) -> Lease:
    """The lease of a partition, all of whose log is in the store."""
    if isinstance(store, RedisHistoryStore):
        await store.claim_topology(PARTITIONS, "kafka-1")
    lease = await (acquire or store.acquire)(partition)
    await store.complete(lease)
    return lease


def header(mark: bytes = b"h") -> bytes:
    """As long as a header, and told apart by its mark."""
    return mark * HEADER.itemsize


def change(
    customer: str,
    before: bytes,
    records: bytes,
    *,
    mark: bytes = b"h",
    last_ms: int = 1000,
    replaced: bool = False,
    packed: bytes = b"",
) -> HistoryChange:
    """Records for a customer whose stored header and records were `before`."""
    return HistoryChange(customer, len(before), header(mark), records, last_ms, replaced, packed)


def commit(
    expected: int | None, after: int, *changes: HistoryChange, source: str = "transactions", **more: Any
) -> Commit:
    """A commit from one offset to another."""
    return Commit(source, expected, after, changes, **more)


async def contents(store: HistoryStore) -> tuple[list[str], dict[str, State | None]]:
    """All that a reader can see of this partition."""
    customers = await store.customers(HERE)
    seen = dict.fromkeys([*customers, A, B, C, AWKWARD])
    states = {c: await store.read(c) for c in seen}
    return customers, {c: as_lists(s) for c, s in states.items()}


def as_lists(state: CustomerState | None) -> State | None:
    """A state that compares equal whichever store it is from."""
    return None if state is None else (state.history, list(state.scores), state.churn, state.profile)
