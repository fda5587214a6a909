"""Models that were kept: one folder of files a version, and which of them is in use for what.

fraud/v3/card.json   what is known of the model
fraud/v3/trees.ubj   its trees
fraud/v3/memory.npz  a sample of what they were trained on
fraud/roles.json     champion, challenger, shadows, and the champions before
fraud/roles.lock     held by who changes them

Segments have centres.json in the place of trees, an anomaly model has tails.npz.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from features.engine import Engine
from features.lifetime import customer_names
from models.anomaly import ALERT, ANOMALY, AnomalyModel
from models.drift import Reference
from models.model_set import Models
from models.relearning import Memory
from models.roles import Challenger, Roles, identity
from models.segments import SegmentModel
from models.store import FileModelStore, ModelStore, VersionTaken
from models.tree import ModelCard, TreeModel
from schemas.errors import ModelError
from schemas.score import Role

NAMES = ("fraud", "churn")
SEGMENTS: Final = "segments"
_ARTEFACTS: Final = {SEGMENTS: "centres.json", ANOMALY: "tails.npz"}
_TREES: Final = "trees.ubj"
_MEMORY: Final = "memory.npz"
_CARD_FILE: Final = "card.json"
_THRESHOLDS: Final = {"fraud": ("review", "block"), "churn": ("medium", "high"), ANOMALY: (ALERT,)}
_CARD: Final = TypeAdapter(ModelCard)


class ModelRegistry:
    """Models, their versions and their roles.

    Args:
        root: The folder; made when the first model is saved.
        store: Where models are, in the place of a folder.
    """

    def __init__(self, root: Path, store: ModelStore | None = None) -> None:
        self._root = root
        self._store: ModelStore = store or FileModelStore(root)

    def save(self, card: ModelCard, trees: bytes, memory: Memory | None = None) -> ModelCard:
        """Keep a model under the next version of its name; returns its card with that version.

        Args:
            card: Its card.
            trees: Its artefact.
            memory: Of what it was trained on, for who goes on learning.
        """
        files = {_ARTEFACTS.get(card.name, _TREES): trees}
        if memory is not None:
            files[_MEMORY] = memory.to_bytes()
        while True:
            version = self._store.next_version(card.name)
            card = replace(card, version=version, trees_sha256=sha256(trees).hexdigest())
            said = (json.dumps(asdict(card), indent=2) + "\n").encode()
            try:
                self._store.put(card.name, card.version, {**files, _CARD_FILE: said})
            except VersionTaken:
                continue
            return card

    def check_writable(self, name: str) -> None:
        """Try whether a model could be saved, before hours of training.

        Raises:
            ModelError: It could not.
        """
        self._store.check_writable(name)

    def memory(self, card: ModelCard) -> Memory | None:
        """What is kept of what a version was trained on; `None` for nothing.

        Raises:
            ModelError: It cannot be read.
        """
        path = self._store.where(card.name, card.version, _MEMORY)
        try:
            kept = self._store.read(card.name, card.version, _MEMORY)
            return Memory.of_bytes(kept, len(card.feature_names))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as bad:
            raise ModelError(f"{path} cannot be read: {bad}") from bad

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        return self._store.versions(name)

    def roles(self, name: str) -> Roles:
        """Which versions are in use for what.

        Raises:
            ModelError: That cannot be read.
        """
        return self._store.roles(name)

    def champion(self, name: str) -> str:
        """Version in use.

        Raises:
            ModelError: None was ever promoted.
        """
        champion = self.roles(name).champion
        if not champion:
            raise ModelError(
                f"there is no {name} model in {self._store.where()}: train one with 'tidegate train {name}', "
                "or point TIDEGATE_MODELS at the folder that has one"
            )
        return champion

    def promote(self, name: str, version: str) -> Roles:
        """Put a version into use; the one before is remembered.

        Raises:
            ModelError: There is no such version, or its files are damaged.
        """
        return self._changed(name, version, lambda roles: roles.promoted(version))

    def carry_on(self, name: str, version: str) -> Roles:
        """Put a version into use that goes on where the champion was; that one is not remembered.

        Raises:
            ModelError: There is no such version, or its files are damaged.
        """
        return self._changed(name, version, lambda roles: roles.continued(version))

    def challenge(self, name: str, version: str, share: float) -> Roles:
        """Have a version score a share of the customers in the champion's place.

        Raises:
            ModelError: There is no such version, it is damaged or the champion, or the share is none.
        """
        return self._changed(name, version, lambda roles: roles.challenged(version, share))

    def shadow(self, name: str, version: str) -> Roles:
        """Have a version score beside the champion, for `scores.shadow`.

        Raises:
            ModelError: There is no such version, or it is damaged or the champion.
        """
        return self._changed(name, version, lambda roles: roles.shadowed(version))

    def retire(self, name: str, version: str) -> Roles:
        """Take the role of challenger or shadow from a version; of an anomaly model that of the champion.

        Raises:
            ModelError: It has neither.
        """
        with self._store.changing(name):
            roles = self.roles(name)
            if name == ANOMALY and version and roles.champion == version:
                # Nothing needs it.
                now = replace(roles, champion="")
            elif roles.of(version) in ("challenger", "shadow"):
                now = roles.without(version)
            else:
                raise ModelError(f"{name} {version} is neither challenger nor shadow")
            self._store.assign(name, now)
        return now

    def roll_back(self, name: str) -> Roles:
        """Put the champion before this one into use again.

        Raises:
            ModelError: There was none, or its files are damaged.
        """
        with self._store.changing(name):
            roles = self.roles(name).rolled_back()
            try:
                return self._assign(name, roles.champion, roles)
            except ModelError as bad:
                raise ModelError(
                    f"{bad}; put another version into use by its name (tidegate models promote {name})"
                ) from bad

    def give_roles(self, name: str, version: str, change: Callable[[Roles], Roles | None]) -> Roles | None:
        """Change roles by what they are at that moment: nobody else changes them in between.

        Args:
            name: The model.
            version: Must be there and whole.
            change: The new roles, or `None` to leave them.

        Raises:
            ModelError: There is no such version, or its files are damaged.
        """
        with self._store.changing(name):
            roles = change(self.roles(name))
            return None if roles is None else self._assign(name, version, roles)

    def _changed(self, name: str, version: str, change: Callable[[Roles], Roles]) -> Roles:
        with self._store.changing(name):
            return self._assign(name, version, change(self.roles(name)))

    def _assign(self, name: str, version: str, roles: Roles) -> Roles:
        if version not in self.versions(name):
            raise ModelError(
                f"there is no {name} model {version}; there are {', '.join(self.versions(name)) or 'none'}"
            )
        self._read(name, version)
        self._store.assign(name, roles)
        return roles

    def card(self, name: str, version: str) -> ModelCard:
        """Card of a version.

        Raises:
            ModelError: It cannot be read.
        """
        path = self._store.where(name, version, _CARD_FILE)
        try:
            card = _CARD.validate_json(self._store.read(name, version, _CARD_FILE))
        except OSError as bad:
            raise ModelError(f"{path} cannot be read as a model card: {bad}") from bad
        except ValidationError as bad:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in bad.errors())
            raise ModelError(f"{path} cannot be read as a model card: {wrong}") from bad
        if (card.name, card.version) != (name, version):
            raise ModelError(f"{path} is the card of {card.name} {card.version}, not of {name} {version}")
        missing = [t for t in _THRESHOLDS.get(name, ()) if t not in card.thresholds]
        if missing:
            raise ModelError(f"{path} cannot be used: it has no threshold {' and no '.join(missing)}")
        if not all(map(math.isfinite, (card.slope, card.intercept, *card.thresholds.values()))):
            raise ModelError(f"{path} cannot be used: calibration and thresholds must be finite numbers")
        try:
            # What is read of it only once it is in use.
            datetime.fromisoformat(card.created_at)
            Reference(card)
            int(card.learned_to_ms)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as bad:
            raise ModelError(f"{path} cannot be used: {bad!r}") from bad
        return card

    def digest(self, roles: Mapping[str, Roles]) -> str:
        """Tells models from others of the same names, where somebody put other files in their place.

        Raises:
            ModelError: One is missing or damaged.
        """
        found = sha256()
        for name, those in sorted(roles.items()):
            for version in filter(None, (those.champion, those.challenger, *those.shadows)):
                card, _ = self._read(name, version)
                found.update(repr(card).encode())
        return found.hexdigest()

    def load(
        self, name: str, feature_names: Sequence[str], version: str | None = None, role: Role = "champion"
    ) -> TreeModel:
        """A model, by default the one in use.

        Raises:
            ModelError: It is missing, cannot be read, or needs features that are not declared.
        """
        card, trees = self._read(name, version or self.champion(name))
        path = self._store.where(name, card.version, _TREES)
        if unknown := Reference(card).features.keys() - set(feature_names):
            raise ModelError(f"{path} cannot be used: its card describes {', '.join(sorted(unknown))}")
        try:
            model = TreeModel(card, trees, feature_names, role)
        except ValueError as bad:  # XGBoost's own error
            raise ModelError(f"{path} cannot be read as a model: {bad}") from bad
        rows = _trial(len(feature_names))
        self._try(path, lambda: (model.predict_proba(rows), model.contributions(rows)))
        return model

    def _try(self, path: str, score: Callable[[], object]) -> None:
        """What loads and cannot score would end every worker that took it."""
        try:
            score()
        except Exception as bad:
            raise ModelError(f"{path} cannot score: {bad}") from bad

    def _read(self, name: str, version: str) -> tuple[ModelCard, bytes]:
        card = self.card(name, version)
        file = _ARTEFACTS.get(name, _TREES)
        path = self._store.where(name, card.version, file)
        try:
            artefact = self._store.read(name, card.version, file)
        except OSError as bad:
            raise ModelError(f"{path} cannot be read as a model: {bad}") from bad
        # Before XGBoost sees it: from damaged trees it may hang, abort the process, or score nonsense.
        if sha256(artefact).hexdigest() != card.trees_sha256:
            raise ModelError(f"{path} is damaged: it is not what was saved with its card")
        return card, artefact

    def load_segments(self, engine: Engine) -> SegmentModel | None:
        """The segments in use; `None` where none were ever trained.

        Raises:
            ModelError: They cannot be read, or were made of other declarations.
        """
        if not self.versions(SEGMENTS):
            return None
        card, artefact = self._read(SEGMENTS, self.champion(SEGMENTS))
        if card.features_hash != engine.hash:
            raise self._of_others(card, engine)
        return SegmentModel(card, artefact)

    def load_champions(self, engine: Engine) -> Models:
        """The champions alone, checked against the engine that will feed them.

        Raises:
            ModelError: One is missing or does not fit.
        """
        return self.load_set({n: Roles(r.champion) for n, r in self.roles_in_use().items()}, engine)

    def roles_in_use(self) -> dict[str, Roles]:
        """The roles of all that score the stream; of an anomaly model only where one is in use.

        Raises:
            ModelError: One has no champion, or cannot be read.
        """
        for name in NAMES:
            self.champion(name)
        roles = {name: self.roles(name) for name in (*NAMES, ANOMALY)}
        return {name: found for name, found in roles.items() if found.champion}

    def load_set(self, roles: Mapping[str, Roles], engine: Engine) -> Models:
        """Models by their roles, checked against the engine that will feed them.

        Raises:
            ModelError: One is missing or does not fit.
        """

        def load(name: str, version: str, role: Role) -> TreeModel:
            return self.load(name, customer_names(engine), version, role)

        return Models(
            engine,
            load("fraud", roles["fraud"].champion, "champion"),
            load("churn", roles["churn"].champion, "champion"),
            challengers={
                name: Challenger(load(name, roles[name].challenger, "challenger"), roles[name].share)
                for name in NAMES
                if roles[name].challenger
            },
            shadows={name: tuple(load(name, v, "shadow") for v in roles[name].shadows) for name in NAMES},
            identity=identity(roles),
            anomaly=self.load_anomaly(roles[ANOMALY].champion, engine) if ANOMALY in roles else None,
        )

    def load_anomaly(self, version: str, engine: Engine) -> AnomalyModel:
        """A version of the anomaly model.

        Raises:
            ModelError: It is missing, cannot be read, or was trained on other declarations.
        """
        model = AnomalyModel(*self._read(ANOMALY, version), engine.names)
        if model.card.features_hash != engine.hash:
            raise self._of_others(model.card, engine)
        path = self._store.where(ANOMALY, version, _ARTEFACTS[ANOMALY])
        self._try(path, lambda: model.score(_trial(len(engine.names))))
        return model

    def _of_others(self, card: ModelCard, engine: Engine) -> ModelError:
        return ModelError(
            f"model {card.name} {card.version} was trained on feature declarations {card.features_hash}, "
            f"this program runs {engine.hash}: train it again (tidegate train {card.name})"
        )


def _trial(columns: int) -> npt.NDArray[np.float64]:
    return np.array([[np.nan] * columns, [0.0] * columns])


def find_model(folder: Path, name: str | None = None) -> tuple[Path, ModelCard]:
    """The model that a folder is about: of a registry, of one name in it, or of one version.

    Returns:
        The registry's root and the card.

    Raises:
        ModelError: There is none, or it takes a name to say which.
    """
    if (folder / "card.json").is_file():
        folder = folder.resolve()
        return folder.parents[1], ModelRegistry(folder.parents[1]).card(folder.parent.name, folder.name)
    if (folder / "roles.json").is_file():
        folder = folder.resolve()
        root, found = folder.parent, [folder.name]
    else:
        root, found = folder, [n for n in NAMES if (folder / n / "roles.json").is_file()]
    wanted = [n for n in found if name in (None, n)]
    if len(wanted) > 1:
        raise ModelError(f"{folder} holds models {' and '.join(wanted)}: say which with --name")
    if not wanted:
        raise ModelError(
            f"there is no {name or 'fraud or churn'} model in use in {folder}: train one with "
            f"'tidegate train {name or 'fraud'} --out {folder}', or name the folder that has one"
        )
    registry = ModelRegistry(root)
    return root, registry.card(wanted[0], registry.champion(wanted[0]))
