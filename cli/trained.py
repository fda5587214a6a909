"""A kept model together with the engine it was trained on."""

from pathlib import Path

from features.engine import Engine
from features.lifetime import customer_names
from infra.feature_file import load_engine
from models.registry import ModelRegistry
from models.tree import ModelCard, TreeModel
from schemas.errors import ConfigError


def engine_of(card: ModelCard, features: Path | None = None) -> Engine:
    """The engine that a model was trained on.

    Args:
        card: Of the model; it says which entities were on.
        features: YAML file of the bank's own declarations.

    Raises:
        ConfigError: This program, with these declarations, has another one.
    """
    engine = load_engine(features, str(card.data.get("entities", "")))
    if card.features_hash != engine.hash:
        raise ConfigError(
            f"{card.name} {card.version} was trained on feature declarations {card.features_hash}, this "
            f"program runs {engine.hash}: give --features as it was, or train it again (tidegate train "
            f"{card.name})"
        )
    return engine


def load_trained(
    registry: ModelRegistry, name: str, version: str = "", features: Path | None = None
) -> tuple[TreeModel, Engine]:
    """A version of a model, the champion without one, and its engine.

    Raises:
        ModelError: It is missing or damaged.
        ConfigError: See `engine_of`.
    """
    card = registry.card(name, version or registry.champion(name))
    engine = engine_of(card, features)
    return registry.load(name, customer_names(engine), card.version), engine
