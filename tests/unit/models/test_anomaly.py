import numpy as np
import pytest

from models.anomaly import AnomalyScore


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
