"""Live scores: one consumer, many clients.

An event id is a vector, `partition:next offset` for each partition: it says what was given out, whatever
order the partitions were read in, so a client goes on at another process too.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import orjson
import structlog

from api.ports import Dropped, InvalidPosition, LiveScore, ScoreFilter
from schemas.errors import DependencyError

_log = structlog.get_logger()
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
Vector = tuple[int, ...]


class ScoreSource(Protocol):
    """The score topic. Every method raises `DependencyError` when Kafka is away."""

    async def start(self) -> Sequence[int]:
        """Connect; the next offset of each partition from now on."""
        ...

    async def fetch(self) -> Sequence[tuple[int, int, bytes]]:
        """What has come: `(partition, offset, score)`, in order within each partition."""
        ...

    async def read(self, partition: int, start: int, end: int) -> Sequence[tuple[int, bytes]]:
        """What was published at `[start, end)`.

        Raises:
            InvalidPosition: The log does not reach back to `start`.
        """
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...


class _Record:
    """A score that every client's queue shares.

    Attributes:
        upto: Of the hub behind this record; `None` for one read from the log again.
    """

    __slots__ = ("customer_id", "decision", "id", "offset", "partition", "score", "upto")

    def __init__(self, partition: int, offset: int, score: bytes, upto: Vector | None) -> None:
        self.partition, self.offset, self.score, self.upto = partition, offset, score, upto
        self.id = "" if upto is None else event_id(upto)
        try:
            found = orjson.loads(score)
            self.customer_id, self.decision = str(found["customer_id"]), str(found["decision"])
        except (ValueError, TypeError, KeyError):
            self.customer_id = self.decision = ""


def event_id(vector: Vector) -> str:
    """A vector as text.

    >>> event_id((12, 0)), parse_event_id("0:12,1:0", 2)
    ('0:12,1:0', (12, 0))
    """
    return ",".join(f"{p}:{o}" for p, o in enumerate(vector))


def parse_event_id(text: str, partitions: int) -> Vector:
    """The vector that a text is.

    Raises:
        InvalidPosition: It is none, or of another number of partitions.
    """
    try:
        vector: Vector = tuple(int(part.partition(":")[2]) for part in text.split(","))
    except ValueError:
        vector = ()
    # Its own text: the same position has one id, and none is longer than one that was given out.
    if len(vector) != partitions or event_id(vector) != text or min(vector) < 0 or max(vector) >= 2**63:
        raise InvalidPosition("event id: not one that was given out here; begin without one")
    return vector


class Client:
    """One subscription."""

    def __init__(self, hub: "LiveHub", which: ScoreFilter, resume: Vector | None, waiting: int) -> None:
        self._hub, self.which, self._waiting = hub, which, waiting
        # Until the hub is past it, what a client has seen is not what the hub has given out.
        self._resume = resume
        self._queue: deque[_Record] = deque()
        self._news = asyncio.Event()
        self.dropped = asyncio.Event()
        self._why = ""

    @property
    def position(self) -> str:
        """The event id behind everything that was given out; before what waits."""
        if self._queue:
            first = self._queue[0]
            return self._id(self._before(first))
        return self._id(self._hub.position)

    async def next(self, timeout_s: float) -> Sequence[LiveScore]:
        """What has come, up to 500 scores; nothing after the time.

        Raises:
            Dropped: The client is too slow, or the feed has ended.
        """
        if not self._queue and not self.dropped.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return ()
        if self.dropped.is_set():
            raise Dropped(self._why)
        self._news.clear()
        return [self._out(self._queue.popleft()) for _ in range(min(500, len(self._queue)))]

    def close(self) -> None:
        """End it."""
        self._hub.forget(self)

    def wants(self, record: _Record) -> bool:
        """Whether a record is in the filter and was not seen before the client came back."""
        decisions, customers = self.which.decisions, self.which.customers
        return (
            (not decisions or record.decision in decisions)
            and (not customers or record.customer_id in customers)
            and (self._resume is None or record.offset >= self._resume[record.partition])
        )

    def offer(self, record: _Record, *, unbounded: bool = False) -> None:
        """Put a record into the queue; where that is full, the client is dropped."""
        if len(self._queue) >= self._waiting and not unbounded:
            self.drop(f"too slow: {self._waiting} scores were waiting; come back with the last event id")
            return
        self._queue.append(record)
        self._news.set()

    def allow_backlog(self) -> None:
        """Let what waits now wait: it is what the client came back for."""
        self._waiting += len(self._queue)

    def drop(self, why: str) -> None:
        """Let the client go."""
        if not self.dropped.is_set():
            self._why = why
            self._queue.clear()
            self.dropped.set()
            self._news.set()
            self._hub.forget(self, dropped=True)

    def _out(self, record: _Record) -> LiveScore:
        if self._resume is None:
            return LiveScore(record.id, record.score)
        behind = list(self._resume)
        behind[record.partition] = max(behind[record.partition], record.offset + 1)
        if record.upto is None:
            self._resume = tuple(behind)
        elif all(o >= r for o, r in zip(record.upto, self._resume, strict=True)):
            self._resume = None
            return LiveScore(record.id, record.score)
        else:
            self._resume = tuple(map(max, behind, record.upto))
        return LiveScore(event_id(self._resume), record.score)

    def _before(self, record: _Record) -> Vector:
        before = list(record.upto if record.upto is not None else self._resume or self._hub.position)
        before[record.partition] = record.offset
        return tuple(before)

    def _id(self, vector: Vector) -> str:
        return event_id(vector if self._resume is None else tuple(map(max, vector, self._resume)))


class LiveHub:
    """Reads the score topic once and hands each score to the clients that want it.

    Args:
        source: The topic.
        kept: Newest scores in memory, for clients that come back.
        waiting: Most scores that wait for one client.
        catch_up: Most scores that are read from the log again for one client.
    """

    def __init__(
        self, source: ScoreSource, *, kept: int = 20_000, waiting: int = 2_000, catch_up: int = 100_000
    ) -> None:
        self._source, self._kept, self._waiting, self._catch_up = source, kept, waiting, catch_up
        self._recent: deque[_Record] = deque()
        self._floor: list[int] = []
        self.position: Vector = ()
        self._broad: set[Client] = set()
        self._by_customer: dict[str, set[Client]] = {}
        self._up = asyncio.Event()
        self._away = "the live feed has not connected to Kafka yet"
        self._reads = asyncio.Semaphore(4)
        self.given = self.dropped = 0

    async def run(self) -> None:
        """Read until cancelled; Kafka away is waited for."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    await self._read()
                except DependencyError as away:
                    self._away = str(away)
                    pause_s = _FIRST_PAUSE_S if self._up.is_set() else min(2 * pause_s, _LONGEST_PAUSE_S)
                    _log.warning("live scores wait for Kafka", error=self._away, again_in_s=pause_s)
                    self._up.clear()
                    await self._source.stop()
                    await asyncio.sleep(pause_s)
        finally:
            for client in list(self._clients()):
                client.drop("the service ends; come back with the last event id")
            await self._source.stop()

    async def _read(self) -> None:
        starts = tuple(await self._source.start())
        if starts != self.position:
            # Elsewhere than where we were: whoever listens has to come back through the log.
            for client in list(self._clients()):
                client.drop("the feed was interrupted; come back with the last event id")
            self._recent.clear()
            self._floor, self.position = list(starts), starts
        self._up.set()
        while True:
            for partition, offset, score in await self._source.fetch():
                self._take(partition, offset, score)

    def _take(self, partition: int, offset: int, score: bytes) -> None:
        upto = (*self.position[:partition], offset + 1, *self.position[partition + 1 :])
        self.position = upto
        record = _Record(partition, offset, score, upto)
        if not record.customer_id:
            return
        self._recent.append(record)
        if len(self._recent) > self._kept:
            gone = self._recent.popleft()
            self._floor[gone.partition] = gone.offset + 1
        for client in [*self._by_customer.get(record.customer_id, ()), *self._broad]:
            if client.wants(record):
                self.given += 1
                client.offer(record)

    async def subscribe(self, which: ScoreFilter, after: str | None) -> Client:
        """A subscription from now, or from an event id.

        Raises:
            InvalidPosition: The id is of another log, or what follows it is not kept any more.
            DependencyError: Kafka is away.
        """
        if not self._up.is_set():
            raise DependencyError(self._away)
        if after is None:
            client = Client(self, which, None, self._waiting)
        else:
            resume = parse_event_id(after, len(self.position))
            if any(r > p + self._catch_up for r, p in zip(resume, self.position, strict=True)):
                raise InvalidPosition("event id: not one that was given out here; begin without one")
            client = Client(self, which, resume, self._waiting)
            reached, old = list(resume), list[_Record]()
            # While the log is read, what is kept moves on: until the two meet.
            while missing := [p for p, o in enumerate(reached) if o < self._floor[p]]:
                for p in missing:
                    end = self._floor[p]
                    if sum(max(0, f - r) for f, r in zip(self._floor, resume, strict=True)) > self._catch_up:
                        raise InvalidPosition(
                            f"event id: more than {self._catch_up} scores ago; begin without one"
                        )
                    async with self._reads:
                        found = await self._source.read(p, reached[p], end)
                    old += [_Record(p, offset, score, None) for offset, score in found]
                    reached[p] = end
            # From here to the end nothing else runs: no score is missed and none comes twice.
            covered = tuple(reached)
            for record in old:
                if client.wants(record):
                    client.offer(record, unbounded=True)
            for record in self._recent:
                if record.offset >= covered[record.partition] and client.wants(record):
                    client.offer(record, unbounded=True)
            client.allow_backlog()
        for clients in self._places(client):
            clients.add(client)
        return client

    def forget(self, client: Client, *, dropped: bool = False) -> None:
        """Give a client nothing more."""
        self.dropped += dropped
        for clients in self._places(client):
            clients.discard(client)
        for customer_id in client.which.customers:
            if not self._by_customer.get(customer_id, True):
                del self._by_customer[customer_id]

    def status(self) -> Mapping[str, Any]:
        """How many clients there are and how far the feed is."""
        return {
            "up": self._up.is_set(),
            "clients": len(set(self._clients())),
            "given": self.given,
            "dropped": self.dropped,
            "position": event_id(self.position),
        }

    def _places(self, client: Client) -> list[set[Client]]:
        if not client.which.customers:
            return [self._broad]
        return [self._by_customer.setdefault(c, set()) for c in client.which.customers]

    def _clients(self) -> set[Client]:
        return self._broad.union(*self._by_customer.values())
