"""Scores of one partition, each with the transaction it is of: a merge of two logs in one order.

Scores are published in the order of their transactions, in the partition of the same number. So a
transaction before the newest score's that had no score of its own will never have one: it was a dead
letter, a duplicate, or belongs to another partition.

An offset alone does not say that: where the transactions' topic was made again, scores of the older log
name the same offsets. A score counts for the transaction of its own ids.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from schemas.errors import EventError, HistoryError
from schemas.fields import Identifier, Moment, Part, Proba
from schemas.parse import parse_message
from schemas.score import Decision, ModelRef, Source
from schemas.topics import FRAUD_SCORES
from schemas.transaction import Transaction

_MOST_HELD = 20_000
_LEFT_OUT = ("unreadable", "repeated", "expired", "foreign")


class _Stored(Part):
    """What is stored of a score. Not the whole message: a newer worker may say more than is known here."""

    transaction_id: Identifier
    customer_id: Identifier
    scored_at: Moment
    score: Proba
    decision: Decision
    reasons: list[Any]
    model: ModelRef
    flags: list[str]
    source: Source


@dataclass(frozen=True, slots=True)
class Joined:
    """A score and its transaction.

    Attributes:
        offset: Of the transaction.
        transaction: As it was accepted.
        score: The score as it was published.
    """

    offset: int
    transaction: Transaction
    score: dict[str, Any]


@dataclass(slots=True)
class PartitionJoin:
    """The merge of one partition, which can go on where it stopped.

    Attributes:
        next_score: Offset before which every score was taken.
        next_source: Offset behind the newest transaction that was taken, or where the event log begins.
        first: Offset of the first transaction that the log still has.
        most_held: When so many transactions wait for a score, they are let go, and read again if need be.
        unreadable: Records on the score topic that are no scores.
        repeated: Scores of transactions that already had one.
        expired: Scores of transactions that were deleted before the event log was begun.
        foreign: Scores of an older log, or of nothing that the log has.
        newest: Offsets of the newest transaction and score that were taken, and the transaction's id.
        rewind: The transactions have to be read again from `next_source`: see `begin`.
    """

    number: int
    source_topic: str
    next_score: int = 0
    next_source: int = 0
    first: int = 0
    most_held: int = _MOST_HELD
    unreadable: int = 0
    repeated: int = 0
    expired: int = 0
    foreign: int = 0
    newest: tuple[int, int, str] | None = None
    rewind: bool = False
    _held_from: int = 0
    _transactions: deque[tuple[int, bytes]] = field(default_factory=deque)
    _scores: deque[tuple[int, int, dict[str, Any]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> int:
        """Forget the transactions that wait; returns the offset from which they are to be read."""
        self._transactions.clear()
        self._held_from, self.rewind = max(self.first, self.next_source), False
        return self._held_from

    def waiting(self) -> list[tuple[tuple[str, int], int]]:
        """By topic and partition, how many records were read and are not joined."""
        numbers = {self.source_topic: len(self._transactions), FRAUD_SCORES.name: len(self._scores)}
        return [((topic, self.number), count) for topic, count in numbers.items()]

    @property
    def scores_waiting(self) -> int:
        """Scores read whose transaction was not found yet."""
        return len(self._scores)

    @property
    def waits_for(self) -> int | None:
        """Offset of the transaction that the oldest score waits for."""
        return self._scores[0][1] if self._scores else None

    def flushed(self) -> dict[str, int]:
        """What was taken is stored; returns how many were left out since the last time, by reason."""
        counts = {name: getattr(self, name) for name in _LEFT_OUT}
        self.unreadable = self.repeated = self.expired = self.foreign = 0
        self.newest = None
        return counts

    def add_transaction(self, offset: int, value: bytes | None) -> None:
        """The next record of the transactions' log."""
        self._transactions.append((offset, value or b""))

    def add_score(self, offset: int, value: bytes | None) -> None:
        """The next record of the scores' log."""
        try:
            score = orjson.loads(value or b"")
            source = _Stored.model_validate(score).source
            found = source.offset if source.topic == self.source_topic else -1
        except ValueError:
            found, score = -1, {}
        self._scores.append((offset, found, score))

    def take(self) -> Iterable[Joined]:
        """All pairs that are complete, in order.

        Raises:
            HistoryError: A score's transaction is not in the log.
        """
        while self._scores:
            offset, wanted, score = self._scores[0]
            if wanted < self.next_source:
                # Others' messages, what was gone when the event log was begun, and what a crash made the
                # worker publish again.
                self.unreadable += wanted < 0
                self.expired += 0 <= wanted < self.first
                self.repeated += wanted >= max(self.first, 0)
            elif wanted < self.first:
                raise HistoryError(
                    f"the transaction at offset {wanted} of {self.source_topic} {self.number} has a "
                    "score and is not in the log any more: its retention must exceed that of scores; "
                    "start again with an empty event log and database"
                )
            elif wanted < self._held_from:
                self.rewind = True
                return
            elif self._is_ahead(wanted):
                if len(self._transactions) > self.most_held:
                    # Nothing more would be read. Mostly none of them has a score; where scores of an older
                    # log made it look so, the first score that is of one of them has them read again.
                    self._held_from = self._transactions[-1][0] + 1
                    self._transactions.clear()
                return
            elif (transaction := self._transaction(wanted, score)) is None:
                # The transactions before it may have scores that are still to come.
                self.foreign += 1
            else:
                yield Joined(wanted, transaction, score)
                self.next_source = self._held_from = wanted + 1
                while self._transactions and self._transactions[0][0] <= wanted:
                    self._transactions.popleft()
                self.newest = (wanted, offset, transaction.transaction_id)
            self.next_score = offset + 1
            self._scores.popleft()

    def reach(self, offsets: dict[tuple[str, int], int]) -> dict[tuple[str, int], tuple[int, str]]:
        """Say from where to go on; returns offset and transaction id of the newest records that were taken.

        Args:
            offsets: By topic and partition, how far each was read, behind records that are not shown too. Of
                scores it becomes the oldest that waits, of transactions what is behind those taken.
        """
        source, scores = (self.source_topic, self.number), (FRAUD_SCORES.name, self.number)
        self.next_score = self._scores[0][0] if self._scores else max(self.next_score, offsets[scores])
        offsets[scores], offsets[source] = self.next_score, self.next_source
        if self.newest is None:
            return {}
        at_source, at_scores, transaction_id = self.newest
        return {source: (at_source, transaction_id), scores: (at_scores, transaction_id)}

    def drop_unfound(self, read_upto: int, end: int) -> int:
        """Pass over the oldest scores whose transactions are not there; returns how many.

        Args:
            read_upto: How far the transactions' log was read, behind records that are not shown too.
            end: Of the transactions' log, asked for after these scores were read.
        """
        before = self.foreign
        while self._scores:
            offset, wanted, _ = self._scores[0]
            if wanted < end and not (self._held_from <= wanted < read_upto and self._is_ahead(wanted)):
                break
            self.foreign += 1
            self.next_score = offset + 1
            self._scores.popleft()
        return self.foreign - before

    def _is_ahead(self, wanted: int) -> bool:
        return not self._transactions or self._transactions[-1][0] < wanted

    def _transaction(self, wanted: int, score: dict[str, Any]) -> Transaction | None:
        """The transaction of a score; `None` where what stands there is another one, or none."""
        offset, value = self._transactions[bisect_left(self._transactions, (wanted, b""))]
        if offset != wanted:
            return None
        try:
            found = parse_message(Transaction, value)
        except EventError:
            return None
        ids = (found.transaction_id, found.customer_id)
        return found if ids == (score.get("transaction_id"), score.get("customer_id")) else None
