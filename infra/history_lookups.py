"""Lookups of customers wherever they are: never of histories that hold less than there was."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from features.ports import CustomerState
from infra.gathered import Gathered
from infra.history_layout import HistoryLayout
from infra.history_server import HistoryServer
from infra.partitioning import partition_for
from infra.score_packing import ScorePacker
from schemas.errors import HistoryError, HistoryIncomplete

_STATUS: Final = ("epoch", "building")
_HISTORY: Final = ("h", "b")
_STATE: Final = ("h", "b", "p", "c")


class HistoryLookups:
    """Reads customers of all partitions.

    Whether their partitions are complete is read with them: a store that was emptied, or is being built,
    looks like one of customers who were never seen.

    Args:
        server: Runs commands.
        layout: Names keys.
        packer: Unpacks scores.
        partitions: Number of source partitions; `None` reads it from the store.
    """

    def __init__(
        self, server: HistoryServer, layout: HistoryLayout, packer: ScorePacker, partitions: int | None
    ) -> None:
        self._server = server
        self._layout = layout
        self._packer = packer
        self.known: int | None = partitions
        self._states: Gathered[str, CustomerState | None] = Gathered(self._read_states)

    async def partitions(self) -> int:
        """Number of source partitions.

        Raises:
            HistoryIncomplete: Nothing is stored, so there is no number.
        """
        if self.known is None:
            key = self._layout.shared_key("topology")
            stored = await self._server.call(lambda: self._server.redis.get(key))
            if stored is None:
                raise HistoryIncomplete("the store is empty: no worker has run against it yet")
            self.known = int(stored)
        return self.known

    async def histories(self, customer_ids: Sequence[str]) -> list[bytes | None]:
        """Stored histories of customers of any partition, in the order asked for."""
        found = await self._of(customer_ids, _HISTORY)
        return [joined(history, packed) for history, packed in map(_known, found)]

    async def any_complete(self, partitions: int) -> bool:
        """Whether customers of any partition are there."""

        async def read_all() -> list[Any]:
            pipe = self._server.redis.pipeline(transaction=False)
            for p in range(partitions):
                pipe.hmget(self._layout.key(p, "meta"), _STATUS)
            results: list[Any] = await pipe.execute()
            return results

        return any(
            epoch is not None and building is None for epoch, building in await self._server.call(read_all)
        )

    async def read(self, customer_id: str, scores: bool) -> CustomerState | None:
        """State of a customer; `None` for one never seen."""
        if not scores:
            return await self._states.get(customer_id)
        (found,) = await self._of([customer_id], _STATE, newest=True)
        history, packed, profile, churn, kept = _known(found)
        if history is None and profile is None:
            return None
        unpack = self._packer.unpack
        newest = [unpack(score) for score in kept]
        return CustomerState(
            joined(history, packed), newest, None if churn is None else unpack(churn), profile
        )

    async def _read_states(self, customer_ids: list[str]) -> list[CustomerState | HistoryIncomplete | None]:
        """States of customers without their scores, in the order asked for."""
        return [
            found if isinstance(found, HistoryIncomplete) else _state(*found)
            for found in await self._of(customer_ids, _STATE[:3])
        ]

    async def _of(
        self, customer_ids: Sequence[str], kinds: Sequence[str], *, newest: bool = False
    ) -> list[list[Any] | HistoryIncomplete]:
        """What is stored of customers: a value of each kind, and behind them the list of newest scores.

        An error in the place of a customer whose partition is being built, or is not there: it says nothing
        of the others.

        Raises:
            HistoryIncomplete: There is nothing at all.
        """
        if not customer_ids:
            return []
        key, topology = self._layout.key, self._layout.shared_key("topology")
        while True:
            partitions = await self.partitions()
            places: dict[int, list[int]] = defaultdict(list)
            for number, customer_id in enumerate(customer_ids):
                places[partition_for(customer_id, partitions)].append(number)

            async def read_all(places: dict[int, list[int]] = places) -> list[Any]:
                # One round trip: what is said of a partition is of the moment in which it is read.
                pipe = self._server.redis.pipeline(transaction=False)
                pipe.get(topology)
                for p, numbers in places.items():
                    pipe.hmget(key(p, "meta"), _STATUS)
                    pipe.mget([key(p, kind, customer_ids[n]) for n in numbers for kind in kinds])
                    for n in numbers if newest else ():
                        pipe.lrange(key(p, "s", customer_ids[n]), 0, -1)
                results: list[Any] = await pipe.execute()
                return results

            stored, *answers = await self._server.call(read_all)
            if stored is None:
                raise HistoryIncomplete("the store was emptied: run 'tidegate rebuild'")
            if int(stored) == partitions:
                break
            # Built again from another number of partitions: customers are elsewhere.
            self.known = int(stored)
        found: list[list[Any] | HistoryIncomplete] = [[]] * len(customer_ids)
        answer = iter(answers)
        for p, numbers in places.items():
            (epoch, building), values = next(answer), next(answer)
            for at, number in enumerate(numbers):
                of_one = values[len(kinds) * at : len(kinds) * (at + 1)]
                found[number] = [*of_one, next(answer)] if newest else of_one
                if epoch is None or building is not None:
                    found[number] = HistoryIncomplete(
                        f"histories of partition {p} are being built from the log"
                    )
        return found


def _known(found: list[Any] | HistoryIncomplete) -> list[Any]:
    if isinstance(found, HistoryIncomplete):
        raise found
    return found


def _state(history: bytes | None, packed: bytes | None, profile: bytes | None) -> CustomerState | None:
    if history is None and profile is None:
        return None
    return CustomerState(joined(history, packed), profile=profile)


def joined(history: bytes | None, packed: bytes | None) -> bytes | None:
    """A history with its packed block behind it."""
    return history if history is None or packed is None else history + packed


def require_whole(histories: Sequence[bytes | None], indexed: Sequence[float | None]) -> None:
    """Check that who was ever committed has a history: one that is gone looks like a customer never seen.

    Args:
        histories: As they were read.
        indexed: Times of the same customers' newest events, read before; `None` where there are none.

    Raises:
        HistoryError: One is gone. Going on would score and store what comes as if nothing had been before.
    """
    gone = sum(one is None and time is not None for one, time in zip(histories, indexed, strict=True))
    if gone:
        raise HistoryError(
            f"{gone} of {len(histories)} stored histories are gone, evicted or deleted by somebody else: set "
            "Redis's maxmemory-policy to noeviction and run 'tidegate rebuild'"
        )
