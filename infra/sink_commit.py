"""What one flush of the sink changes."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

from infra.event_files import EventFile

TopicPartition = tuple[str, int]


def record_name(transaction_id: str) -> str:
    """What is remembered of a record: a digest of its transaction's id, for the customer may be erased."""
    return sha256(b"record\0" + transaction_id.encode()).hexdigest()[:32]


@dataclass(slots=True)
class SinkCommit:
    """Everything that one flush changes.

    Attributes:
        expected: Offsets that it starts from; absent before the first.
        reached: Offsets after it.
        files: New files.
        activity: By customer, rows of `customers` to add to what is stored.
        churn: By customer, the newest churn score.
        profiles: By customer, the newest profile.
        erased: By customer, until when (ms) all that is kept goes. `activity` then is of all that stays.
        replaced: Files with rows of erased customers, each with the one in its place; `None`: no row is left.
        doubtful: Customers erased earlier with something new: dropped again where it is no new customer.
        newest: By partition, offset and transaction id of the newest record that was taken.
        name: Its own: a repeat is known by it, also of a commit that names no file.
    """

    expected: dict[TopicPartition, int] = field(default_factory=dict)
    reached: dict[TopicPartition, int] = field(default_factory=dict)
    files: Sequence[EventFile] = ()
    activity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    churn: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    erased: Mapping[str, int] = field(default_factory=dict)
    replaced: Mapping[EventFile, EventFile | None] = field(default_factory=dict)
    doubtful: Sequence[str] = ()
    newest: Mapping[TopicPartition, tuple[int, str]] = field(default_factory=dict)
    name: str = field(default_factory=partial(secrets.token_hex, 16))

    @property
    def new_files(self) -> list[EventFile]:
        """All files that it names."""
        return [*self.files, *(file for file in self.replaced.values() if file is not None)]
