import shutil
from dataclasses import replace

import numpy as np
import pytest

from models.in_use import ModelsInUse
from models.registry import ModelRegistry
from models.segments import train_segments
from schemas.errors import ModelError
from tests.scoring import CREATED_AT, rewrite


@pytest.fixture
def kept(registry, models, tmp_path):
    """A registry with fraud v1 (champion), v2, v3 and churn v1."""
    shutil.copytree(registry._root, tmp_path / "models")
    mine = ModelRegistry(tmp_path / "models")
    for slope in (1.5, 0.5):
        mine.save(replace(models.fraud.card, slope=models.fraud.card.slope * slope), models.fraud.trees)
    return mine


def roles_of(models):
    return [(m.card.name, m.card.version, m.role) for m in models.all()]


def test_roles_of_the_registry_are_what_is_loaded(kept, engine):
    kept.challenge("fraud", "v2", 0.25)
    kept.shadow("fraud", "v3")
    in_use = ModelsInUse(kept, engine)
    assert roles_of(in_use.current) == [
        ("fraud", "v1", "champion"),
        ("churn", "v1", "champion"),
        ("anomaly", "v1", "champion"),
        ("fraud", "v2", "challenger"),
        ("fraud", "v3", "shadow"),
    ]
    assert in_use.current.challengers["fraud"].share == 0.25
    assert roles_of(ModelsInUse(kept, engine, shadows=False).current) == roles_of(in_use.current)[:4]


def test_a_set_from_before_there_were_anomaly_models_is_loaded_as_it_was(kept, engine):
    before = '{"churn":{"champion":"v1"},"fraud":{"champion":"v1"}}'
    in_use = ModelsInUse(kept, engine)
    assert in_use.named(before).anomaly is None
    assert in_use.named(in_use.current.identity).anomaly is in_use.current.anomaly is not None


def test_without_an_anomaly_model_nothing_says_how_unusual_anything_is(kept, engine):
    shutil.rmtree(kept._root / "anomaly")
    in_use = ModelsInUse(kept, engine)
    assert in_use.current.anomaly is None
    assert "anomaly" not in in_use.current.identity


def test_nothing_is_taken_where_nothing_changed(kept, engine):
    in_use = ModelsInUse(kept, engine)
    before = in_use.current
    found = in_use.refresh()
    assert (found.taken, found.refused) == (False, None)
    assert in_use.current is before


def test_a_promotion_is_taken_and_the_set_before_stays_whole(kept, engine, training_data):
    in_use = ModelsInUse(kept, engine)
    before, X = in_use.current, training_data.X[:50].astype(float)
    scores = before.fraud.predict_proba(X)
    kept.promote("fraud", "v2")
    assert in_use.refresh().taken
    assert in_use.current.fraud.reference["version"] == "v2"
    assert before.fraud.reference["version"] == "v1"
    assert (before.fraud.predict_proba(X) == scores).all()
    assert in_use.named(before.identity) is before
    kept.roll_back("fraud")
    assert in_use.refresh().taken
    assert in_use.current is before


@pytest.mark.parametrize("damage", ["trees", "card", "declarations", "roles", "gone"])
def test_what_cannot_be_used_is_refused_while_the_old_set_goes_on(kept, engine, models, tmp_path, damage):
    in_use = ModelsInUse(kept, engine)
    before, folder = in_use.current, tmp_path / "models" / "fraud"
    version = kept.save(replace(models.fraud.card, features_hash="other"), models.fraud.trees).version
    if damage == "declarations":
        kept.promote("fraud", version)
    elif damage == "roles":
        (folder / "roles.json").write_text("{")
    else:
        kept.promote("fraud", "v2")
        if damage == "trees":
            (folder / "v2" / "trees.ubj").write_bytes(b"{}")
        elif damage == "card":
            (folder / "v2" / "card.json").write_text("{}")
        else:
            shutil.rmtree(folder / "v2")
    for _ in range(2):
        found = in_use.refresh()
        assert not found.taken
        assert isinstance(found.refused, ModelError)
        assert in_use.current is before
    if damage != "roles":
        kept.roll_back("fraud")
        assert in_use.refresh().refused is None
        assert in_use.current is before


def test_a_set_of_the_past_is_loaded_by_its_name(kept, engine):
    in_use = ModelsInUse(kept, engine)
    kept.promote("fraud", "v2")
    kept.challenge("fraud", "v3", 0.5)
    past = ModelsInUse(kept, engine).current.identity
    assert roles_of(in_use.named(past))[0] == ("fraud", "v2", "champion")
    assert in_use.current.fraud.reference["version"] == "v1"
    with pytest.raises(ModelError):
        in_use.named(past.replace("v2", "v9"))
    with pytest.raises(ModelError, match="fraud and churn"):
        in_use.named("{}")


def test_a_registry_without_a_model_is_refused_at_the_start(tmp_path, engine):
    with pytest.raises(ModelError, match="tidegate train fraud"):
        ModelsInUse(ModelRegistry(tmp_path), engine)


@pytest.mark.parametrize(
    ("damaged", "left"),
    [
        (
            "fraud/v2/trees.ubj",
            ["fraud v1 champion", "churn v1 champion", "anomaly v1 champion", "fraud v3 shadow"],
        ),
        (
            "fraud/v3/card.json",
            ["fraud v1 champion", "churn v1 champion", "anomaly v1 champion", "fraud v2 challenger"],
        ),
        (
            "anomaly/v1/tails.npz",
            ["fraud v1 champion", "churn v1 champion", "fraud v2 challenger", "fraud v3 shadow"],
        ),
    ],
)
def test_what_only_rides_along_keeps_nothing_from_starting(kept, engine, damaged, left):
    kept.challenge("fraud", "v2", 0.25)
    kept.shadow("fraud", "v3")
    path = kept._root / damaged
    whole = path.read_bytes()
    path.write_bytes(b"{}")
    in_use = ModelsInUse(kept, engine)
    assert [" ".join(role) for role in roles_of(in_use.current)] == left
    assert damaged in str(in_use.refused)
    assert damaged in str(in_use.refresh().refused)
    path.write_bytes(whole)
    assert in_use.refresh().taken
    assert len(roles_of(in_use.current)) == 5


def test_a_shadow_that_cannot_be_used_is_forgotten_when_its_role_is_taken_away(kept, engine):
    kept.shadow("fraud", "v3")
    (kept._root / "fraud" / "v3" / "trees.ubj").write_bytes(b"{}")
    in_use = ModelsInUse(kept, engine)
    assert in_use.refresh().refused is not None
    kept.retire("fraud", "v3")
    assert in_use.refresh().refused is None


def test_without_a_champion_that_can_be_used_nothing_starts(kept, engine):
    kept.shadow("fraud", "v3")
    (kept._root / "fraud" / "v1" / "trees.ubj").write_bytes(b"{}")
    with pytest.raises(ModelError, match="damaged"):
        ModelsInUse(kept, engine)


def test_a_version_that_was_replaced_by_another_of_its_name_is_read_again(kept, engine, models, tmp_path):
    in_use = ModelsInUse(kept, engine)
    kept.promote("fraud", "v2")
    in_use.refresh()
    second = in_use.current
    kept.promote("fraud", "v1")
    in_use.refresh()
    folder = tmp_path / "models" / "fraud"
    shutil.rmtree(folder / "v2")
    shutil.copytree(folder / "v3", folder / "v2")
    rewrite(folder / "v2" / "card.json", version="v2")
    kept.promote("fraud", "v2")
    assert in_use.refresh().taken
    assert in_use.current is not second
    assert in_use.current.fraud.card.slope == kept.card("fraud", "v3").slope
    # What was published with the one before is scored again with the one before.
    first = in_use.named(in_use.current.identity)
    assert first is in_use.current


def test_a_cached_set_whose_files_are_damaged_is_refused_as_one_that_is_not(kept, engine, tmp_path):
    in_use = ModelsInUse(kept, engine)
    before = in_use.current
    kept.promote("fraud", "v2")
    in_use.refresh()
    second = in_use.current
    (tmp_path / "models" / "fraud" / "v1" / "trees.ubj").write_bytes(b"{}")
    rewrite(tmp_path / "models" / "fraud" / "roles.json", champion="v1", former=[])
    assert "damaged" in str(in_use.refresh().refused)
    assert in_use.current is second
    assert in_use.named(before.identity) is before


def test_segments_that_cannot_be_used_hold_nothing_up(kept, engine, training_data, tmp_path):
    X = training_data.churn_X.astype(np.float64)
    trained = train_segments(X, training_data.churn_as_of_ms, engine, created_at=CREATED_AT, resamples=3)
    kept.save(*trained)
    kept.promote("segments", "v1")
    in_use = ModelsInUse(kept, engine)
    assert in_use.refresh_segments().taken
    mine = in_use.segments
    kept.save(*trained)
    kept.promote("segments", "v2")
    (tmp_path / "models" / "segments" / "v2" / "centres.json").write_bytes(b"{")
    assert "damaged" in str(in_use.refresh_segments().refused)
    assert in_use.segments is mine is not None
    shutil.copy(*(tmp_path / "models" / "segments" / v / "centres.json" for v in ("v1", "v2")))
    assert in_use.refresh_segments().taken
