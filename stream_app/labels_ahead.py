"""What of a partition's labels was looked at ahead of its turn."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Waiting(NamedTuple):
    """A label that is not due yet.

    Attributes:
        record: As it was fetched.
        told_ms: When it was told, in event time.
    """

    record: Any
    told_ms: int


@dataclass(slots=True)
class LabelsAhead:
    """Labels that the log held when a partition was taken, by what became of them on the way.

    Attributes:
        end: Of their log; nothing behind it is looked at.
        seen: Offset up to which they were looked at.
        day: Day of event time behind which labels were put in last; that of the store, to begin with, as what
            was published before a crash is scored again as it was.
        gap: First offset that has no record and may have had one: retention may have let it go.
        ask_s: When the broker may be asked of it, by the event loop's clock.
        newest_ms: When the last one seen was published.
        waiting: Not due yet, in the order of the log.
        left: Offsets of those that nobody knows what they are about: decided in their turn.
        done: Offsets of those that were put in.
    """

    end: int
    seen: int
    day: int = 0
    gap: int | None = None
    ask_s: float = 0.0
    newest_ms: int = -1
    waiting: list[Waiting] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)

    def next_offset(self) -> int:
        """Offset before which all are done."""
        first = self.waiting[0].record.offset if self.waiting else self.seen
        return min(first, min(self.left, default=first), first if self.gap is None else self.gap)

    def tried(self, offsets: set[int], known: set[int]) -> int:
        """Note which of those that were tried are in; returns the offset before which all are done."""
        self.done |= known
        self.left |= offsets - known
        return self.next_offset()

    def forget(self, offset: int) -> None:
        """Forget what stands before an offset: it is processed."""
        self.waiting = [each for each in self.waiting if each.record.offset >= offset]
        self.left = {each for each in self.left if each >= offset}
        self.done = {each for each in self.done if each >= offset}
