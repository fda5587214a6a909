"""Which set of models scores a part, and the look at the registry that changes it while the worker runs."""

import asyncio
import contextlib
from typing import Protocol

import structlog

from features.ports import Commit
from models.in_use import ModelsInUse
from models.model_set import Models
from schemas.errors import ModelError
from schemas.topics import TRANSACTIONS
from stream_app.delivery import Delivery
from stream_app.partition import Partition

_log = structlog.get_logger()


class Signs(Protocol):
    """Shows what became of a look."""

    def models_taken(self, models: Models) -> None:
        """Another set is in use."""
        ...

    def models_refused(self, refused: bool) -> None:
        """Whether the registry names a set that cannot be used."""
        ...


class ModelWatch:
    """Looks at the registry every so often, and at once when told to.

    Scoring never waits for it: what is loaded is loaded in a thread, and a part keeps the set that it took.

    Args:
        in_use: Holds the set.
        signs: Where it is shown.
        every_s: Seconds between looks.
    """

    def __init__(self, in_use: ModelsInUse, signs: Signs, every_s: float) -> None:
        self._in_use = in_use
        self._signs = signs
        self._every_s = every_s
        self._now = asyncio.Event()
        self._said = ""

    def look_now(self) -> None:
        """Do not wait for the next look; for a signal handler of the event loop."""
        self._now.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._now.wait(), self._every_s)
            self._now.clear()
            await self.look()

    async def look(self) -> None:
        """Look once."""
        refused: Exception | None
        try:
            found = await asyncio.to_thread(self._in_use.refresh)
            if found.taken:
                models = self._in_use.current
                self._signs.models_taken(models)
                _log.info("models taken into use", models=models.identity)
            refused = found.refused
        except Exception as error:
            # Whatever somebody puts into a registry: the next look comes.
            refused = error
        self._signs.models_refused(refused is not None)
        said = "" if refused is None else str(refused) or repr(refused)
        if said and said != self._said:
            _log.error("models refused, the old ones go on", error=said)
        self._said = said


class Sets(Protocol):
    """Sets of models: `models.in_use.ModelsInUse`."""

    @property
    def current(self) -> Models:
        """The set in use."""
        ...

    def named(self, text: str) -> Models:
        """The set with this identity; raises `ModelError` where there is none any more."""
        ...


class PartitionModels:
    """The set that scores what is next of a partition.

    The state says which set that is, and says so before anything is published with it. So a part that was
    published, or published in half, and not committed is scored again by the very same versions, whatever
    was put into use meanwhile.

    Args:
        in_use: Holds the set that is in use.
        delivery: The shared steps.
    """

    def __init__(self, in_use: Sets, delivery: Delivery) -> None:
        self._in_use = in_use
        self._delivery = delivery

    async def take(self, partition: Partition) -> Models:
        """The set for the part that is next.

        Raises:
            LeaseLost: The partition is not ours any more.
            StoreRolledBack: The store is not where the partition is.
        """
        lease, current = partition.require_lease(), self._in_use.current
        if lease.models == current.identity:
            return current
        here = partition.next_offset(TRANSACTIONS.name) or 0
        if lease.models and here < partition.models_until:
            try:
                return await asyncio.to_thread(self._in_use.named, lease.models)
            except ModelError as gone:
                _log.warning("models of the last commit are gone", error=str(gone), models=lease.models)
        stored = lease.next_offsets.get(TRANSACTIONS.name)
        await self._delivery.commit(
            partition, Commit(TRANSACTIONS.name, stored, here, models=current.identity)
        )
        lease.models = current.identity
        partition.advance(TRANSACTIONS.name, here)
        return current
