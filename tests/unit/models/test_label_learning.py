from dataclasses import replace

import numpy as np
import pytest

from features.codes import transaction_hash
from features.definitions import DAY_MS, LATENESS_MS
from features.record import LABEL_KIND, RECORD, REPLACED_KIND
from models import label_learning
from models.label_learning import Findings, LabelLearning, base_version, event_of, frauds_learned
from models.online import EVERY, FIRST
from models.registry import ModelRegistry
from models.tree import TreeModel
from schemas.label import Label

T0 = 1_750_000_000_000
WEEK_MS = 7 * DAY_MS
SAMPLED = next(f"t{n}" for n in range(100) if transaction_hash(f"t{n}") % EVERY == 0)
UNSAMPLED = next(f"t{n}" for n in range(100) if transaction_hash(f"t{n}") % EVERY != 0)


def fraud(transaction_id: str, known_ms: int, label: str = "fraud") -> Label:
    return Label(customer_id="c", transaction_id=transaction_id, label=label, label_time=known_ms)


def known(findings: Findings) -> list[tuple[int, bool]]:
    return [(finding.transaction, finding.fraud) for finding in findings.due(100)]


def test_one_in_so_many_is_genuine_when_its_label_delay_is_over_by_the_time_of_events():
    findings = Findings(WEEK_MS)
    for name in (SAMPLED, UNSAMPLED):
        findings.scored("c", name, T0)
    findings.scored("c", UNSAMPLED + "x", T0 + WEEK_MS - 1)
    assert known(findings) == []
    findings.scored("c", UNSAMPLED + "y", T0 + WEEK_MS)
    assert known(findings) == [(transaction_hash(SAMPLED), False)]
    assert known(findings) == []


def test_fraud_is_known_when_it_is_reported_and_once():
    findings = Findings(WEEK_MS)
    findings.scored("c", UNSAMPLED, T0)
    for _ in range(2):
        findings.reported(fraud(UNSAMPLED, T0 + DAY_MS))
    assert known(findings) == []
    findings.scored("c", "later", T0 + DAY_MS)
    assert known(findings) == [(transaction_hash(UNSAMPLED), True)]
    findings.reported(fraud(UNSAMPLED, T0 + DAY_MS))
    assert known(findings) == []


def test_what_is_reported_within_its_delay_was_never_genuine():
    findings = Findings(WEEK_MS)
    findings.scored("c", SAMPLED, T0)
    findings.reported(fraud(SAMPLED, T0 + 2 * WEEK_MS))
    findings.scored("c", "later", T0 + 3 * WEEK_MS)
    assert known(findings) == [(transaction_hash(SAMPLED), True)]


def test_findings_come_in_the_order_in_which_they_became_known():
    findings = Findings(WEEK_MS)
    findings.scored("c", SAMPLED, T0)
    findings.reported(fraud("b", T0 + WEEK_MS + 1))
    findings.reported(fraud("a", T0 + WEEK_MS - 1))
    findings.scored("c", "later", T0 + 2 * WEEK_MS)
    assert [transaction for transaction, _ in known(findings)][:3] == [
        transaction_hash(name) for name in ("a", SAMPLED, "b")
    ]


def test_fraud_that_is_withdrawn_before_it_was_learned_is_none():
    findings = Findings(WEEK_MS)
    for name in (SAMPLED, UNSAMPLED):
        findings.scored("c", name, T0)
        findings.reported(fraud(name, T0 + DAY_MS))
        findings.reported(fraud(name, T0 + 2 * DAY_MS, "genuine"))
        # Told again, as brokers do.
        findings.reported(fraud(name, T0 + DAY_MS))
    findings.scored("c", UNSAMPLED + "x", T0 + 2 * WEEK_MS)
    assert known(findings) == [(transaction_hash(SAMPLED), False)], "as one that nobody reported"


def test_fraud_that_is_withdrawn_after_it_was_learned_is_learned_once_more_as_genuine():
    findings = Findings(WEEK_MS, since_ms=T0)
    findings.scored("c", "later", T0 + WEEK_MS)
    findings.reported(fraud("in training", T0))
    findings.reported(fraud("a", T0 + 1))
    assert known(findings) == [(transaction_hash("a"), True)]
    for name in ("a", "in training", "a"):
        findings.reported(fraud(name, T0 + 2, "genuine"))
    assert known(findings) == [(transaction_hash(name), False) for name in ("a", "in training")]


def test_fraud_that_is_found_again_after_it_was_withdrawn_is_learned_once():
    findings = Findings(WEEK_MS)
    for day, word in enumerate(("fraud", "genuine", "fraud", "genuine", "fraud")):
        findings.reported(fraud("a", T0 + day * DAY_MS, word))
    findings.scored("c", "later", T0 + WEEK_MS)
    (finding,) = findings.due(100)
    assert (finding.known_ms, finding.fraud) == (T0 + 4 * DAY_MS, True)


def test_fraud_that_is_read_behind_its_withdrawal_is_none():
    findings = Findings(WEEK_MS)
    for name in (SAMPLED, UNSAMPLED):
        findings.scored("c", name, T0)
        findings.reported(fraud(name, T0 + 2 * DAY_MS, "genuine"))
        findings.reported(fraud(name, T0 + DAY_MS))
    findings.scored("c", UNSAMPLED + "x", T0 + 2 * WEEK_MS)
    assert known(findings) == [(transaction_hash(SAMPLED), False)], "as one that nobody reported"
    findings.reported(fraud(UNSAMPLED, T0 + 3 * DAY_MS))
    assert known(findings) == [(transaction_hash(UNSAMPLED), True)], "found again after it was withdrawn"


def test_fraud_of_the_training_whose_withdrawal_is_read_first_is_learned_as_genuine():
    findings = Findings(WEEK_MS, since_ms=T0)
    findings.reported(fraud("a", T0 + 3, "genuine"))
    findings.reported(fraud("a", T0 + 2, "genuine"))
    findings.reported(fraud("a", T0))
    findings.scored("c", UNSAMPLED, T0 + WEEK_MS)
    (finding,) = findings.due(10)
    assert (finding.known_ms, finding.fraud) == (T0 + 3, False)


@pytest.mark.parametrize("later_ms", [0, 1])
def test_fraud_that_is_found_behind_a_word_of_genuine_is_fraud(later_ms):
    findings = Findings(WEEK_MS)
    findings.reported(fraud("a", T0, "genuine"))
    findings.reported(fraud("a", T0 + later_ms))
    findings.scored("c", UNSAMPLED, T0 + DAY_MS)
    assert known(findings) == [(transaction_hash("a"), True)]


def test_of_words_of_genuine_that_correct_nothing_the_newest_are_remembered(monkeypatch):
    monkeypatch.setattr(label_learning, "_MOST_EARLY", 2)
    findings = Findings(WEEK_MS)
    for name in ("a", "b", "c"):
        findings.reported(fraud(name, T0 + 1, "genuine"))
    for name in ("a", "b", "c"):
        findings.reported(fraud(name, T0))
    findings.scored("c", UNSAMPLED, T0 + DAY_MS)
    assert known(findings) == [(transaction_hash("a"), True)]


@pytest.mark.parametrize("label", ["genuine", "account_closed"])
def test_other_labels_are_no_findings(label):
    findings = Findings(WEEK_MS)
    findings.reported(fraud(UNSAMPLED, T0, label))
    findings.scored("c", UNSAMPLED, T0 + 3 * WEEK_MS)
    assert known(findings) == []


def test_what_a_model_was_trained_with_is_not_learned_again():
    findings = Findings(WEEK_MS, since_ms=T0 + WEEK_MS)
    findings.scored("c", SAMPLED, T0)
    findings.reported(fraud("a", T0 + WEEK_MS))
    findings.reported(fraud("b", T0 + WEEK_MS + 1))
    findings.scored("c", UNSAMPLED, T0 + 3 * WEEK_MS)
    assert known(findings) == [(transaction_hash("b"), True)]


def test_a_transaction_that_is_scored_again_is_learned_once():
    findings = Findings(WEEK_MS)
    for _ in range(2):
        findings.scored("c", SAMPLED, T0)
    findings.scored("c", UNSAMPLED, T0 + WEEK_MS)
    assert known(findings) == [(transaction_hash(SAMPLED), False)]


def test_what_histories_do_not_hold_any_more_is_not_waited_for():
    findings = Findings(WEEK_MS)
    findings.scored("c", UNSAMPLED, T0 + LATENESS_MS + 1)
    findings.scored("c", SAMPLED, T0)
    assert len(findings) == 0
    findings.scored("c", SAMPLED, T0 + 1)
    findings.scored("c", UNSAMPLED, T0 + LATENESS_MS + 2)
    assert known(findings) == []


def test_fraud_that_no_history_has_yet_is_asked_for_some_days_longer():
    findings = Findings(WEEK_MS)
    findings.reported(fraud("a", T0))
    for day in range(4):
        findings.scored("c", UNSAMPLED, T0 + day * DAY_MS)
        (finding,) = findings.due(10)
        assert findings.again(finding) is (day < 3)
    assert not findings.again(finding._replace(fraud=False, tries=0))


def test_label_of_another_customer_is_another_finding():
    findings = Findings(WEEK_MS)
    findings.reported(fraud("a", T0))
    findings.reported(fraud("a", T0).model_copy(update={"customer_id": "d"}))
    findings.scored("c", UNSAMPLED, T0)
    assert [finding.customer_id for finding in findings.due(10)] == ["c", "d"]


def test_sample_has_the_newest_each_once_until_nobody_asks():
    findings = Findings(WEEK_MS)
    for n in range(4 * FIRST + 3):
        findings.scored("c", f"s{n}", T0 + n)
    first, rest = findings.sample(5), findings.sample(4 * FIRST)
    assert len(first) == 5
    seen = [finding.transaction for finding in first + rest]
    assert seen == [transaction_hash(f"s{n}") for n in range(3, 4 * FIRST + 3)]
    findings.stop_sampling()
    findings.scored("c", SAMPLED, T0)
    assert findings.sample(5) == []


def history(*times: int, kinds: tuple[int, ...]) -> np.ndarray:
    records = np.zeros(len(times), dtype=RECORD)
    records["time_ms"], records["kind"] = times, kinds
    records["transaction"] = np.arange(1, len(times) + 1)
    return records


def test_event_is_found_and_neither_its_label_nor_what_a_correction_replaced():
    records = history(T0, T0 + 1, T0 + 2, kinds=(0, LABEL_KIND, REPLACED_KIND))
    event = event_of(records, 1)
    assert event is not None
    assert event["time_ms"].tolist() == [T0]
    assert [event_of(records, n) for n in (2, 3, 4)] == [None, None, None]


def test_event_whose_windows_are_not_whole_any_more_is_none():
    records = history(T0, T0 + LATENESS_MS, kinds=(0, 0))
    assert event_of(records, 1) is not None
    records["time_ms"][1] += 1
    assert event_of(records, 1) is None
    # A label is no sign that anything was let go.
    records["kind"][1] = LABEL_KIND
    assert event_of(records, 1) is not None


@pytest.fixture
def learning(models, training_data):
    """Beside the small bank's model: what nobody had called fraud is, where the amount is large."""
    learning = LabelLearning(models.fraud, DAY_MS)
    X = training_data.X.astype(np.float64)
    while not learning.ready:
        learning.see(X)
    findings, at_ms = Findings(0), models.fraud.card.trees_to_ms + 1
    for n in range(400):
        findings.reported(fraud(f"f{n}", at_ms + DAY_MS + n))
    findings.scored("c", UNSAMPLED, at_ms + 2 * DAY_MS)
    due = findings.due(400)
    learning.learn(due, X[np.argsort(-X[:, models.engine.names.index("amount")])[:400]], [at_ms] * 400)
    return learning


def test_card_of_what_was_learned_gives_the_same_scores_bit_for_bit(
    learning, models, training_data, tmp_path
):
    card = learning.card("2026-01-01T00:00:00.000Z")
    assert card is not None
    registry = ModelRegistry(tmp_path)
    saved = registry.save(card, learning.trees)
    loaded = registry.load("fraud", models.engine.names, saved.version)
    X = training_data.X[:2000].astype(np.float64)
    live = learning._model.now
    assert np.array_equal(loaded.log_odds(X), live.log_odds(X))
    assert np.abs(loaded.log_odds(X) - models.fraud.log_odds(X)).max() > 0.1
    assert loaded.contributions(X).sum(axis=1) == pytest.approx(loaded.log_odds(X), abs=1e-4)


def test_card_says_what_it_was_learned_beside_and_is_none_before(learning, models):
    assert LabelLearning(models.fraud, DAY_MS).card("") is None
    card = learning.card("2026-01-01T00:00:00.000Z")
    assert card.data["learned_from_labels"] | {"share": 0} == {
        "base": models.fraud.card.version,
        "frauds": 400,
        "genuine": 0,
        "share": 0,
        "known_to_ms": models.fraud.card.trees_to_ms + 1 + DAY_MS + 399,
    }
    assert frauds_learned(card) == 400
    assert frauds_learned(models.fraud.card) == 0
    assert 0.5 < card.data["learned_from_labels"]["share"] <= 1
    assert base_version(replace(card, version="v9")) == models.fraud.card.version
    assert base_version(models.fraud.card) == models.fraud.card.version


def test_learning_begins_from_the_trees_alone_whatever_they_had_learned_before(learning, models):
    card = replace(learning.card(""), version="v2")
    taught = TreeModel(card, models.fraud.trees, models.engine.names)
    assert taught.correction is not None
    assert LabelLearning(taught, DAY_MS)._model.now.correction is None


def test_a_card_says_how_far_its_trees_and_its_labels_reach(models):
    card = replace(models.fraud.card, data={"to_ms": 5})
    assert (card.trees_to_ms, card.learned_to_ms) == (5, 5)
    grown = replace(card, data={"to_ms": 5, "grown_anew": {"to_ms": 7}})
    assert (grown.trees_to_ms, grown.learned_to_ms) == (7, 7)
    learned = replace(grown, data={**grown.data, "learned_from_labels": {"known_to_ms": 9}})
    assert (learned.trees_to_ms, learned.learned_to_ms) == (7, 9)
