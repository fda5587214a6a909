"""The members of a pass: partitions whose parts are scored as one, and what this makes of their state."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from features.ports import Commit, EntityChange
from features.record import Records
from models.churn_scores import ChurnResults
from models.pipeline import ScoredChunk
from schemas.topics import TRANSACTIONS
from schemas.transaction import Transaction
from schemas.wire import WireTransaction
from stream_app.partition import Partition, group_rows, history_changes
from stream_app.ports import Outgoing

# Beside accepted and duplicate.
_SCORED_AGAIN = -1


@dataclass(slots=True)
class Part:
    """Records of a chunk, sorted out, up to the first event of a new day.

    Attributes:
        next_offset: Offset behind the last record.
        records: `records[i]` is what `transactions[i]` came from.
        outgoing: Dead letters and messages for other partitions.
        erased_ms: Newest event of erased customers. Nothing of them is taken, but time goes on with them:
            what happens to others must not depend on who was erased.
        published_ms: When the last record was published, by the log.
    """

    next_offset: int
    transactions: list[Transaction | WireTransaction] = field(default_factory=list)
    amounts_minor: list[int] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)
    outgoing: list[Outgoing] = field(default_factory=list)
    erased_ms: int = 0
    published_ms: int = 0


@dataclass(slots=True)
class Member:
    """A partition's share of a pass.

    Attributes:
        rows: Its rows of the pass, all those of its part.
        customer_ids: Of these rows.
        outgoing: What is published.
        scores: Of that the fraud scores by customer, for lookups.
        churn: The churn scores.
    """

    partition: Partition
    part: Part
    rows: range
    customer_ids: list[str]
    outgoing: list[Outgoing]
    scores: dict[str, list[bytes]] = field(default_factory=dict)
    churn: dict[str, bytes] = field(default_factory=dict)


def members_of(parts: Sequence[tuple[Partition, Part]]) -> tuple[list[Member], Part]:
    """The members of a pass, and all their parts as one."""
    members, end = [], 0
    for partition, part in parts:
        first, end = end, end + len(part.transactions)
        customer_ids = [t.customer_id for t in part.transactions]
        members.append(Member(partition, part, range(first, end), customer_ids, list(part.outgoing)))
    if len(parts) == 1:
        return members, parts[0][1]
    whole = Part(0)
    for _, part in parts:
        whole.transactions += part.transactions
        whole.amounts_minor += part.amounts_minor
        whole.records += part.records
    return members, whole


def without(scored: ScoredChunk, members: Sequence[Member]) -> ScoredChunk:
    """A chunk without what is scored again, whose rows are neither accepted nor duplicates."""
    rows, features = [row for member in members for row in member.rows], scored.features
    status, flags, decisions = features.status.copy(), features.flags.copy(), scored.decisions.copy()
    status[rows], flags[rows], decisions[rows] = _SCORED_AGAIN, 0, 0
    gone, customers = set(rows), {customer_id for member in members for customer_id in member.customer_ids}
    kept = [n for n, result in enumerate(scored.churn) if result.customer_id not in customers]
    return replace(
        scored,
        features=replace(features, status=status, flags=flags),
        decisions=decisions,
        reasons={row: found for row, found in scored.reasons.items() if row not in gone},
        unusual={row: found for row, found in scored.unusual.items() if row not in gone},
        churn=ChurnResults([scored.churn[n] for n in kept], scored.churn.numbers[kept]),
    )


def commits_of(
    members: Sequence[Member],
    records: Records,
    scored: ScoredChunk,
    entities: Sequence[Sequence[EntityChange]],
) -> list[Commit]:
    """What each member's rows make of the state; histories are past them already."""
    customer_ids = [customer_id for member in members for customer_id in member.customer_ids]
    accepted = scored.accepted
    by_customer = group_rows(customer_ids, accepted.tolist())
    # Customers of one member stand beside each other, as its rows do.
    first = np.array([rows[0] for rows in by_customer.values()], dtype=np.int64)
    changes = history_changes(
        members[0].partition.arena,
        list(by_customer),
        scored.slots[first],
        records[[row for rows in by_customer.values() for row in rows]],
        list(map(len, by_customer.values())),
    )
    commits = []
    for number, member in enumerate(members):
        lease, bounds = member.partition.require_lease(), (member.rows.start, member.rows.stop)
        mine, times = slice(*np.searchsorted(first, bounds)), records["time_ms"][accepted]
        newest = times[slice(*np.searchsorted(accepted, bounds))].max(initial=0)
        commits.append(
            Commit(
                TRANSACTIONS.name,
                lease.next_offsets.get(TRANSACTIONS.name),
                member.part.next_offset,
                changes[mine],
                member.scores,
                member.churn,
                watermark_ms=max(member.part.erased_ms, int(newest)),
                entities=entities[number] if entities else (),
            )
        )
    return commits
