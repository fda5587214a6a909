import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from features.attributes import attribute_features
from features.engine import Engine
from models.anomaly import AnomalyModel, AnomalyScore, candidates, train_anomaly
from models.reasons import by_name
from schemas.errors import ModelError


@pytest.fixture
def usual(engine):
    """Vectors in which a few features vary, and the others are unknown."""
    random = np.random.default_rng(1)
    X = np.full((3_000, len(engine.names)), np.nan)
    for name in ("amount", "amount_zscore_90d", "txn_count_1h", "distance_from_last_km"):
        X[:, engine.names.index(name)] = random.normal(size=len(X)) ** 2
    return X


def learned(engine, X):
    anomaly = AnomalyScore(engine)
    anomaly.learn(X)
    anomaly.refresh()
    return anomaly


def test_nothing_is_unusual_before_anything_is_known(engine, usual):
    anomaly = learned(engine, usual[:49])
    assert anomaly.seen == 49
    assert np.isnan(anomaly.score(usual[:3])).all()


def test_what_is_far_out_is_unusual_and_the_usual_is_spread_evenly(engine, usual):
    anomaly = learned(engine, usual[:2_000])
    scores = anomaly.score(usual[2_000:])
    assert scores.mean() == pytest.approx(0.5, abs=0.05)
    odd = usual[2_000:2_001].copy()
    odd[0, engine.names.index("txn_count_1h")] = 40.0
    odd[0, engine.names.index("distance_from_last_km")] = 9_000.0
    assert anomaly.score(odd)[0] > 0.99


def test_what_messages_say_in_fractions_can_be_unusual_and_codes_of_words_cannot():
    engine = Engine(attributes=attribute_features("component,email_domain"))
    random = np.random.default_rng(2)
    X = np.full((3_000, len(engine.names)), np.nan)
    component, domain = (engine.names.index(f"attribute_{name}") for name in ("component", "email_domain"))
    X[:, engine.names.index("txn_count_1h")] = random.poisson(2.0, len(X))
    X[:, component] = random.normal(size=len(X))
    X[:, domain] = random.integers(1, 1 << 20, len(X))
    odd = np.full((3, len(engine.names)), np.nan)
    odd[:, engine.names.index("txn_count_1h")] = 2.0
    odd[:, component], odd[:, domain] = 0.0, 1 << 19
    odd[1, component], odd[2, domain] = 30.0, 1 << 24
    scores = learned(engine, X).score(odd)
    assert scores[1] > 0.99
    assert scores[0] == scores[2] < 0.5
    card, artefact = train_anomaly(X, engine, created_at="", alert_share=0.01)
    assert "attribute_component" in card.feature_names
    assert "attribute_email_domain" not in card.feature_names
    frozen = AnomalyModel(card, artefact, engine.names).score(odd)
    assert frozen[1] > 0.99
    assert frozen[0] == frozen[2] < 0.5


def test_unknown_values_and_values_that_all_have_say_nothing(engine, usual):
    usual[:, engine.names.index("is_night")] = 0.0
    anomaly = learned(engine, usual)
    without = usual[:200].copy()
    without[:, engine.names.index("is_night")] = np.nan
    assert anomaly.score(usual[:200]) == pytest.approx(anomaly.score(without), abs=0.01)


def test_blocks_teach_what_the_whole_teaches(engine, usual):
    blocks = AnomalyScore(engine)
    for part in np.array_split(usual, 7):
        blocks.learn(part)
    blocks.refresh()
    assert blocks.score(usual).tolist() == learned(engine, usual).score(usual).tolist()


def test_the_sample_stays_small_and_follows_what_comes(engine, usual):
    anomaly = AnomalyScore(engine)
    for n in range(30):
        anomaly.learn(usual + (100.0 if n >= 3 else 0.0))
    anomaly.refresh()
    assert anomaly.seen == 90_000
    # Nine of ten are the later ones: their middle is no tail any more.
    assert np.median(anomaly.score(usual + 100.0)) < 0.8


@pytest.fixture
def trained(engine, usual):
    return train_anomaly(
        usual.astype(np.float32), engine, created_at="2026-01-01T00:00:00Z", alert_share=0.01
    )


@pytest.fixture
def model(trained, engine):
    return AnomalyModel(*trained, engine.names)


def test_a_trained_model_says_what_a_score_says_that_saw_the_same(engine, usual, model):
    same = learned(engine, usual.astype(np.float32).astype(np.float64)).score(usual.astype(np.float32))
    assert model.score(usual) == pytest.approx(same, abs=1e-5)


def test_the_share_that_was_asked_for_raises_alerts(usual, model, trained):
    alerts = model.alerts(model.score(usual))
    assert alerts.mean() == pytest.approx(0.01, abs=0.001)
    assert trained[0].metrics["alert_share"] == alerts.mean()
    assert not model.alerts(np.array([np.nan]))[0]


def test_many_rows_are_told_by_a_sample_of_them(engine, usual):
    X = np.tile(usual[:2_999].astype(np.float32), (61, 1))
    card, tails = train_anomaly(X, engine, created_at="", alert_share=0.05)
    assert (card.data["rows"], card.data["sample"]) == (182_939, 60_980)
    model = AnomalyModel(card, tails, engine.names)
    scores = model.score(usual)
    assert scores.mean() == pytest.approx(0.5, abs=0.01)
    assert model.alerts(scores).mean() == pytest.approx(0.05, abs=0.01)


def test_what_is_furthest_out_comes_first_and_all_shares_sum_to_what_ranks(engine, usual, model):
    odd = usual[:3].copy()
    odd[:, engine.names.index("distance_from_last_km")] = 9_000.0
    for reasons in model.explain(odd, by_name(engine.features)):
        assert reasons[0]["feature"] == "distance_from_last_km"
        assert reasons[0]["value"] == 9_000.0
        shares = [one["contribution"] for one in reasons]
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] > 0
    rows = usual[:, candidates(engine)].astype(np.float32).astype(np.float64)
    # Equal but for the order in which they are added up.
    total, scores = model._tails.shares(rows).sum(axis=1).round(9), model.score(usual)
    levels = [scores[total == level] for level in np.unique(total)]
    assert len(levels) > 500
    assert all(less.max() <= more.min() for less, more in pairwise(levels))


def test_a_value_that_many_have_is_usual_although_it_was_learned_in_half_the_digits(engine, usual):
    column = engine.names.index("amount")
    usual[:2_400, column] = 0.1  # not the same number in 32 and in 64 bits
    model = AnomalyModel(
        *train_anomaly(usual.astype(np.float32), engine, created_at="", alert_share=0.01), engine.names
    )
    one = np.full((1, len(engine.names)), np.nan)
    one[0, column] = 0.1
    assert not model.explain(one, by_name(engine.features))[0][1:]
    assert model._tails.shares(model._inputs(one)).sum() < 1.0


def test_too_few_transactions_are_refused(engine, usual):
    with pytest.raises(ModelError, match="needs 500 to learn from, there are 499"):
        train_anomaly(usual[:499].astype(np.float32), engine, created_at="", alert_share=0.05)


def test_so_few_alerts_that_chance_would_draw_the_line_are_refused(engine, usual):
    with pytest.raises(ModelError, match=r"alerts of 0.001 .* needs 5,000 to learn from, there are 3,000"):
        train_anomaly(usual.astype(np.float32), engine, created_at="")


def test_no_alerts_are_none_also_of_what_is_most_unusual(engine, usual):
    model = AnomalyModel(
        *train_anomaly(usual.astype(np.float32), engine, created_at="", alert_share=0.0), engine.names
    )
    assert model.score(np.full((1, len(engine.names)), 1e9))[0] > 0.99
    assert not model.alerts(np.array([1.0]))[0]


def test_transactions_that_are_all_alike_are_refused(engine):
    X = np.zeros((1_000, len(engine.names)), dtype=np.float32)
    with pytest.raises(ModelError, match=r"too much alike .* 100.0% are equally unusual"):
        train_anomaly(X, engine, created_at="", alert_share=0.01)


def saved(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    "artefact",
    [
        b"",
        b"not an archive",
        saved(quantiles=np.zeros((63, 2))),
        saved(quantiles=np.zeros((63, 2)), totals=np.zeros(5)),
        saved(quantiles=np.array([object()]), totals=np.zeros(5)),
    ],
)
def test_an_artefact_that_is_none_is_refused(trained, engine, artefact):
    with pytest.raises(ModelError, match="model anomaly  cannot be used"):
        AnomalyModel(trained[0], artefact, engine.names)


def test_a_feature_that_is_not_declared_is_refused(trained, engine):
    card = replace(trained[0], feature_names=("amount", "shoe_size"))
    with pytest.raises(ModelError, match="not declared: shoe_size"):
        AnomalyModel(card, trained[1], engine.names)
