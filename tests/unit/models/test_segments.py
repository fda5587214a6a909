import json
from dataclasses import replace

import numpy as np
import pytest

from models.registry import SEGMENTS, ModelRegistry
from models.segments import MEANINGS, RFM, SegmentModel, named, rfm, train_segments
from schemas.errors import ModelError
from tests.scoring import CREATED_AT

DAY_S = 86_400


def customers(engine, groups, seed=5):
    """Vectors of which only recency, frequency and money are known, around given centres."""
    random = np.random.default_rng(seed)
    rows = []
    for count, (days, transactions, amount) in groups:
        X = np.full((count, len(engine.names)), np.nan)
        spread = random.lognormal(0.0, 0.15, (count, 3))
        for number, (name, value) in enumerate(zip(RFM, (days * DAY_S, transactions, amount), strict=True)):
            X[:, engine.names.index(name)] = value * spread[:, number]
        rows.append(X)
    return np.concatenate(rows)


GROUPS = [(80, (1, 120, 9000)), (80, (3, 60, 700)), (80, (40, 5, 3000)), (80, (70, 2, 60))]


def trained(engine, X, **options):
    return train_segments(X, np.zeros(len(X), dtype=np.int64), engine, created_at=CREATED_AT, **options)


def test_groups_that_are_there_are_found_are_stable_and_have_different_names(engine):
    X = customers(engine, GROUPS)
    card, artefact = trained(engine, X)
    model = SegmentModel(card, artefact)
    found = [s.name for s in model.assign(rfm(X, engine))]
    assert card.metrics["segments"] == len(set(found)) == len(set(model.names)) == 4
    for start in range(0, 320, 80):
        assert len(set(found[start : start + 80])) == 1
    assert card.metrics["silhouette"] > 0.6
    assert card.metrics["stability_ari_mean"] > 0.95
    assert found[0] == "champions"
    assert found[-1] == "dormant"
    assert set(card.metrics["shares"].values()) == {0.25}


def test_what_is_not_grouped_is_said_to_be_hardly_stable(engine):
    X = customers(engine, [(300, (5, 20, 500))])
    card, _ = trained(engine, X)
    assert card.metrics["silhouette"] < 0.4
    assert card.metrics["stability_ari_mean"] < 0.8


def test_the_same_seed_gives_the_same_segments(engine):
    X = customers(engine, GROUPS)
    assert trained(engine, X, seed=3)[1] == trained(engine, X, seed=3)[1]


def test_only_the_newest_snapshot_counts(engine):
    X = customers(engine, GROUPS)
    days = np.repeat([5, 9], 160)
    card, _ = train_segments(X, days, engine, created_at=CREATED_AT)
    assert card.metrics["customers"] == 160


def test_a_customer_at_a_centre_is_sure_and_one_without_events_is_the_quietest(engine):
    X = customers(engine, GROUPS)
    model = SegmentModel(*trained(engine, X))
    nothing = np.full((1, len(engine.names)), np.nan)
    (segment,) = model.assign(rfm(nothing, engine))
    assert (segment.name, segment.recency_days, segment.frequency_90d) == ("dormant", 90.0, 0.0)
    sure = model.assign(rfm(X[:1], engine))[0]
    assert 0.3 < sure.confidence <= 1
    assert sure.next_name != sure.name


@pytest.mark.parametrize("rows", [0, 49])
def test_too_few_customers_are_refused(engine, rows):
    with pytest.raises(ModelError, match=f"there are {rows}"):
        trained(engine, customers(engine, GROUPS)[:rows])


def test_customers_that_are_all_alike_are_refused(engine):
    with pytest.raises(ModelError, match="differ"):
        trained(engine, np.repeat(customers(engine, GROUPS)[:1], 60, axis=0))


def test_every_prototype_has_a_meaning_and_keeps_its_own_name():
    from models.segments import _PROTOTYPES

    assert set(_PROTOTYPES) == set(MEANINGS)
    assert named(np.array(list(_PROTOTYPES.values()))) == list(_PROTOTYPES)


def test_segments_are_saved_promoted_and_loaded_as_other_models(engine, tmp_path):
    registry = ModelRegistry(tmp_path)
    assert registry.load_segments(engine) is None
    card, artefact = trained(engine, customers(engine, GROUPS))
    saved = registry.save(card, artefact)
    registry.promote(SEGMENTS, saved.version)
    loaded = registry.load_segments(engine)
    assert loaded.card.version == "v1"
    assert set(loaded.names) == set(SegmentModel(card, artefact).names)
    other = registry.save(replace(card, features_hash="other"), artefact)
    registry.promote(SEGMENTS, other.version)
    with pytest.raises(ModelError, match="declarations other"):
        registry.load_segments(engine)
    registry.promote(SEGMENTS, "v1")
    (tmp_path / SEGMENTS / "v1" / "centres.json").write_bytes(artefact + b" ")
    with pytest.raises(ModelError, match="is damaged"):
        registry.load_segments(engine)


@pytest.mark.parametrize(
    "change",
    [{"mean": [1]}, {"centres": [[1, 2, 3]]}, {"names": ["champions", "strangers"]}, {"scale": None}],
)
def test_centres_that_do_not_fit_are_refused(engine, change):
    card, artefact = trained(engine, customers(engine, GROUPS))
    with pytest.raises(ModelError, match="cannot be used"):
        SegmentModel(card, json.dumps(json.loads(artefact) | change).encode())
    with pytest.raises(ModelError, match="cannot be used"):
        SegmentModel(card, b"no json")
