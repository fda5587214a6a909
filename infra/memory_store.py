"""Histories in this process's memory: for tests, backtests and a look without Redis."""

import bisect
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from features.codec import HEADER
from features.ports import Commit, CustomerState, Lease, Outcome
from schemas.erasure import erased_name
from schemas.errors import HistoryError, HistoryIncomplete


@dataclass(slots=True)
class _Partition:
    epoch: int = 0
    owner: str = ""
    next_offsets: dict[str, int] = field(default_factory=dict)
    watermark_ms: int = 0
    swept_day: int = -1
    models: str = ""
    building: bool = False
    histories: dict[str, bytes] = field(default_factory=dict)
    packed: dict[str, bytes] = field(default_factory=dict)
    last_event_ms: dict[str, int] = field(default_factory=dict)
    scores: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    churn: dict[str, bytes] = field(default_factory=dict)
    profiles: dict[str, bytes] = field(default_factory=dict)
    entities: dict[tuple[str, int], bytes] = field(default_factory=dict)
    erased: dict[str, int] = field(default_factory=dict)

    def history(self, customer_id: str) -> bytes | None:
        found = self.histories.get(customer_id)
        return None if found is None else found + self.packed.get(customer_id, b"")


class MemoryHistoryStore:
    """A `HistoryStore` with the same answers as the one in Redis."""

    def __init__(self, recent_scores: int = 10) -> None:
        self._partitions: dict[int, _Partition] = defaultdict(_Partition)
        self._recent_scores = recent_scores

    async def acquire(self, partition: int) -> Lease:
        """Take the lease of a partition; every earlier lease of it is fenced off."""
        state = self._partitions[partition]
        state.epoch += 1
        state.building |= state.epoch == 1
        state.owner = secrets.token_hex(8)
        return Lease(
            partition,
            state.epoch,
            state.owner,
            dict(state.next_offsets),
            state.watermark_ms,
            state.swept_day,
            dict(state.erased),
            state.models,
            state.building,
        )

    async def complete(self, lease: Lease) -> None:
        """Say that a partition's histories hold what the log held."""
        state = self._partitions[lease.partition]
        if (state.epoch, state.owner) == (lease.epoch, lease.owner):
            state.building = False

    async def load(
        self, partition: int, customer_ids: Sequence[str], lease: Lease | None = None
    ) -> list[bytes | None]:
        """Stored histories, in the order asked for."""
        if lease is not None:
            state = self._partitions[partition]
            lease.require_same(state.epoch, state.owner, state.next_offsets)
        return [self._partitions[partition].history(c) for c in customer_ids]

    async def apply_all(self, commits: Sequence[tuple[Lease, Commit]]) -> list[Outcome]:
        """Apply commits of different partitions, each by itself."""
        return [await self.apply(lease, commit) for lease, commit in commits]

    async def apply(self, lease: Lease, commit: Commit) -> Outcome:
        """Apply a commit under a lease, all or nothing."""
        state = self._partitions[lease.partition]
        if state.epoch < lease.epoch:
            return Outcome.ROLLED_BACK
        if (state.epoch, state.owner) != (lease.epoch, lease.owner):
            return Outcome.FENCED
        stored = state.next_offsets.get(commit.source)
        if stored == commit.next_offset and stored != commit.expected_next:
            return Outcome.ALREADY_APPLIED
        if stored != commit.expected_next:
            return Outcome.ROLLED_BACK
        for change in commit.histories:
            stored = len(state.histories.get(change.customer_id, b""))
            # A replacement that is tried again finds its own length.
            again = change.replaced and stored == len(change.header) + len(change.appended)
            if stored != change.expected_bytes and not again:
                raise HistoryError("a stored history was changed by somebody else (its length differs)")
        for change in commit.histories:
            kept = b"" if change.replaced else state.histories.get(change.customer_id, b"")[HEADER.itemsize :]
            state.histories[change.customer_id] = change.header + kept + change.appended
            if change.replaced:
                state.packed[change.customer_id] = change.packed
            state.last_event_ms[change.customer_id] = change.last_event_ms
        for customer_id, scores in commit.scores.items():
            state.scores[customer_id] = [*state.scores[customer_id], *scores][-self._recent_scores :]
        state.churn.update(commit.churn)
        for customer_id, profile in commit.profiles.items():
            if profile is None:
                state.profiles.pop(customer_id, None)
            else:
                state.profiles[customer_id] = profile
        for entity in commit.entities:
            key = (entity.entity, entity.code)
            kept = b"" if entity.replaced else state.entities.get(key, b"")
            state.entities[key] = kept + entity.value
        for customer_id, until_ms in commit.erased.items():
            parts: tuple[dict[str, Any], ...] = (
                state.histories,
                state.packed,
                state.last_event_ms,
                state.scores,
                state.churn,
                state.profiles,
            )
            for part in parts:
                part.pop(customer_id, None)
            name = erased_name(customer_id)
            state.erased[name] = max(until_ms, state.erased.get(name, -1))
        state.next_offsets[commit.source] = commit.next_offset
        state.models = commit.models or state.models
        state.watermark_ms = max(state.watermark_ms, commit.watermark_ms)
        state.swept_day = max(state.swept_day, commit.swept_day)
        return Outcome.APPLIED

    async def silent_since(self, partition: int, after_ms: int, before_ms: int) -> list[str]:
        """Customers whose newest event is in `[after_ms, before_ms)`."""
        ordered = sorted((ms, c) for c, ms in self._partitions[partition].last_event_ms.items())
        low, high = (bisect.bisect_left(ordered, (ms, "")) for ms in (after_ms, before_ms))
        return [customer_id for _, customer_id in ordered[low:high]]

    async def customers(self, partition: int) -> list[str]:
        """All customers of a partition."""
        return [c for _, c in sorted((ms, c) for c, ms in self._partitions[partition].last_event_ms.items())]

    async def entities(
        self, keys: Sequence[tuple[str, int]], partitions: Sequence[int] | None = None
    ) -> list[list[bytes | None]]:
        """What source partitions store of entities, by name and code."""
        numbers = sorted(self._partitions) if partitions is None else partitions
        return [[self._partitions[p].entities.get(key) for p in numbers] for key in keys]

    async def histories(self, customer_ids: Sequence[str]) -> list[bytes | None]:
        """Stored histories of customers of any partition, in the order asked for."""
        self._require_complete()
        known = {c: state.history(c) for state in self._partitions.values() for c in state.histories}
        return [known.get(c) for c in customer_ids]

    async def read(self, customer_id: str, *, scores: bool = True) -> CustomerState | None:
        """State of a customer, wherever it is; `None` for one never seen."""
        self._require_complete()
        for state in self._partitions.values():
            if customer_id in state.histories or customer_id in state.profiles:
                return CustomerState(
                    state.history(customer_id),
                    tuple(state.scores.get(customer_id, ())) if scores else (),
                    state.churn.get(customer_id) if scores else None,
                    state.profiles.get(customer_id),
                )
        return None

    def _require_complete(self) -> None:
        # Whose a customer is that it does not have, it does not know.
        if any(state.building for state in self._partitions.values()):
            raise HistoryIncomplete("histories are being built from the log")
