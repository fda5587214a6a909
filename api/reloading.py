"""Models put into use in the registry are taken by a running API process, without anybody asking it."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from api.deps import Services
from models.model_set import Models
from models.segments import SegmentModel
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
        load: Callable[[], tuple[Models, SegmentModel | None]],
        taken: Callable[[Models], None],
        refused: Callable[[bool], None],
        every_s: float,
    ) -> None:
        self._tenants = tenants
        self._load = load
        self._taken = taken
        self._refused = refused
        self._every_s = every_s
        self._shown: Models | None = None
        self._said = ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        try:
            models, segments = await asyncio.to_thread(self._load)
        except ModelError as error:
            self._refused(True)
            if str(error) != self._said:
                _log.error("models refused, the old ones go on", error=str(error))
            self._said = str(error)
            return
        self._refused(False)
        self._said = ""
        changed = False
        for given in self._tenants:
            if given.models is not models or given.segments is not segments:
                given.models, given.segments, given.loaded_at = models, segments, given.now()
                changed = True
        if changed:
            self._taken(models)
            _log.info("models taken into use", models=models.identity)
