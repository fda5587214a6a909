"""Counting put off until there is much to count: for a few events it costs more than for many at once."""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

Item = TypeVar("Item")


class OnScrape(Collector):
    """Does something before metrics are read.

    Args:
        do: What is done.
        registry: Collected in the order of registration: make this before the metrics that it changes.
    """

    def __init__(self, do: Callable[[], None], registry: CollectorRegistry) -> None:
        self._do = do
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Nothing: it is no metric."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Nothing, but what comes behind is counted."""
        self._do()
        return iter(())


class Deferred(OnScrape, Generic[Item]):
    """Items that wait to be counted; a scrape finds them counted.

    Args:
        count: Counts items, given in the order they came.
        rows: As many rows do not wait.
        registry: As of `OnScrape`.

    >>> seen, registry = [], CollectorRegistry()
    >>> waiting = Deferred(seen.extend, 3, registry)
    >>> waiting.add("a", 2); seen
    []
    >>> waiting.add("b", 1); seen
    ['a', 'b']
    >>> waiting.add("c", 1); list(registry.collect()); seen
    []
    ['a', 'b', 'c']
    """

    def __init__(self, count: Callable[[list[Item]], None], rows: int, registry: CollectorRegistry) -> None:
        self._count = count
        self._rows = rows
        # Scrapes come on a thread of their own.
        self._lock = Lock()
        self._items: list[Item] = []
        self._waiting = 0
        super().__init__(self.flush, registry)

    def add(self, item: Item, rows: int) -> None:
        """Let an item of so many rows wait."""
        with self._lock:
            self._items.append(item)
            self._waiting += rows
            if self._waiting >= self._rows:
                self._flush()

    def flush(self) -> None:
        """Count all that waits."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        items, self._items, self._waiting = self._items, [], 0
        if items:
            self._count(items)
