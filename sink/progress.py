"""How far the event log is behind its topics, by what was read and what waits."""

import time
from collections.abc import Callable, Collection, Mapping

Partition = tuple[str, int]


class Progress:
    """Knows up to when everything that was published is stored.

    A sink that hangs reads nothing, so what it last knew only gets older: that is what is measured.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._asked_s = self._began_s = clock()
        self._newest_s: dict[Partition, float] = {}
        self._upto_s: dict[Partition, float | None] = {}

    def ask(self) -> None:
        """What the log holds now is asked for: an answer that is empty says so of this moment."""
        self._asked_s = self._clock()

    def read(self, topic: str, partition: int, published_ms: int) -> None:
        """Records of a partition were read, the newest of that broker's time."""
        self._newest_s[topic, partition] = published_ms / 1000

    def stored(self, unread: Mapping[Partition, int | None], waiting: Collection[Partition]) -> None:
        """What was read is stored, but for what waits.

        Args:
            unread: By partition, records that were not read yet; `None` before the log said.
            waiting: Partitions of which something was read that cannot be stored yet.
        """
        for key, count in unread.items():
            before_s = self._upto_s.setdefault(key, None)
            if key in waiting or count is None:
                continue
            if not count:
                self._upto_s[key] = self._asked_s
            elif key in self._newest_s:
                # What came after a time with nothing left is younger than that time,
                # however old the record before.
                self._upto_s[key] = max(before_s or 0.0, self._newest_s[key])

    def behind_s(self) -> float:
        """Everything that was published so many seconds ago, or before, is stored."""
        upto = (self._began_s if upto_s is None else upto_s for upto_s in self._upto_s.values())
        return max(0.0, self._clock() - min(upto, default=self._began_s))


def by_topic(unread: Mapping[Partition, int | None]) -> dict[str, int]:
    """Records of each topic that were not read; what is not known yet counts as none.

    >>> by_topic({("a", 0): 2, ("a", 1): None, ("b", 0): 0})
    {'a': 2, 'b': 0}
    """
    found: dict[str, int] = {}
    for (topic, _), count in unread.items():
        found[topic] = found.get(topic, 0) + (count or 0)
    return found
