"""What labels teach in the registry: versions and roles."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from structlog.testing import capture_logs

from features.attributes import attribute_features
from features.codes import transaction_hash
from features.definitions import DAY_MS
from features.engine import Engine
from infra import label_learner
from infra.label_learner import LabelLearner, Plan
from infra.learning_metrics import LearningMetrics
from infra.memory_store import MemoryHistoryStore
from infra.retried import Stopped
from models.label_learning import Finding, Findings, LabelLearning
from models.registry import ModelRegistry
from schemas.errors import DependencyError, ModelError
from schemas.fields import to_rfc3339
from schemas.label import Label


@pytest.fixture
def kept(registry, tmp_path):
    shutil.copytree(registry._root, tmp_path / "models")
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def learning(models, training_data):
    found = LabelLearning(models.fraud, 7 * DAY_MS)
    X = training_data.X.astype(np.float64)
    found.see(X)
    found.learn(
        [Finding(0, n, "c", transaction_hash(str(n)), n % 2 == 0) for n in range(50)], X[:50], [0] * 50
    )
    assert found.frauds == 25
    return found


def learner(kept, engine, metrics=None, **plan):
    async def partitions():
        return 4

    store = MemoryHistoryStore()
    return LabelLearner("127.0.0.1:1", store, kept, engine, Plan(**plan), metrics, partitions=partitions)


def test_what_was_learned_is_the_champion_and_rolls_back_to_the_trees_alone(kept, engine, learning):
    mine = learner(kept, engine, role="champion", labels=20)
    mine._put_into_use(learning)
    assert (kept.champion("fraud"), mine.learned.versions) == ("v2", ("v2",))
    assert kept.load("fraud", engine.names).correction is not None
    assert mine._base().version == "v1"
    learning.frauds += 20
    mine._put_into_use(learning)
    assert kept.champion("fraud") == "v3"
    assert kept.roll_back("fraud").champion == "v1", "not to the version before, which is of the same trees"


def test_a_version_is_made_of_so_many_new_frauds(kept, engine, learning):
    mine = learner(kept, engine, role="champion", labels=20)
    for frauds, versions in ((19, 0), (25, 1), (44, 1), (45, 2)):
        learning.frauds = frauds
        mine._put_into_use(learning)
        assert len(mine.learned.versions) == versions


def test_one_that_was_started_again_replaces_nothing_that_knows_more(kept, engine, learning):
    learner(kept, engine, role="champion", labels=20)._put_into_use(learning)
    again = learner(kept, engine, role="champion", labels=20)
    for frauds, versions in ((25, 0), (44, 0), (45, 1)):
        learning.frauds = frauds
        again._put_into_use(learning)
        assert len(again.learned.versions) == versions


def test_what_somebody_else_put_into_use_stays(kept, engine, learning, models):
    mine = learner(kept, engine, role="champion", labels=20)
    trained = kept.save(replace(models.fraud.card, created_at="2026-02-01T00:00:00.000Z"), models.fraud.trees)
    kept.promote("fraud", trained.version)
    mine._put_into_use(learning)
    assert (kept.champion("fraud"), mine.learned.versions) == (trained.version, ())
    assert mine._base().version == trained.version


def test_one_shadow_is_of_what_labels_teach_and_others_stay(kept, engine, learning, models):
    other = kept.save(models.fraud.card, models.fraud.trees).version
    kept.shadow("fraud", other)
    mine = learner(kept, engine, labels=20)
    for _ in range(2):
        mine._put_into_use(learning)
        learning.frauds += 20
    assert kept.roles("fraud").shadows == (other, "v4")
    assert kept.champion("fraud") == "v1"


def test_a_challenger_gets_its_share_and_another_one_stays(kept, engine, learning, models):
    mine = learner(kept, engine, role="challenger", share=0.2, labels=20)
    mine._put_into_use(learning)
    roles = kept.roles("fraud")
    assert (roles.champion, roles.challenger, roles.share) == ("v1", "v2", 0.2)
    other = kept.save(models.fraud.card, models.fraud.trees).version
    kept.challenge("fraud", other, 0.1)
    learning.frauds += 20
    mine._put_into_use(learning)
    assert kept.roles("fraud").challenger == other


def test_a_registry_that_cannot_be_written_is_tried_again(kept, engine, learning, monkeypatch):
    mine = learner(kept, engine, role="champion", labels=20)
    with monkeypatch.context() as broken:
        broken.setattr(kept, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        mine._put_into_use(learning)
    assert kept.champion("fraud") == "v1"
    mine._put_into_use(learning)
    assert kept.champion("fraud") == "v2"


def test_a_model_of_other_declarations_is_not_learned_beside(kept, engine, models):
    saved = kept.save(replace(models.fraud.card, features_hash="0" * 16), models.fraud.trees)
    kept.promote("fraud", saved.version)
    with pytest.raises(ModelError, match="start it with the declarations, entities and attributes"):
        learner(kept, engine)._base()


async def test_whoever_waits_for_a_dependency_hears_that_it_is_to_end(kept, engine):
    mine = learner(kept, engine)

    async def call():
        mine.stop()
        raise DependencyError("away")

    with pytest.raises(Stopped):
        await mine._retried("redis", call)


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


def test_a_model_that_reads_attributes_is_not_learned_beside(kept, models):
    engine = Engine(attributes=attribute_features("risk"))
    card = replace(models.fraud.card, features_hash=engine.hash, data={"attributes": "risk"})
    kept.promote("fraud", kept.save(card, models.fraud.trees).version)
    with pytest.raises(ModelError, match=r"reads attributes .*\(risk\).* retrain learns from a file"):
        learner(kept, engine)._base()


async def test_a_withdrawn_fraud_of_the_days_of_training_is_learned_as_genuine(
    kept, engine, models, training_data, monkeypatch
):
    """The trees have not learned of it, but what was learned from its label since has."""
    delay_ms = 7 * DAY_MS
    trees_to_ms = models.fraud.card.trees_to_ms
    learning = LabelLearning(models.fraud, delay_ms, memory=kept.memory(models.fraud.card))
    X = training_data.X.astype(np.float64)
    learning.see(X)
    findings = Findings(delay_ms, trees_to_ms)
    asked = []

    async def vectors_of(due, store, engine):
        asked.extend((finding.fraud, finding.known_ms) for finding in due)
        return due, X[: len(due)], np.full(len(due), trees_to_ms - DAY_MS)

    monkeypatch.setattr(label_learner, "vectors_of", vectors_of)
    mine = learner(kept, engine)
    for day, word in ((1, "fraud"), (2, "genuine")):
        known_ms = trees_to_ms + delay_ms + day * DAY_MS
        findings.reported(Label(customer_id="c", transaction_id="t", label=word, label_time=known_ms))
        findings.scored("c", "x", known_ms)
        await mine._learn(findings, learning, delay_ms)
    assert [fraud for fraud, _ in asked if fraud] == [True]
    assert (learning.frauds, learning.genuine) == (1, 1)


async def test_the_log_says_since_when_labels_are_learned(kept, engine, monkeypatch):
    class Away:
        def __init__(self, *_, **__): ...

        async def start(self):
            raise DependencyError("nobody is there")

        async def stop(self): ...

    monkeypatch.setattr(label_learner, "LabelTopics", Away)
    mine = learner(kept, engine)
    mine.stop()
    with capture_logs() as said, pytest.raises(Stopped):
        await mine._follow(mine._base(), True)
    (line,) = [line for line in said if line["event"] == "learning from labels"]
    known_ms = kept.card("fraud", "v1").trees_to_ms
    assert line["known_since"] == to_rfc3339(datetime.fromtimestamp(known_ms / 1000, UTC))
