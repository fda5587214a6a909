import errno
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.registry import NAMES, ModelRegistry
from models.relearning import Memory
from models.tree import TreeModel
from schemas.errors import ModelError
from tests.scoring import rewrite


@pytest.fixture
def root(registry, tmp_path):
    """A copy that a test may break."""
    shutil.copytree(registry._root, tmp_path / "models")
    return tmp_path / "models"


def test_versions_grow_by_one(root, models):
    kept = ModelRegistry(root)
    numbers = [kept.save(models.fraud.card, models.fraud.trees).version for _ in range(10)]
    assert numbers == [f"v{n}" for n in range(2, 12)]
    assert kept.versions("fraud") == [f"v{n}" for n in range(1, 12)]
    assert kept.versions("churn") == ["v1"]
    shutil.rmtree(root / "fraud" / "v5")
    assert kept.save(models.fraud.card, models.fraud.trees).version == "v12"


def test_a_saved_model_is_read_back_whole(root, models):
    kept = ModelRegistry(root)
    card = replace(models.fraud.card, metrics={"average_precision": 0.25}, data={"source": "é"})
    saved = kept.save(card, models.fraud.trees)
    assert kept.card("fraud", "v2") == saved
    assert replace(saved, version="v1", trees_sha256=card.trees_sha256) == card
    loaded = kept.load("fraud", models.engine.names, "v2")
    assert loaded.trees == models.fraud.trees
    assert loaded.reference == {"name": "fraud", "version": "v2", "role": "champion"}


def test_a_folder_without_models_has_no_versions(tmp_path):
    assert ModelRegistry(tmp_path / "nothing").versions("fraud") == []


@pytest.mark.parametrize("step", ["write_bytes", "rename"])
def test_a_half_written_model_is_never_visible(root, models, monkeypatch, step):
    kept = ModelRegistry(root)

    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Path, step, crash)
        with pytest.raises(KeyboardInterrupt):
            kept.save(models.fraud.card, models.fraud.trees)
    assert kept.versions("fraud") == ["v1"]
    assert kept.champion("fraud") == "v1"
    assert kept.load("fraud", models.engine.names).reference["version"] == "v1"


def test_promote_changes_what_is_loaded_and_back(root, models):
    kept = ModelRegistry(root)
    kept.save(models.fraud.card, models.fraud.trees)
    assert kept.champion("fraud") == "v1"
    kept.promote("fraud", "v2")
    assert kept.load_champions(models.engine).fraud.reference["version"] == "v2"
    kept.promote("fraud", "v1")
    assert kept.load_champions(models.engine).fraud.reference["version"] == "v1"
    assert not [
        p.name for p in (root / "fraud").iterdir() if p.name not in {"v1", "v2", "roles.json", "roles.lock"}
    ]


@pytest.mark.parametrize("version", ["v2", "1", "", "../churn/v1", "champion", "V1"])
def test_a_version_that_is_not_there_cannot_be_promoted(root, version):
    with pytest.raises(ModelError, match=r"there is no fraud model .*; there are v1"):
        ModelRegistry(root).promote("fraud", version)
    assert ModelRegistry(root).champion("fraud") == "v1"


def test_promoting_where_nothing_was_saved_says_so(tmp_path):
    with pytest.raises(ModelError, match="there are none"):
        ModelRegistry(tmp_path).promote("fraud", "v1")


@pytest.mark.parametrize("name", NAMES)
def test_without_a_champion_the_command_that_makes_one_is_named(root, models, name):
    (root / name / "roles.json").unlink()
    with pytest.raises(ModelError, match=f"there is no {name} model in .*tidegate train {name}"):
        ModelRegistry(root).load_champions(models.engine)


@pytest.mark.parametrize(
    ("points_at", "file"),
    [
        ("v9", r"card\.json"),
        ("../fraud", r"roles\.json.*v1, v2"),
        ("v1\0", r"roles\.json"),
        ("v\ud800", "roles"),
    ],
)
def test_a_champion_that_is_not_there_names_the_file(root, models, points_at, file):
    rewrite(root / "fraud" / "roles.json", champion=points_at)
    with pytest.raises(ModelError, match=file):
        ModelRegistry(root).load("fraud", models.engine.names)


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"name": "fraud"}'],
)
def test_a_card_that_is_no_card_names_the_file(root, models, broken):
    card = root / "fraud" / "v1" / "card.json"
    card.write_bytes(broken)
    with pytest.raises(ModelError) as refused:
        ModelRegistry(root).load("fraud", models.engine.names)
    assert str(card) in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"slope": "steep"}, "slope"),
        ({"slope": None}, "slope"),
        ({"slope": float("nan")}, "finite"),
        ({"intercept": float("inf")}, "finite"),
        ({"thresholds": {"review": 0.5}}, "no threshold block"),
        ({"thresholds": {}}, "no threshold review and no block"),
        ({"thresholds": {"review": 0.5, "block": float("nan")}}, "finite"),
        ({"feature_names": "txn_count_1h"}, "feature_names"),
        ({"features_hash": 7}, "features_hash"),
        ({"name": "churn"}, "the card of churn v1, not of fraud v1"),
        ({"version": "v2"}, "the card of fraud v2, not of fraud v1"),
    ],
)
def test_a_card_that_cannot_be_used_says_what_is_wrong(root, models, changes, names):
    card = root / "fraud" / "v1" / "card.json"
    rewrite(card, **changes)
    with pytest.raises(ModelError) as refused:
        ModelRegistry(root).load_champions(models.engine)
    assert str(card) in str(refused.value)
    assert names in str(refused.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "one bit", "missing", "of another model"])
def test_damaged_trees_name_the_file_before_they_are_read(root, models, damage):
    trees = root / "fraud" / "v1" / "trees.ubj"
    whole = trees.read_bytes()
    if damage == "missing":
        trees.unlink()
    else:
        trees.write_bytes(
            {
                "cut": whole[: len(whole) // 2],
                "empty": b"",
                "one bit": whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
                "of another model": (root / "churn" / "v1" / "trees.ubj").read_bytes(),
            }[damage]
        )
    with pytest.raises(ModelError) as refused:
        ModelRegistry(root).load("fraud", models.engine.names)
    assert str(trees) in str(refused.value)


def test_trees_that_are_none_name_the_file(root, models):
    # Saved like this: the digest fits.
    ModelRegistry(root).save(models.fraud.card, b"not trees at all")
    with pytest.raises(ModelError, match=r"v2/trees\.ubj cannot be read as a model"):
        ModelRegistry(root).load("fraud", models.engine.names, "v2")


def test_what_a_model_remembers_is_kept_with_it(root, models):
    kept, columns = ModelRegistry(root), len(models.fraud.card.feature_names)
    assert kept.memory(kept.card("churn", "v1")) is None
    X = np.arange(3 * columns, dtype=np.float32).reshape(3, columns)
    card = kept.save(models.fraud.card, models.fraud.trees, Memory(X, np.array([True, False, False]), 4.0))
    found = kept.memory(card)
    assert np.array_equal(found.X, X)
    assert (found.fraud.tolist(), found.every) == ([True, False, False], 4.0)


@pytest.mark.parametrize("damage", ["cut", "of another model", "no archive"])
def test_a_damaged_memory_names_the_file(root, models, damage):
    kept = ModelRegistry(root)
    X = np.zeros((3, 2 if damage == "of another model" else len(models.fraud.card.feature_names)), np.float32)
    card = kept.save(models.fraud.card, models.fraud.trees, Memory(X, np.zeros(3, np.bool_), 1.0))
    file = root / "fraud" / card.version / "memory.npz"
    file.write_bytes({"cut": file.read_bytes()[:-30], "no archive": b"PK"}.get(damage, file.read_bytes()))
    with pytest.raises(ModelError, match=r"fraud/v2/memory\.npz cannot be read"):
        kept.memory(card)


def test_a_damaged_anomaly_model_names_the_file(root, models):
    tails = root / "anomaly" / "v1" / "tails.npz"
    tails.write_bytes(tails.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"anomaly/v1/tails\.npz is damaged"):
        ModelRegistry(root).load_champions(models.engine)


def test_an_anomaly_model_of_other_declarations_is_refused(root, models):
    kept = ModelRegistry(root)
    tails = (root / "anomaly" / "v1" / "tails.npz").read_bytes()
    kept.save(replace(models.anomaly.card, features_hash="0123456789abcdef"), tails)
    kept.promote("anomaly", "v2")
    with pytest.raises(ModelError, match=r"anomaly v2 was trained on .* 0123.*tidegate train anomaly"):
        kept.load_champions(models.engine)


def test_models_of_other_declarations_are_refused_together(root, models):
    card = replace(models.churn.card, features_hash="0123456789abcdef")
    kept = ModelRegistry(root)
    kept.save(card, models.churn.trees)
    kept.promote("churn", "v2")
    with pytest.raises(ModelError, match="churn v2 was trained on feature declarations 0123456789abcdef"):
        kept.load_champions(models.engine)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"created_at": "yesterday"}, "yesterday"),
        ({"reference": {"score": "none"}}, "card.json"),
        ({"reference": {"features": {"amount": {"shares": [1.0]}}}}, "edges"),
        ({"reference": {"features": {"no_such": {"edges": [1.0], "shares": [0.5, 0.5]}}}}, "no_such"),
        ({"data": {"to_ms": "today"}}, "today"),
    ],
)
def test_what_is_read_of_a_card_only_in_use_is_looked_at_before(root, models, change, said):
    rewrite(root / "fraud" / "v1" / "card.json", **change)
    with pytest.raises(ModelError, match=said):
        ModelRegistry(root).load("fraud", models.engine.names, "v1")


def test_a_linear_part_of_other_features_is_refused(root, models):
    n = len(models.fraud.card.feature_names) - 1
    linear = {"trees": 0.5, "intercept": 0.0, "center": [0.0] * n, "scale": [1.0] * n, "coef": [0.1] * n}
    rewrite(root / "fraud" / "v1" / "card.json", linear=linear)
    with pytest.raises(ModelError, match="its linear part reads"):
        ModelRegistry(root).load("fraud", models.engine.names, "v1")


def test_a_model_that_loads_and_cannot_score_is_refused(root, models, monkeypatch):
    def broken(self, X):
        raise IndexError("index 7 is out of bounds")

    monkeypatch.setattr(TreeModel, "contributions", broken)
    with pytest.raises(ModelError, match="cannot score: index 7"):
        ModelRegistry(root).load("fraud", models.engine.names, "v1")


def test_a_number_of_a_version_that_had_a_role_is_not_given_out_again(root, models):
    kept = ModelRegistry(root)
    newest = kept.save(models.fraud.card, models.fraud.trees).version
    kept.promote("fraud", newest)
    kept.promote("fraud", "v1")
    shutil.rmtree(root / "fraud" / newest)
    assert int(kept.save(models.fraud.card, models.fraud.trees).version[1:]) == int(newest[1:]) + 1


def test_roles_given_out_at_once_are_all_kept(root, models):
    kept = ModelRegistry(root)
    many = [kept.save(models.fraud.card, models.fraud.trees).version for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: ModelRegistry(root).shadow("fraud", version), many))
    assert sorted(kept.roles("fraud").shadows) == sorted(many)


def test_roles_are_changed_by_what_they_are_at_that_moment_or_left(root, models):
    kept = ModelRegistry(root)
    kept.save(models.fraud.card, models.fraud.trees)
    assert kept.give_roles("fraud", "v1", lambda roles: None) is None
    assert kept.give_roles("fraud", "v2", lambda roles: roles.promoted("v2")) == kept.roles("fraud")
    assert kept.champion("fraud") == "v2"
    with pytest.raises(ModelError, match="there is no fraud model v9"):
        kept.give_roles("fraud", "v9", lambda roles: roles.promoted("v9"))


def test_a_registry_that_cannot_be_written_says_so_and_leaves_nothing(root, models, monkeypatch):
    kept = ModelRegistry(root)
    kept.save(models.fraud.card, models.fraud.trees)
    before = sorted({p.name for p in (root / "fraud").iterdir()} - {"roles.lock"})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ModelError, match="No space left on device"):
        kept.save(models.fraud.card, models.fraud.trees)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ModelError, match=r"roles\.json cannot be written: No space"):
        kept.promote("fraud", "v2")
    assert kept.champion("fraud") == "v1"
    assert sorted({p.name for p in (root / "fraud").iterdir()} - {"roles.lock"}) == before
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ModelError, match="cannot take a model"):
        kept.check_writable("fraud")
