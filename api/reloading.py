"""Models put into use in the registry are taken by a running API process, without anybody asking it."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from api.deps import Loaded, Services
from models.model_set import Models
from schemas.errors import ModelError

_log = structlog.get_logger()


class ModelReload:
    """Looks at the registry every so often and hands new models to every tenant.

    Args:
        tenants: What routes use; a request under way keeps the models that it took.
        load: Gives the models that the registry names; loads only what is not in use yet.
        taken: Told of each other set.
        refused: Told whether the registry names a model that cannot be used.
        every_s: Seconds between looks.
    """

    def __init__(
        self,
        tenants: Collection[Services],
        load: Callable[[], Loaded],
        taken: Callable[[Models], None],
        refused: Callable[[bool], None],
        every_s: float,
    ) -> None:
        self._tenants = tenants
        self._load = load
        self._taken = taken
        self._refused = refused
        self._every_s = every_s
        first = next(iter(tenants))
        self._shown = Loaded(first.models, first.segments)
        self._said = ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        refused: Exception | None
        try:
            refused = await self._take()
        except Exception as error:
            # Whatever somebody puts into a registry: the next look comes.
            refused = error
        self._refused(refused is not None)
        said = "" if refused is None else str(refused) or repr(refused)
        if said and said != self._said:
            _log.error("models refused, the old ones go on", error=said)
        self._said = said

    async def _take(self) -> ModelError | None:
        loaded = await asyncio.to_thread(self._load)
        for given in self._tenants:
            if given.models is not loaded.models or given.segments is not loaded.segments:
                given.models, given.segments, given.loaded_at = loaded.models, loaded.segments, given.now()
        # Not by the tenants: one may have been told to take them at once.
        if loaded.models is not self._shown.models or loaded.segments is not self._shown.segments:
            self._taken(loaded.models)
            self._shown = loaded
            _log.info("models taken into use", models=loaded.models.identity)
        return loaded.refused
