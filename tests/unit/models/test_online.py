import json
from dataclasses import replace

import numpy as np
import pytest

from models.correction import WIDTH, Correction, Edges
from models.learning_model import LearningModel
from models.online import OnlineLearner
from models.online_scorer import Labelled, OnlineScorer
from models.relearning import Told
from models.tree import TreeModel, to_proba
from schemas.errors import ModelError


def test_every_value_has_the_bin_that_numpy_says():
    random = np.random.default_rng(1)
    X = random.normal(size=(3_000, 4)).astype(np.float32)
    X[:, 1] = X[:, 1].round()
    X[random.random(X.shape) < 0.1] = np.nan
    X[:, 3] = np.nan
    edges = Edges.of(X)
    probe = np.concatenate([X[:500], np.array([[np.inf, -np.inf, 0, 1]], dtype=np.float32)])
    found = edges.places(probe)
    for column in range(4):
        mine = edges.values[edges.starts[column] : edges.starts[column + 1]]
        values = probe[:, column]
        wanted = np.where(np.isnan(values), WIDTH - 1, np.searchsorted(mine, values, side="left"))
        assert (found[:, column] - column * WIDTH).tolist() == wanted.tolist()


def learner_of(X: np.ndarray) -> OnlineLearner:
    learner = OnlineLearner(X.shape[1])
    learner.see(X)
    return learner


def stream(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Fraud where the second feature is in its upper tail, which the trees, at -5 everywhere, do not know."""
    X = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    return X, X[:, 1] > 2.0


def test_what_the_trees_do_not_know_is_learned_from_few_labels():
    X, fraud = stream(12_000)
    learner = learner_of(X[:6_000])
    for x, label in zip(X[6_000:], fraud[6_000:], strict=True):
        learner.learn_one(x, -5.0, bool(label))
    assert learner.share > 0.99
    later, truth = stream(4_000, seed=1)
    found = learner.correction().contributions(later).sum(axis=1)
    assert found[truth].min() > found[~truth].max() - 1.5
    assert np.median(found[truth]) - np.median(found[~truth]) > 3


def test_labels_that_say_nothing_new_are_not_blended_in():
    random = np.random.default_rng(3)
    X = random.normal(size=(9_000, 3)).astype(np.float32)
    log_odds = np.where(X[:, 0] > 1.5, 0.0, -6.0)
    # The sample is of all frauds and a fifth of the genuine: true odds of the sample are five times as high.
    fraud = random.random(9_000) < to_proba(log_odds + np.log(5))
    learner = learner_of(X[:6_000])
    for row in range(6_000, 9_000):
        learner.learn_one(X[row], log_odds[row], bool(fraud[row]))
    assert learner.share < 0.01


def test_a_learner_that_has_seen_too_little_says_so():
    learner = OnlineLearner(3)
    assert learner.correction() is None
    with pytest.raises(ValueError, match="has not seen enough"):
        learner.learn_one(np.zeros(3, dtype=np.float32), 0.0, True)


def test_contributions_of_a_corrected_model_sum_to_its_log_odds(models, training_data):
    X = training_data.X[:400].astype(np.float64)
    model = models.fraud
    inputs = X[:, model.columns].astype(np.float32)
    random = np.random.default_rng(5)
    edges = Edges.of(inputs)
    corrected = model.corrected(Correction(edges, random.normal(size=len(model.columns) * WIDTH), 0.7))
    assert corrected.contributions(X).sum(axis=1) == pytest.approx(corrected.log_odds(X), abs=1e-4)
    assert np.abs(corrected.log_odds(X) - model.log_odds(X)).max() > 1
    assert np.array_equal(corrected.corrected(None).log_odds(X), model.log_odds(X))


@pytest.fixture(scope="module")
def scored(models, training_data):
    """Rows in time order with labels, and whole-at-once scores of a model that learns."""
    X = training_data.X[-9_000:].astype(np.float64)
    # Of later days than the trees have learned from.
    time_ms = training_data.time_ms[-9_000:] + 365 * 86_400_000
    random = np.random.default_rng(2)
    labels = (random.random(9_000) < 0.02).astype(np.int8)
    labels[random.random(9_000) < 0.01] = -1
    # Never before the last row, as the replay cuts, but for those of the first third.
    label_ms = np.where(labels == 1, time_ms[-1] + 1, 0)
    label_ms[:3_000] = np.where(labels[:3_000] == 1, time_ms[3_000:6_000], 0)
    return X, time_ms, labels, label_ms


def scores_of(model, scored, cuts, *, silence_is_genuine=True):
    X, time_ms, labels, label_ms = scored
    online, found, places = OnlineScorer(model, 86_400_000), [], np.arange(len(X))
    for begin, end in zip([0, *cuts], [*cuts, len(X)], strict=True):
        part = slice(begin, end)
        columns = (X[part], places[part], time_ms[part], labels[part], label_ms[part])
        rows = Labelled(*columns, silence_is_genuine)
        for first, last, now in online.segments(rows):
            found += now.predict_proba(X[part][first:last]).tolist()
    assert online.frauds > 0
    return found


def test_scores_do_not_depend_on_where_the_log_is_cut(models, scored):
    once = scores_of(models.fraud, scored, [3_000])
    assert scores_of(models.fraud, scored, [3_000, 3_001, 4_500, 7_777]) == once
    assert once != models.fraud.predict_proba(scored[0]).tolist()


def test_no_score_knows_a_label_of_later(models, scored):
    X, time_ms, labels, label_ms = scored
    once = scores_of(models.fraud, scored, [3_000])
    moment = int(time_ms[5_600])
    turned = labels.copy()
    later = label_ms > moment
    turned[later] = 1 - np.abs(turned[later])
    other = scores_of(models.fraud, (X, time_ms, turned, label_ms), [3_000])
    before = int(np.searchsorted(time_ms, moment))
    assert other[:before] == once[:before]
    # Nor whether one will come.
    silent = np.where(later, 0, labels), np.where(later, 0, label_ms)
    assert scores_of(models.fraud, (X, time_ms, *silent), [3_000])[:before] == once[:before]


def test_where_silence_says_nothing_only_what_is_said_is_learned(models, scored):
    """Of a file that names the genuine too; who is named later is not known before."""
    X, time_ms, labels, label_ms = scored
    labels, label_ms = labels.copy(), np.where(labels == 0, time_ms + 3 * 86_400_000, label_ms)
    once = scores_of(models.fraud, (X, time_ms, labels, label_ms), [3_000], silence_is_genuine=False)
    moment = int(time_ms[5_600])
    later = label_ms > moment
    silent = np.where(later, -1, labels), np.where(later, 0, label_ms)
    other = scores_of(models.fraud, (X, time_ms, *silent), [3_000], silence_is_genuine=False)
    before = int(np.searchsorted(time_ms, moment))
    assert other[:before] == once[:before]
    assert other != once
    assert scores_of(models.fraud, (X, time_ms, labels, label_ms), [3_000]) != once


def test_a_correction_is_read_back_bit_for_bit():
    random = np.random.default_rng(2)
    X = random.normal(size=(500, 4)).astype(np.float32)
    X[:, 2] = np.nan
    written = Correction(Edges.of(X), random.normal(size=4 * WIDTH), 0.3)
    # As a card does: through text.
    read = Correction.of(json.loads(json.dumps(written.document())), 4)
    assert np.array_equal(read.contributions(X), written.contributions(X))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": [0.0]},
        {"weights": [float("nan")] * 4 * WIDTH},
        {"starts": [0, 1, 2, 3]},
        {"starts": [1, 2, 2, 3, 4]},
        {"edges": [0.0]},
        {"share": 1.5},
        {"share": None},
        {"intercept": float("inf")},
        {"starts": [0, 2**40, 2**40, 2**40, 2**40]},
    ],
)
def test_a_correction_that_is_none_of_this_model_is_refused(changes):
    X = np.random.default_rng(2).normal(size=(500, 4)).astype(np.float32)
    whole = Correction(Edges.of(X), np.zeros(4 * WIDTH), 0.3).document()
    with pytest.raises((ValueError, TypeError, OverflowError)):
        Correction.of(whole | changes, 4)


def test_a_model_says_which_version_has_a_correction_that_cannot_be_used(models):
    card = replace(models.fraud.card, correction={"weights": []})
    with pytest.raises(
        ModelError, match=r"model fraud v1 cannot be used: the correction has no edges and no intercept"
    ):
        TreeModel(card, models.fraud.trees, models.engine.names)


def test_edges_that_do_not_ascend_are_refused():
    X = np.random.default_rng(2).normal(size=(500, 2)).astype(np.float32)
    whole = Correction(Edges.of(X), np.zeros(2 * WIDTH), 0.3).document()
    edges = whole["edges"]
    edges[3], edges[4] = edges[4], edges[3]
    with pytest.raises(ValueError, match="not in order"):
        Correction.of(whole, 2)


def test_as_many_frauds_are_expected_as_come_although_frauds_are_gone_through_again():
    X, fraud = stream(40_000)
    trees = -6.0
    learner = learner_of(X[:6_000])
    for x, label in zip(X[6_000:], fraud[6_000:], strict=True):
        # One in five of the genuine, as the learner is told.
        if label or x[0] < -0.84:
            learner.learn_one(x, trees, bool(label))
    correction = learner.correction()
    later, truth = stream(40_000, seed=1)
    log_odds = trees + correction.contributions(later).sum(axis=1)
    # The newest labels are judged by what was known before each: at first that was less.
    expected = to_proba(log_odds + correction.intercept).sum()
    assert expected == pytest.approx(truth.sum(), rel=0.5)
    assert abs(expected - truth.sum()) < 0.6 * abs(to_proba(log_odds).sum() - truth.sum())


def test_learning_goes_on_beside_the_trees_whatever_they_had_learned_before(models, training_data):
    X = training_data.X[:100].astype(np.float64)
    edges = Edges.of(X[:, models.fraud.columns].astype(np.float32))
    taught = models.fraud.corrected(Correction(edges, np.ones(len(models.fraud.columns) * WIDTH), 1.0))
    assert np.array_equal(OnlineScorer(taught, 0).now.log_odds(X), models.fraud.log_odds(X))


def test_what_is_known_of_young_transactions_is_learned_when_the_others_of_their_days_are(
    models, training_data
):
    """Frauds are reported days before anybody is genuine: alone they would say that everything is fraud."""
    day_ms, model = 86_400_000, models.fraud
    X = training_data.X[-2_000:][:, model.columns].astype(np.float32)
    to_ms = model.card.trees_to_ms
    learning = LearningModel(model, 7 * day_ms)
    learning.see(training_data.X[:, model.columns].astype(np.float32))
    assert learning.ready
    for n in range(100):
        learning.learn_one(Told(X[n], to_ms + 1 + n, True, n), to_ms + day_ms + n)
    assert learning.now.correction is None
    # Of the days of its trees nobody is said to be genuine any more.
    for n in range(100, 200):
        learning.learn_one(Told(X[n], to_ms - n, True, n), to_ms + 2 * day_ms + n)
    assert learning.now.correction is None
    # The delay is over for the first forty.
    learning.learn_one(Told(X[200], to_ms + 1, False, 200), to_ms + 40 + 7 * day_ms)
    assert learning.now.correction is not None
    assert learning._learner is not None
    assert learning._learner.labels == 41
    # One whose delay is over when it is reported is learned at once.
    learning.learn_one(Told(X[201], to_ms + 1, True, 201), to_ms + 40 + 8 * day_ms)
    assert learning._learner.labels == 102
