"""Scores of one partition, each with the transaction it is of: a merge of two logs in one order.

Scores are published in the order of their transactions, in the partition of the same number. So a
transaction before the newest score's that had no score of its own will never have one: it was a dead
letter, a duplicate, or belongs to another partition.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from schemas.errors import HistoryError


@dataclass(frozen=True, slots=True)
class Joined:
    """A score and its transaction.

    Attributes:
        offset: Of the transaction.
        transaction: The message as it was accepted.
        score: The score as it was published.
    """

    offset: int
    transaction: bytes
    score: dict[str, Any]


@dataclass(slots=True)
class PartitionJoin:
    """The merge of one partition, which can go on where it stopped.

    Attributes:
        next_score: Offset behind the newest score that was taken.
        next_source: Offset behind the newest transaction that was taken.
        unreadable: Records on the score topic that are no scores.
        repeated: Scores of transactions that already had one.
    """

    number: int
    source_topic: str
    next_score: int = 0
    next_source: int = 0
    unreadable: int = 0
    repeated: int = 0
    _transactions: deque[tuple[int, bytes]] = field(default_factory=deque)
    _scores: deque[tuple[int, int, dict[str, Any]]] = field(default_factory=deque)

    @property
    def transactions_waiting(self) -> int:
        """Transactions read that no score was found for yet."""
        return len(self._transactions)

    @property
    def scores_waiting(self) -> int:
        """Scores read whose transaction was not found yet."""
        return len(self._scores)

    def add_transaction(self, offset: int, value: bytes | None) -> None:
        """The next record of the transactions' log."""
        self._transactions.append((offset, value or b""))

    def add_score(self, offset: int, value: bytes | None) -> None:
        """The next record of the scores' log."""
        try:
            score = orjson.loads(value or b"")
            source = score["source"]
            found = int(source["offset"]) if source["topic"] == self.source_topic else -1
        except (ValueError, TypeError, KeyError):
            found, score = -1, {}
        self._scores.append((offset, found, score))

    def take(self) -> Iterable[Joined]:
        """All pairs that are complete, in order.

        Raises:
            HistoryError: A score's transaction is not in the log.
        """
        transactions, scores = self._transactions, self._scores
        while scores:
            offset, wanted, score = scores[0]
            if wanted < self.next_source:
                # Others' messages, and what a crash made the worker publish again.
                self.unreadable += wanted < 0
                self.repeated += wanted >= 0
            else:
                while transactions and transactions[0][0] < wanted:
                    transactions.popleft()
                if not transactions:
                    return
                if transactions[0][0] > wanted:
                    raise HistoryError(
                        f"the transaction at offset {wanted} of {self.source_topic} {self.number} has a "
                        "score and is not in the log any more: its retention must exceed that of scores; "
                        "start again with an empty event log and database"
                    )
                yield Joined(wanted, transactions.popleft()[1], score)
                self.next_source = wanted + 1
            self.next_score = offset + 1
            scores.popleft()
