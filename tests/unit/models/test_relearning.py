import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from models.drift import STABLE, Reference, psi
from models.fraud_training import memory_of
from models.learning_model import LearningModel
from models.online import OnlineLearner
from models.relearning import FEWEST, Memory, Relearning, Told
from models.tree import to_proba

EVERY = 5


@pytest.fixture(scope="module")
def memory(training_data):
    return memory_of(training_data.fraud)


@pytest.fixture(scope="module")
def new_way(training_data, models):
    """Rows of the bank's genuine transactions, and a way of fraud that it has not.

    Each of its amounts and paces is as frequent among the genuine: only together they are fraud, which no sum
    over features can say.
    """
    random = np.random.default_rng(2)
    data = training_data.fraud
    known = data.known_by(data.end_ms)
    X = data.X[random.choice(np.flatnonzero(~known), 6_000, replace=False)].copy()
    kind = random.choice(5, len(X), p=[0.9, 0.025, 0.025, 0.025, 0.025])
    amount, pace = (models.engine.names.index(name) for name in ("amount", "txn_count_1h"))
    for number, (paid, times) in enumerate(((200, 3), (100, 1), (200, 1), (100, 3)), start=1):
        X[kind == number, amount], X[kind == number, pace] = paid, times
    return X, (kind == 1) | (kind == 2)


DAY_MS = 86_400_000
DELAY_MS = 7 * DAY_MS


def told(memory, X, y, *, first_ms=0, seed=7):
    """Who was told of these rows, one a minute."""
    relearning = Relearning(memory, EVERY, DELAY_MS, seed)
    for row, (x, fraud) in enumerate(zip(X, y, strict=True)):
        relearning.add(Told(x, first_ms + 60_000 * row, bool(fraud), row))
    return relearning


def ready(memory):
    learner = OnlineLearner(memory.X.shape[1])
    learner.see(memory.X[~memory.fraud])
    return learner


def grown_from(models, memory, X, y, *, seed=7):
    """What grows from these rows when the label delay of all is over."""
    return told(memory, X, y, seed=seed).grow(models.fraud, ready(memory), 60_000 * len(X) + DELAY_MS)


def test_all_frauds_are_remembered_and_one_in_so_many_of_the_others():
    X = np.arange(400_000, dtype=np.float32).reshape(200_000, 2)
    fraud, settled = np.zeros(200_000, dtype=bool), np.ones(200_000, dtype=bool)
    fraud[::100] = True
    settled[150_000:] = False
    memory = Memory.of(X, fraud & settled, settled)
    assert memory.every == 3.0
    assert memory.fraud.sum() == 1_500
    assert (~memory.fraud).sum() == pytest.approx(148_500 / 3, abs=1)
    assert memory.X[:, 0].max() < 300_000
    assert (np.diff(memory.X[:, 0]) > 0).all()


def test_of_very_many_frauds_the_newest_are_remembered():
    X = np.arange(30_000, dtype=np.float32)[:, None]
    memory = Memory.of(X, np.ones(30_000, dtype=bool), np.ones(30_000, dtype=bool))
    assert memory.X[:, 0].tolist() == list(range(10_000, 30_000))


def test_enough_is_new_after_fifty_frauds_or_a_twentieth_of_those_known():
    X = np.zeros((2_000, 1), dtype=np.float32)
    few, many = (Memory(X, np.arange(2_000) < n, 1.0) for n in (100, 2_000))
    assert told(few, X[:FEWEST], [True] * FEWEST).due
    relearning = told(many, X[:99], [True] * 99)
    assert not relearning.due
    relearning.add(Told(X[0], 0, False, 100))
    assert not relearning.due
    relearning.add(Told(X[0], 0, True, 101))
    assert relearning.due


def test_grown_trees_find_what_is_new_and_still_what_they_found_before(models, memory, new_way):
    X, y = new_way
    first, later = slice(0, 3_000), slice(3_000, None)
    # Which columns a tree sees is chance: of one seed the precision below is 0.5 to 0.8, and with one of nine
    # tried nothing grows, since it is too little better.
    grown, *others = (grown_from(models, memory, X[first], y[first], seed=s) for s in (108, 209, 310, 411, 8))
    before, now = (m.log_odds_of(X[later]) for m in (models.fraud, grown))
    assert average_precision_score(y[later], before) < 0.3
    found = [average_precision_score(y[later], m.log_odds_of(X[later])) for m in (grown, *others)]
    assert np.mean(found) > 0.65
    old_before, old_now = (
        average_precision_score(memory.fraud, m.log_odds_of(memory.X)) for m in (models.fraud, grown)
    )
    assert old_now > 0.9 * old_before
    # Of five times as many genuine ones, as many frauds are expected as there are.
    proba = to_proba(now)
    expected = proba[y[later]].sum() + EVERY * proba[~y[later]].sum()
    assert 0.5 * y[later].sum() < expected < 2 * y[later].sum()
    vectors = X[later].astype(np.float64)
    assert grown.contributions(vectors).sum(axis=1) == pytest.approx(grown.log_odds(vectors), abs=1e-3)
    assert grown.card.data["grown_anew"]["to_ms"] == 60_000 * 2_999
    assert "average_precision" not in grown.card.metrics
    score = Reference(grown.card).score
    assert psi(score.shares, score.count(to_proba(grown.log_odds_of(memory.X[~memory.fraud])))) < STABLE
    assert grown.card.data["grown_anew"]["log_loss"] < grown.card.data["grown_anew"]["log_loss_before"]


def test_equal_labels_in_equal_order_grow_equal_trees(models, memory, new_way):
    X, y = (part[:1_500] for part in new_way)
    one, other = (grown_from(models, memory, X, y) for _ in range(2))
    assert one.trees == other.trees
    assert one.card == other.card


def test_labels_that_say_nothing_grow_no_trees_and_are_remembered(models, memory, new_way):
    X = new_way[0][~new_way[1]][:2_000]
    y = np.random.default_rng(4).random(len(X)) < 0.05
    relearning = told(memory, X, y)
    assert relearning.due
    assert relearning.grow(models.fraud, ready(memory), 60_000 * len(X) + DELAY_MS) is None
    assert relearning.grown == 0
    # Asked again when as much is new once more, and then of all of it.
    assert not relearning.due
    assert len(relearning._new) == len(X)


def test_frauds_of_one_moment_alone_grow_no_trees(models, memory, new_way):
    X, y = new_way
    relearning = Relearning(memory, EVERY, DELAY_MS)
    for row, (x, fraud) in enumerate(zip(X[:2_000], y[:2_000], strict=True)):
        relearning.add(Told(x, 0, bool(fraud), row))
    assert relearning.grow(models.fraud, ready(memory), DELAY_MS + 1) is None


def test_what_waits_for_trees_stays_within_bounds(monkeypatch):
    monkeypatch.setattr("models.relearning._MOST_FRAUDS", 10)
    monkeypatch.setattr("models.relearning._MOST_GENUINE", 90)
    X = np.zeros((1_000, 3), dtype=np.float32)
    relearning = Relearning(Memory(X[:10], np.ones(10, dtype=bool), 1.0), EVERY, DELAY_MS)
    for row in range(1_000):
        relearning.add(Told(X[row], row, row % 10 == 0, row))
    assert len(relearning._new) == 100
    assert relearning._new_frauds == 10
    assert relearning._new[999].x.base is None, "a view would keep its whole batch"


def test_trees_are_not_shown_what_is_too_young_for_the_others_to_be_known(models, memory, new_way):
    X, y = new_way
    # All frauds of the newest days, and nobody else.
    old, young = (X[:2_000], y[:2_000]), X[y][:40]
    relearning = told(memory, *old)
    now_ms = 60_000 * 2_000 + DELAY_MS
    for row, x in enumerate(young):
        relearning.add(Told(x, now_ms - DELAY_MS + 60_000 * row, True, len(old[0]) + row))
    grown = relearning.grow(models.fraud, ready(memory), now_ms)
    assert grown.trees == grown_from(models, memory, *old).trees
    assert len(relearning._new) == 40


def test_what_is_reported_late_was_genuine_only_until_then(models, memory, new_way):
    """Whether trees were grown meanwhile or not, nothing is left of what it was taken for."""
    X, y = (part[:2_000] for part in new_way)
    late = np.flatnonzero(y)[::2]
    relearning = Relearning(memory, EVERY, DELAY_MS)
    for row in range(2_000):
        relearning.add(Told(X[row], 60_000 * row, bool(y[row]) and row not in late, row))
    at_once, now_ms = Relearning(memory, EVERY, DELAY_MS), 60_000 * 2_000 + DELAY_MS
    for row in [*(row for row in range(2_000) if row not in late), *late.tolist()]:
        at_once.add(Told(X[row], 60_000 * row, bool(y[row]), row))
    for row in late.tolist():
        relearning.add(Told(X[row], 60_000 * row, True, row))
    assert relearning._new_frauds == at_once._new_frauds == y.sum()
    grown, other = (one.grow(models.fraud, ready(memory), now_ms) for one in (relearning, at_once))
    assert grown.trees == other.trees
    # What the trees have taken in, too.
    mistaken = next(iter(relearning._genuine))
    relearning.add(Told(relearning._genuine[mistaken], 0, True, mistaken))
    assert mistaken not in relearning._genuine
    assert relearning._new[mistaken].fraud
    withdrawn = next(iter(relearning._frauds))
    relearning.add(Told(relearning._frauds[withdrawn], 0, False, withdrawn))
    assert withdrawn not in relearning._frauds


def test_a_learning_model_has_the_grown_trees_and_nothing_beside_them(models, memory, new_way):
    X, y = new_way
    learning = LearningModel(models.fraud, DELAY_MS, memory=memory)
    without = LearningModel(models.fraud, DELAY_MS)
    assert learning.ready
    assert not without.ready
    without.see(X)
    for row, (x, fraud) in enumerate(zip(X, y, strict=True)):
        at_ms = 60_000 * row
        for one in (learning, without):
            one.learn_one(Told(x, at_ms, bool(fraud), at_ms), at_ms + DELAY_MS)
        if learning.grown:
            break
    assert learning.now.correction is None
    assert (learning.share, without.share > 0) == (0.0, True)
    assert learning.now.trees != models.fraud.trees == without.now.trees
    assert learning.now.role == "champion"
    assert without.now.correction is not None
    assert without.grown == 0


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (b"", "cannot be read"),
        (b"PK", "cannot be read"),
        (Memory(np.zeros((2, 3), np.float32), np.ones(2, bool), 0.5).to_bytes(), "one in 0.5"),
        (Memory(np.zeros((2, 4), np.float32), np.ones(2, bool), 1.0).to_bytes(), "(2, 4)"),
        (Memory(np.zeros((2, 3)), np.ones(2, bool), 1.0).to_bytes(), "float64"),
    ],
)
def test_what_is_no_memory_is_refused(kept, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        Memory.of_bytes(kept, 3)
