"""What the shells need from a history store, whatever it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from schemas.erasure import erased_name


class Outcome(StrEnum):
    """What became of a commit."""

    APPLIED = "applied"
    ALREADY_APPLIED = "already_applied"  # the reply of an earlier try was lost
    FENCED = "fenced"  # somebody else has the partition: drop it
    ROLLED_BACK = "rolled_back"  # the store lost writes: acquire again and seek back


class LeaseLost(Exception):
    """The partition belongs to somebody else now: drop it."""


class StoreRolledBack(Exception):
    """The store lost writes: take the lease again and go back to where it is."""


class PublishInDoubt(StoreRolledBack):
    """A transaction may or may not have been committed: take the lease again and see what is there."""


@dataclass(slots=True)
class Lease:
    """The right to write a partition's state, and how far that state goes.

    Attributes:
        partition: Number of the source partition.
        epoch: Grows with every lease of this partition.
        owner: Random token: after a rollback of the store the same epoch can be given twice.
        next_offsets: For each source topic the next offset to process; absent before the first.
        watermark_ms: Largest event time accepted in this partition; 0 before the first.
        swept_day: Day (since 1970) up to which silent customers were rescored; -1 before the first.
        erased: Until when (ms since 1970) what comes of an erased customer is not taken, by
            `erased_name`.
        models: Identity of the set of models that scores what is next; empty before the first.
        building: Whether the histories do not yet hold what the log held when they were begun.
    """

    partition: int
    epoch: int
    owner: str
    next_offsets: dict[str, int] = field(default_factory=dict)
    watermark_ms: int = 0
    swept_day: int = -1
    erased: dict[str, int] = field(default_factory=dict)
    models: str = ""
    building: bool = False

    def is_erased(self, customer_id: str, time_ms: int) -> bool:
        """Whether what a customer did at a time belongs to what was erased."""
        return bool(self.erased) and time_ms <= self.erased.get(erased_name(customer_id), -1)

    def require_same(self, epoch: int, owner: str, next_offsets: Mapping[str, int]) -> None:
        """Compare with what the store says of the partition.

        Raises:
            LeaseLost: Somebody else has it, and may have gone on.
            StoreRolledBack: The store is not where this lease is.
        """
        # A smaller epoch than ours can only be a store that went back in time.
        if epoch < self.epoch:
            raise StoreRolledBack(f"partition {self.partition}: epoch {epoch} behind {self.epoch}")
        if (epoch, owner) != (self.epoch, self.owner):
            raise LeaseLost(f"partition {self.partition}")
        if next_offsets != self.next_offsets:
            raise StoreRolledBack(
                f"partition {self.partition}: the store is at {dict(next_offsets)}, not {self.next_offsets}"
            )


class HistoryChange(NamedTuple):
    """One customer's stored history, changed.

    Attributes:
        expected_bytes: Length of the stored header and records that this change was made from,
            the packed block not counted; 0 for none.
        header: New header, always written.
        appended: Records to add behind the stored ones, in order of arrival.
        replaced: Whether `header + appended` and `packed` replace everything that is stored.
        last_event_ms: Time of the newest event, for finding silent customers.
        packed: New packed block of a history that is replaced (`packing.pack`); may be empty.
    """

    customer_id: str
    expected_bytes: int
    header: bytes
    appended: bytes
    last_event_ms: int
    replaced: bool = False
    packed: bytes = b""


@dataclass(frozen=True, slots=True)
class EntityChange:
    """What one source partition stores of an entity (merchant, device, counterparty), changed.

    Attributes:
        entity: Name of the kind.
        code: Hash of its id.
        value: For `features.tile_codec.decode`: added behind what is stored, or in its place.
    """

    entity: str
    code: int
    value: bytes
    replaced: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one chunk changes, applied in one atomic step or not at all.

    Attributes:
        source: Topic of the chunk. A sweep names the transactions and moves no offset.
        expected_next: Next offset of the source before this commit; `None` before the first.
        next_offset: Next offset after it.
        scores: Newest fraud scores by customer, oldest first, as JSON.
        churn: Newest churn score by customer, as JSON.
        profiles: Profiles by customer, as JSON; `None` removes one.
        erased: Customers of whom nothing is kept from now on, with the time until which nothing of
            them is taken again.
        models: Identity of the set of models that scores what is next, where that changes.
    """

    source: str
    expected_next: int | None
    next_offset: int
    histories: Sequence[HistoryChange] = ()
    scores: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    churn: Mapping[str, bytes] = field(default_factory=dict)
    profiles: Mapping[str, bytes | None] = field(default_factory=dict)
    erased: Mapping[str, int] = field(default_factory=dict)
    watermark_ms: int = 0
    swept_day: int = -1
    entities: Sequence[EntityChange] = ()
    models: str = ""


@dataclass(frozen=True, slots=True)
class CustomerState:
    """What is stored of one customer.

    Attributes:
        history: Stored bytes for `codec.decode`; `None` for a customer never seen.
        scores: Newest fraud scores as JSON, oldest first.
        churn: Newest churn score as JSON.
        profile: Profile as JSON.
    """

    history: bytes | None = None
    scores: Sequence[bytes] = ()
    churn: bytes | None = None
    profile: bytes | None = None


class HistoryStore(Protocol):
    """Histories and how far they go, by source partition.

    Every method raises `DependencyError` when the store does not answer in time; calling again is
    always safe.
    """

    async def acquire(self, partition: int) -> Lease:
        """Take the lease of a partition; every earlier lease of it is fenced off.

        Raises:
            HistoryError: The stored state has a format this program does not read.
        """
        ...

    async def load(
        self, partition: int, customer_ids: Sequence[str], lease: Lease | None = None
    ) -> list[bytes | None]:
        """Stored histories, each with its packed block behind it, in the order asked for.

        Args:
            partition: Source partition.
            customer_ids: Of that partition.
            lease: Whoever is about to publish what follows from the histories gives the lease: behind a
                lease that was lost, or a store that went back, they are not what comes before the chunk.

        Raises:
            LeaseLost: The lease is somebody else's.
            StoreRolledBack: The store is not where the lease is.
        """
        ...

    async def apply(self, lease: Lease, commit: Commit) -> Outcome:
        """Apply a commit under a lease, all or nothing."""
        ...

    async def apply_all(self, commits: Sequence[tuple[Lease, Commit]]) -> list[Outcome]:
        """Apply commits of different partitions, each by itself, in one round trip."""
        ...

    async def complete(self, lease: Lease) -> None:
        """Say that a partition's histories hold what the log held when they were begun.

        Nothing where the lease is somebody else's by now.
        """
        ...

    async def silent_since(self, partition: int, after_ms: int, before_ms: int) -> list[str]:
        """Customers whose newest event is in `[after_ms, before_ms)`."""
        ...

    async def customers(self, partition: int) -> list[str]:
        """All customers of a partition."""
        ...

    async def entities(
        self, keys: Sequence[tuple[str, int]], partitions: Sequence[int] | None = None
    ) -> list[list[bytes | None]]:
        """What source partitions store of entities, by name and code.

        Args:
            keys: Entities.
            partitions: Whose part of them; `None` for all.

        Returns:
            For each key, in order, one part for each partition, in order.
        """
        ...

    async def histories(self, customer_ids: Sequence[str]) -> list[bytes | None]:
        """Stored histories of customers of any partition, in the order asked for.

        Raises:
            HistoryIncomplete: A partition of theirs is being built.
        """
        ...

    async def read(self, customer_id: str, *, scores: bool = True) -> CustomerState | None:
        """State of a customer, wherever it is; `None` for one never seen.

        Raises:
            HistoryIncomplete: The partition is being built.
        """
        ...
