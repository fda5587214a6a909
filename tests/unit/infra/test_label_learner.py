"""What labels teach in the registry: versions and roles."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from features.codes import transaction_hash
from infra.label_learner import LabelLearner, Plan
from infra.learning_metrics import LearningMetrics
from infra.memory_store import MemoryHistoryStore
from models.label_learning import Finding, LabelLearning
from models.registry import ModelRegistry
from schemas.errors import DependencyError, ModelError


@pytest.fixture
def kept(registry, tmp_path):
    shutil.copytree(registry._root, tmp_path / "models")
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def learning(models, training_data):
    found = LabelLearning(models.fraud, models.engine)
    X = training_data.X.astype(np.float64)
    found.see(X)
    found.learn([Finding(0, n, "c", transaction_hash(str(n)), n % 2 == 0) for n in range(50)], X[:50])
    return found


def learner(kept, engine, metrics=None, **plan):
    async def partitions():
        return 4

    store = MemoryHistoryStore()
    return LabelLearner("127.0.0.1:1", store, kept, engine, Plan(**plan), metrics, partitions=partitions)


def test_what_was_learned_is_the_champion_and_rolls_back_to_the_trees_alone(kept, engine, learning):
    mine = learner(kept, engine)
    mine._put_into_use(learning)
    assert (kept.champion("fraud"), mine.learned.versions) == ("v2", ("v2",))
    assert kept.load("fraud", engine.names).correction is not None
    assert mine._base().version == "v1"
    assert kept.roll_back("fraud").champion == "v1"


def test_one_shadow_is_of_what_labels_teach_and_others_stay(kept, engine, learning, models):
    other = kept.save(models.fraud.card, models.fraud.trees).version
    kept.shadow("fraud", other)
    mine = learner(kept, engine, role="shadow")
    for _ in range(2):
        mine._put_into_use(learning)
    assert kept.roles("fraud").shadows == (other, "v4")
    assert kept.champion("fraud") == "v1"


def test_a_challenger_gets_its_share(kept, engine, learning):
    mine = learner(kept, engine, role="challenger", share=0.2)
    mine._put_into_use(learning)
    roles = kept.roles("fraud")
    assert (roles.champion, roles.challenger, roles.share) == ("v1", "v2", 0.2)


def test_the_base_is_what_somebody_else_puts_into_use(kept, engine, learning, models):
    mine = learner(kept, engine)
    mine._put_into_use(learning)
    trained = kept.save(replace(models.fraud.card, created_at="2026-02-01T00:00:00.000Z"), models.fraud.trees)
    kept.promote("fraud", trained.version)
    assert mine._base().version == trained.version


def test_a_model_of_other_declarations_is_not_learned_beside(kept, engine, models):
    saved = kept.save(replace(models.fraud.card, features_hash="0" * 16), models.fraud.trees)
    kept.promote("fraud", saved.version)
    with pytest.raises(ModelError, match="start it with the declarations and entities of the worker"):
        learner(kept, engine)._base()


async def test_a_dependency_that_is_away_is_waited_for_and_counted(kept, engine):
    metrics, tries = LearningMetrics(), []

    async def call():
        tries.append(1)
        if len(tries) < 3:
            raise DependencyError("away")
        return "there"

    assert await learner(kept, engine, metrics)._retried("redis", call) == "there"
    counted = metrics.registry.get_sample_value("tidegate_retries_total", {"dependency": "redis"})
    assert (len(tries), counted) == (3, 2)
