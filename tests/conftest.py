"""Settings and costly things that every test shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from features.engine import Engine
    from models.model_set import Models
    from models.registry import ModelRegistry
    from schemas.label import Label
    from schemas.transaction import Transaction
    from tests.postgres import PostgreSQL
    from tests.scoring import TrainingData

# `make properties` has the profile `ci` for the features' own properties.
settings.register_profile("short", max_examples=200, deadline=None)
settings.register_profile("ci", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("short")

# Imports are inside: tests of schemas should not wait for XGBoost.


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The catalogue's engine: its kernel takes seconds to compile."""
    from features.engine import Engine

    return Engine()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server without databases."""
    from tests.postgres import PostgreSQL

    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def bank_messages() -> Sequence[Transaction | Label]:
    """A small bank with much fraud and many leavers, in time order."""
    from tests import scoring

    return scoring.small_bank()


@pytest.fixture(scope="session")
def training_data(bank_messages: Sequence[Transaction | Label], engine: Engine) -> TrainingData:
    """The small bank, replayed."""
    from tests import scoring

    return scoring.replayed(bank_messages, engine)


@pytest.fixture(scope="session")
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    """Both models, trained and in use. Only to be read: tests that change one save their own.

    `TIDEGATE_TEST_MODELS` names a folder that keeps them, for whoever runs many tests one by one.
    """
    from models.registry import ModelRegistry
    from tests import scoring

    kept = os.environ.get("TIDEGATE_TEST_MODELS")
    if kept and Path(kept).is_dir():
        return ModelRegistry(Path(kept))
    root = Path(kept) if kept else tmp_path_factory.mktemp("models")
    data = request.getfixturevalue("training_data")
    return scoring.trained(data, request.getfixturevalue("engine"), root)


@pytest.fixture(scope="session")
def entity_registry(
    bank_messages: Sequence[Transaction | Label], tmp_path_factory: pytest.TempPathFactory
) -> ModelRegistry:
    """As `registry`, with features of merchants and devices."""
    from features.engine import Engine
    from features.entity_features import ENTITY_FEATURES
    from tests import scoring

    engine = Engine(entities=ENTITY_FEATURES)
    data = scoring.replayed(bank_messages, engine)
    return scoring.trained(data, engine, tmp_path_factory.mktemp("entity-models"))


@pytest.fixture(scope="session")
def entity_models(entity_registry: ModelRegistry) -> Models:
    """The models of `entity_registry`, loaded."""
    from features.engine import Engine
    from features.entity_features import ENTITY_FEATURES

    return entity_registry.load_champions(Engine(entities=ENTITY_FEATURES))


@pytest.fixture(scope="session")
def models(registry: ModelRegistry, engine: Engine) -> Models:
    """The models of `registry` as the worker and the API load them."""
    return registry.load_champions(engine)


@pytest.fixture(scope="session")
def eager(models: Models, training_data: TrainingData) -> Models:
    """The same models with thresholds that make every decision and band occur."""
    from tests import scoring

    return scoring.eager(models, training_data)


@pytest.fixture(scope="session")
def attributed(bank_messages: Sequence[Transaction | Label]) -> Models:
    """Models of a bank of which fraud has high risk, an attribute, and hardly anything else has."""
    from tests import scoring

    return scoring.attributed(bank_messages)
