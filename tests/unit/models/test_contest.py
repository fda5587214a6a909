import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from models.contest import contest


def scores(seed, rows=3000, share=0.05):
    random = np.random.default_rng(seed)
    y = random.random(rows) < share
    signal = y * 1.5 + random.normal(size=rows)
    noise = random.normal(size=rows)
    return y, random.integers(0, 400, rows), lambda weight: 1 / (1 + np.exp(-(signal + weight * noise - 3)))


def test_a_clearly_better_model_wins_and_the_other_way_round_loses():
    y, customer, of = scores(1)
    better, worse = of(0.0), of(3.0)
    won = contest(y, worse, better, customer, resamples=60)
    assert (won.verdict, won.rows, won.positives) == ("wins", 3000, int(y.sum()))
    assert won.challenger["average_precision"].value == pytest.approx(average_precision_score(y, better))
    gain = won.difference["average_precision"]
    assert 0 < gain.low < gain.value < gain.high
    assert "the challenger wins" in won.why
    lost = contest(y, better, worse, customer, resamples=60)
    assert lost.verdict == "loses"
    assert lost.difference["average_precision"].low == pytest.approx(-gain.high)


def test_a_model_does_not_win_against_itself():
    y, customer, of = scores(2)
    same = contest(y, of(1.0), of(1.0), customer, resamples=30)
    assert same.verdict == "undecided"
    assert {(d.low, d.high) for d in same.difference.values()} == {(0.0, 0.0)}
    assert "not proven better" in same.why


def test_two_equally_good_models_rarely_beat_each_other():
    verdicts = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        y = random.random(2000) < 0.1
        pair = [y + random.normal(scale=1.5, size=2000) for _ in range(2)]
        first, second = (1 / (1 + np.exp(-s)) for s in pair)
        verdicts.append(contest(y, first, second, np.arange(2000), resamples=60).verdict)
    assert verdicts.count("undecided") >= 9


def test_repeated_rows_of_one_customer_prove_no_more_than_one():
    y, _, of = scores(3, rows=400, share=0.2)
    ten_times = [np.repeat(values, 10) for values in (y, of(1.2), of(1.0))]
    customer = np.repeat(np.arange(400), 10)
    once = contest(y, of(1.2), of(1.0), np.arange(400), resamples=80).difference["roc_auc"]
    repeated = contest(*ten_times, customer, resamples=80).difference["roc_auc"]
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_with_a_handful_of_positives_nothing_is_told():
    y = np.zeros(500, dtype=bool)
    y[:7] = True
    found = contest(y, np.linspace(1, 0, 500), np.linspace(0, 1, 500), np.arange(500))
    assert found.verdict == "undecided"
    assert "7 positive" in found.why
