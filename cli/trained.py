"""A kept model together with the engine it was trained on."""

from pathlib import Path

from cli.file_log import engine_of
from features.engine import Engine
from features.lifetime import customer_names
from models.registry import ModelRegistry
from models.tree import TreeModel


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
