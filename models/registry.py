"""Models on disk: one folder a version, and which of them is in use.

fraud/v3/card.json   what is known of the model
fraud/v3/trees.ubj   its trees
fraud/champion       the version in use

Segments have centres.json in the place of trees.
"""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from features.engine import Engine
from models.pipeline import Models
from models.segments import SegmentModel
from models.tree import ModelCard, TreeModel
from schemas.errors import ModelError

NAMES = ("fraud", "churn")
SEGMENTS: Final = "segments"
_ARTEFACTS: Final = {SEGMENTS: "centres.json"}
_TREES: Final = "trees.ubj"
_THRESHOLDS: Final = {"fraud": ("review", "block"), "churn": ("medium", "high")}
_CARD: Final = TypeAdapter(ModelCard)


class ModelRegistry:
    """A folder of models.

    Args:
        root: The folder; made when the first model is saved.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, card: ModelCard, trees: bytes) -> ModelCard:
        """Keep a model under the next version of its name; returns its card with that version."""
        number = 1 + max((int(v[1:]) for v in self.versions(card.name)), default=0)
        card = replace(card, version=f"v{number}", trees_sha256=sha256(trees).hexdigest())
        folder = self._root / card.name / card.version
        partial = folder.with_name(f".{card.version}.{os.getpid()}")
        partial.mkdir(parents=True)
        (partial / _ARTEFACTS.get(card.name, _TREES)).write_bytes(trees)
        (partial / "card.json").write_text(json.dumps(asdict(card), indent=2) + "\n")
        # Renamed when whole: a reader never finds half a model.
        partial.rename(folder)
        return card

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        folder = self._root / name
        found = [p.name for p in folder.iterdir() if re.fullmatch(r"v\d+", p.name)] if folder.is_dir() else []
        return sorted(found, key=lambda v: int(v[1:]))

    def champion(self, name: str) -> str:
        """Version in use.

        Raises:
            ModelError: None was ever promoted.
        """
        pointer = self._root / name / "champion"
        if not pointer.is_file():
            raise ModelError(
                f"there is no {name} model in {self._root}: train one with 'tidegate train {name}', "
                "or point TIDEGATE_MODELS at the folder that has one"
            )
        return pointer.read_text().strip()

    def promote(self, name: str, version: str) -> None:
        """Put a version into use.

        Raises:
            ModelError: There is no such version.
        """
        if version not in self.versions(name):
            raise ModelError(
                f"there is no {name} model {version}; there are {', '.join(self.versions(name)) or 'none'}"
            )
        pointer = self._root / name / "champion"
        partial = pointer.with_suffix(f".{os.getpid()}")
        partial.write_text(version + "\n")
        partial.replace(pointer)

    def card(self, name: str, version: str) -> ModelCard:
        """Card of a version.

        Raises:
            ModelError: It cannot be read.
        """
        path = self._root / name / version / "card.json"
        try:
            card = _CARD.validate_json(path.read_bytes())
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
        return card

    def load(self, name: str, feature_names: Sequence[str], version: str | None = None) -> TreeModel:
        """A model, by default the one in use.

        Raises:
            ModelError: It is missing, cannot be read, or needs features that are not declared.
        """
        card, trees = self._read(name, version)
        try:
            return TreeModel(card, trees, feature_names)
        except ValueError as bad:  # XGBoost's own error
            path = self._root / name / card.version / _TREES
            raise ModelError(f"{path} cannot be read as a model: {bad}") from bad

    def _read(self, name: str, version: str | None) -> tuple[ModelCard, bytes]:
        card = self.card(name, version or self.champion(name))
        path = self._root / name / card.version / _ARTEFACTS.get(name, _TREES)
        try:
            artefact = path.read_bytes()
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
        card, artefact = self._read(SEGMENTS, None)
        if card.features_hash != engine.hash:
            raise ModelError(
                f"model {card.name} {card.version} was trained on feature declarations {card.features_hash}, "
                f"this program runs {engine.hash}: train it again (tidegate train segments)"
            )
        return SegmentModel(card, artefact)

    def load_champions(self, engine: Engine) -> Models:
        """The models in use, checked against the engine that will feed them.

        Raises:
            ModelError: One is missing or does not fit.
        """
        return Models(engine, *(self.load(name, engine.names) for name in NAMES))


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
    if (folder / "champion").is_file():
        folder = folder.resolve()
        root, found = folder.parent, [folder.name]
    else:
        root, found = folder, [n for n in NAMES if (folder / n / "champion").is_file()]
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
