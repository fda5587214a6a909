"""The set of models that a process scores with, taken from the registry again while it runs."""

import contextlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import Lock

from features.engine import Engine
from models.anomaly import ANOMALY
from models.model_set import Models
from models.registry import NAMES, SEGMENTS, ModelRegistry
from models.roles import Roles, identity, of_identity
from models.segments import SegmentModel
from schemas.errors import ModelError

_KEPT = 8


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a look at the registry came to.

    Attributes:
        taken: Whether another set is in use now.
        refused: Why the set that the registry names is not; `None` where it is.
    """

    taken: bool = False
    refused: ModelError | None = None


class ModelsInUse:
    """Holds one whole set and replaces it as a whole: whoever takes `current` keeps what it took.

    Args:
        registry: Names the versions and has them.
        engine: Feeds them.
        shadows: Whether shadows score here too.

    Attributes:
        refused: Why the set of the start is not the one that the registry names, if it is not: a challenger,
            a shadow or an anomaly model that cannot be used is no reason to score nothing.

    Raises:
        ModelError: A champion is missing or does not fit.
    """

    def __init__(self, registry: ModelRegistry, engine: Engine, *, shadows: bool = True) -> None:
        self._registry = registry
        self._engine = engine
        self._shadows = shadows
        self._kept: OrderedDict[str, tuple[str, Models]] = OrderedDict()
        self._loading = Lock()
        self._segments_version = ""
        self.segments: SegmentModel | None = None
        self.refused: ModelError | None = None
        self.current = self._first(self._wanted())

    def refresh(self) -> Refreshed:
        """Take the set that the registry names, if it is another one and can be used.

        One that cannot be used changes nothing. Reads files: not for an event loop's own thread.
        """
        try:
            wanted = self._wanted()
            if identity(wanted) == self.current.identity:
                return Refreshed()
            self.current = self._load(wanted, fresh=True)
        except ModelError as refused:
            return Refreshed(refused=refused)
        return Refreshed(taken=True)

    def refresh_segments(self) -> Refreshed:
        """Take the segments that the registry names, if they are others and can be used.

        Nothing else needs them: what cannot be used leaves those that were there, or none.
        """
        try:
            version = self._registry.champion(SEGMENTS) if self._registry.versions(SEGMENTS) else ""
            if version == self._segments_version:
                return Refreshed()
            self.segments = self._registry.load_segments(self._engine)
        except ModelError as refused:
            return Refreshed(refused=refused)
        self._segments_version = version
        return Refreshed(taken=True)

    def named(self, text: str) -> Models:
        """The set with this identity, loaded if it is not here; as this process knew it if it is.

        Raises:
            ModelError: It is not in the registry any more, or cannot be used.
        """
        return self._load(of_identity(text), fresh=False)

    def _wanted(self) -> dict[str, Roles]:
        roles = self._registry.roles_in_use()
        return roles if self._shadows else {name: replace(r, shadows=()) for name, r in roles.items()}

    def _first(self, wanted: dict[str, Roles]) -> Models:
        """What is wanted; where that cannot be used, the champions and what can be used beside them."""
        try:
            return self._load(wanted, fresh=True)
        except ModelError as refused:
            self.refused = refused
        usable = {name: Roles(wanted[name].champion) for name in NAMES}
        models = self._load(usable, fresh=True)

        def add(more: dict[str, Roles]) -> None:
            nonlocal models, usable
            with contextlib.suppress(ModelError):
                models = self._load(usable | more, fresh=True)
                usable |= more

        for name in NAMES:
            if challenger := wanted[name].challenger:
                add({name: usable[name].challenged(challenger, wanted[name].share)})
            for shadow in wanted[name].shadows:
                add({name: usable[name].shadowed(shadow)})
        if ANOMALY in wanted:
            add({ANOMALY: wanted[ANOMALY]})
        return models

    def _load(self, roles: dict[str, Roles], *, fresh: bool) -> Models:
        if roles.keys() - {ANOMALY} != set(NAMES):
            raise ModelError(f"a set of models has {' and '.join(NAMES)}, not {', '.join(roles) or 'none'}")
        text = identity(roles)
        with self._loading:
            kept = self._kept.get(text)
            # Versions never change, but a folder can be replaced by another of the same name.
            if kept is None or (fresh and kept[0] != self._registry.digest(roles)):
                kept = self._registry.digest(roles), self._registry.load_set(roles, self._engine)
            self._kept[text] = kept
            self._kept.move_to_end(text)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return kept[1]
