import json
from dataclasses import replace

import numpy as np
import pytest

from features.engine import Engine
from features.entity_features import entity_features
from features.record import to_records
from infra.ahead import one_ahead
from models.backtest import UNTOLD, backtest_fraud, truth, victims, window
from models.backtest_report import fraud_report
from models.fraud_data import NEVER, FraudData, vectors_of
from models.fraud_training import train_fraud
from models.tree import TreeModel
from models.vectors import FRAUD, GENUINE, NO_LABEL, Rows, in_time_order
from schemas.label import Label
from schemas.transaction import Transaction
from tests.scoring import CREATED_AT, DAY_MS, at

WEEK_MS = 7 * DAY_MS


@pytest.fixture(scope="module")
def log(bank_messages):
    """The small bank as a log; what it never found out is genuine."""
    transactions = [m for m in bank_messages if isinstance(m, Transaction)]
    found = {m.transaction_id: m for m in bank_messages if isinstance(m, Label) and m.label == "fraud"}
    known = [found.get(t.transaction_id) for t in transactions]
    return in_time_order(
        [
            Rows(
                [t.transaction_id for t in transactions],
                [t.customer_id for t in transactions],
                to_records(transactions, [t.amount_minor for t in transactions]),
                np.array([FRAUD if label else GENUINE for label in known], dtype=np.int8),
                np.array(
                    [
                        label.label_time_ms if label else t.event_time_ms + WEEK_MS
                        for t, label in zip(transactions, known, strict=True)
                    ]
                ),
            )
        ]
    )


@pytest.fixture(scope="module")
def with_merchants():
    return Engine(entities=entity_features("merchant"))


@pytest.fixture(scope="module")
def cut_ms(log):
    return int(np.quantile(log.time_ms, 0.7)) // DAY_MS * DAY_MS


@pytest.fixture(scope="module")
def model(log, with_merchants, cut_ms):
    data = vectors_of(log, with_merchants, to_ms=cut_ms)
    return TreeModel(
        *train_fraud(data, with_merchants, created_at=CREATED_AT, rounds=30), with_merchants.names
    )


def scores(blocks):
    return {
        i: (score, int(decision))
        for block in blocks
        for i, score, decision in zip(
            block.transaction_ids, block.score.tolist(), block.decisions, strict=True
        )
    }


@pytest.fixture(scope="module")
def whole(log, model, with_merchants):
    return scores(backtest_fraud(log, model, with_merchants))


def test_history_before_the_window_is_seen_and_not_scored(log, model, with_merchants, cut_ms, whole):
    end_ms = cut_ms + 5 * DAY_MS
    part = scores(backtest_fraud(log, model, with_merchants, from_ms=cut_ms, to_ms=end_ms))
    inside = (log.time_ms >= cut_ms) & (log.time_ms < end_ms)
    assert set(part) == {log.transaction_ids[i] for i in np.flatnonzero(inside).tolist()}
    assert part == {i: whole[i] for i in part}


@pytest.fixture(scope="module")
def merchant_model(with_merchants):
    """Looks at two features alone: frauds at the merchant, and transactions before."""
    random, names = np.random.default_rng(5), with_merchants.names
    X = np.zeros((2_000, len(names)), dtype=np.float32)
    columns = [names.index("merchant_fraud_count_365d"), names.index("txn_count_90d")]
    X[:, columns] = random.integers(0, 3, (len(X), 2))
    fraud = random.random(len(X)) < X[:, columns].sum(axis=1) / 6
    times = np.arange(len(X)) * DAY_MS // 20
    data = FraudData(X, times, np.where(fraud, times, NEVER), int(times[-1]))
    return TreeModel(*train_fraud(data, with_merchants, created_at=CREATED_AT, rounds=30), names)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(
            [(at(30, merchant_id="m-1"), FRAUD), (at(229, customer_id="c-2"), NO_LABEL)],
            id="a fraud at the merchant 200 days before",
        ),
        pytest.param(
            [
                (at(30, transaction_id="again", merchant_id="m-2"), NO_LABEL),
                (at(145, transaction_id="again", merchant_id="m-1"), NO_LABEL),
            ],
            id="a transaction that came twice, the first time longer ago than what is kept",
        ),
    ],
)
def test_a_window_of_a_log_is_scored_as_in_the_whole_log(merchant_model, with_merchants, history):
    scored = [(at(day, merchant_id="m-1"), NO_LABEL) for day in (230, 231)]
    transactions, labels = zip(*history, *scored, strict=True)
    long_log = Rows(
        [t.transaction_id for t in transactions],
        [t.customer_id for t in transactions],
        to_records(transactions, [t.amount_minor for t in transactions]),
        np.array(labels, dtype=np.int8),
        np.array([t.event_time_ms + WEEK_MS for t in transactions]),
    )
    in_whole = scores(backtest_fraud(long_log, merchant_model, with_merchants))
    part = scores(backtest_fraud(long_log, merchant_model, with_merchants, from_ms=int(long_log.time_ms[-2])))
    assert part == {t.transaction_id: in_whole[t.transaction_id] for t, _ in scored}


def test_vectors_computed_ahead_change_nothing(log, model, with_merchants, whole):
    """All ahead, or the next one by another thread: nothing of a score flows back into vectors."""
    for ahead in (one_ahead, lambda parts: iter(list(parts))):
        assert scores(backtest_fraud(log, model, with_merchants, ahead=ahead)) == whole


def test_labels_of_the_future_change_no_score(log, model, with_merchants, cut_ms, whole):
    """Shuffled among all transactions whose label was not known when the window ends."""
    end_ms = cut_ms + 5 * DAY_MS
    later = np.flatnonzero(log.label_time_ms >= end_ms)
    mixed = np.random.default_rng(1).permutation(later)
    labels = log.labels.copy()
    labels[later] = log.labels[mixed]
    assert (labels != log.labels).sum() > 20
    shuffled = replace(log, labels=labels)
    part = scores(backtest_fraud(shuffled, model, with_merchants, from_ms=cut_ms, to_ms=end_ms))
    assert part == {i: whole[i] for i in part}


def test_labels_that_were_known_do_change_scores(log, model, with_merchants, cut_ms, whole):
    """The other test would pass as well where labels were not read at all."""
    none = replace(log, labels=np.zeros_like(log.labels))
    part = scores(backtest_fraud(none, model, with_merchants, from_ms=cut_ms))
    assert any(part[i] != whole[i] for i in part)


def test_training_up_to_a_moment_sees_nothing_later(log, with_merchants, cut_ms):
    data = vectors_of(log, with_merchants, to_ms=cut_ms)
    before = log.take(np.flatnonzero(log.time_ms < cut_ms))
    alone = vectors_of(before, with_merchants, to_ms=cut_ms)
    assert data.end_ms == cut_ms
    assert np.array_equal(data.X, alone.X, equal_nan=True)
    assert data.time_ms.max() < cut_ms


def test_training_from_a_moment_keeps_the_history_before_it(log, with_merchants, cut_ms):
    whole = vectors_of(log, with_merchants)
    part = vectors_of(log, with_merchants, from_ms=cut_ms)
    assert len(part.X) == (log.time_ms >= cut_ms).sum()
    assert np.array_equal(part.X, whole.X[-len(part.X) :], equal_nan=True)
    assert part.known_ms.tolist() == whole.known_ms[-len(part.X) :].tolist()


def test_the_order_of_a_file_changes_nothing(log):
    mixed = log.take(np.random.default_rng(2).permutation(len(log)))
    again = in_time_order([mixed.part(0, 1000), mixed.part(1000, len(mixed))])
    assert again.time_ms.tolist() == log.time_ms.tolist()
    order = sorted(range(len(log)), key=lambda i: (again.time_ms[i], again.transaction_ids[i]))
    expected = sorted(range(len(log)), key=lambda i: (log.time_ms[i], log.transaction_ids[i]))
    assert [again.transaction_ids[i] for i in order] == [log.transaction_ids[i] for i in expected]
    assert [int(again.labels[i]) for i in order] == [int(log.labels[i]) for i in expected]


def rows(labels, known_ms=None):
    transactions = [at(n, transaction_id=f"t-{n}") for n in range(len(labels))]
    return Rows(
        [t.transaction_id for t in transactions],
        [t.customer_id for t in transactions],
        to_records(transactions, [t.amount_minor for t in transactions]),
        np.array(labels, dtype=np.int8),
        np.array(known_ms or [0] * len(labels), dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([FRAUD, GENUINE, NO_LABEL], [1, 0, UNTOLD]),
        ([FRAUD, NO_LABEL, NO_LABEL], [1, 0, 0]),
        ([NO_LABEL, NO_LABEL], [UNTOLD, UNTOLD]),
    ],
)
def test_what_a_file_does_not_say_is_genuine_only_where_it_names_just_the_frauds(labels, expected):
    assert truth(rows(labels)).tolist() == expected


def test_untold_rows_are_not_learned_from(engine):
    data = vectors_of(rows([FRAUD, GENUINE, NO_LABEL, GENUINE]), engine)
    assert len(data.X) == 3
    assert data.known_ms.tolist() == [0, NEVER, NEVER]


def test_nothing_lies_in_an_empty_window(log, engine):
    assert window(log, engine, int(log.time_ms[-1]) + 1, None)[1:] == (len(log), len(log))
    assert window(log, engine, 10, 5)[1:] == (0, 0)


def test_report_of_a_backtest(log, model, with_merchants, cut_ms):
    blocks = list(backtest_fraud(log, model, with_merchants, from_ms=cut_ms))
    report = fraud_report(blocks, model.card, victims(log), resamples=20)
    document = report.document()
    assert document["labelled"] == (log.time_ms >= cut_ms).sum()
    assert document["frauds"] == ((log.time_ms >= cut_ms) & (log.labels == FRAUD)).sum()
    assert document["figures"]["roc_auc"]["low"] < document["figures"]["roc_auc"]["value"]
    known = {c for c, ms in victims(log).items() if ms <= cut_ms // DAY_MS * DAY_MS}
    first_day = np.flatnonzero((log.time_ms >= cut_ms) & (log.time_ms // DAY_MS == cut_ms // DAY_MS))
    # Also whose fraud became known before the first transaction that is scored.
    assert sum(log.customer_ids[i] in known for i in first_day.tolist()) > 0
    begun = log.time_ms // DAY_MS * DAY_MS
    since = np.array([victims(log).get(c, NEVER) for c in log.customer_ids])
    assert document["protocol"]["rows"] == ((log.time_ms >= cut_ms) & (since > begun)).sum()
    assert sum(document["decisions"].values()) == document["labelled"]
    shares = [effect["share"] for effect in document["thresholds"]]
    assert shares == sorted(shares)
    amounts = [s for s in document["segments"] if s["kind"] == "amount"]
    assert sum(s["rows"] for s in amounts) == document["labelled"]
    json.dumps(document, allow_nan=False)
    assert not any("learned from" in note for note in document["notes"])


def test_victims_are_known_from_their_first_report_on_and_may_count_from_a_day_on():
    three = rows([FRAUD, GENUINE, FRAUD])
    three = replace(three, customer_ids=["a", "b", "a"], label_time_ms=np.array([9, 1, 5]))
    assert victims(three) == {"a": 5}
    assert victims(three, since_ms=6) == {"a": 9}
    assert victims(three, since_ms=10) == {}


def test_a_report_says_what_it_cannot(model, with_merchants):
    for labels, said in (
        ([NO_LABEL] * 3, "no scored transaction has a label"),
        ([FRAUD] * 3, "all labelled transactions are fraud"),
        ([GENUINE] * 3, "all labelled transactions are genuine"),
    ):
        blocks = list(backtest_fraud(rows(labels), model, with_merchants))
        report = fraud_report(blocks, model.card, {}, resamples=5)
        assert any(said in note for note in report.notes)
        json.dumps(report.document(), allow_nan=False)


def test_a_model_that_learned_from_what_it_scores_is_said_to(log, model, with_merchants, cut_ms):
    blocks = list(backtest_fraud(log, model, with_merchants, from_ms=cut_ms - 20 * DAY_MS, to_ms=cut_ms))
    report = fraud_report(blocks, model.card, victims(log), resamples=0)
    assert any("flatter" in note for note in report.notes)


def test_the_anomaly_score_looks_at_no_label(log, model, with_merchants, cut_ms):
    other = replace(log, labels=np.roll(log.labels, 17))
    found = [
        np.concatenate([b.anomaly for b in backtest_fraud(rows, model, with_merchants, from_ms=cut_ms)])
        for rows in (log, other)
    ]
    assert found[0].tolist() == found[1].tolist()
    assert ((found[0] >= 0) & (found[0] <= 1)).all()
    y = np.concatenate([b.label for b in backtest_fraud(log, model, with_merchants, from_ms=cut_ms)]) == 1
    assert found[0][y].mean() > found[0][~y].mean() + 0.1


def test_new_customers_get_scores(model, with_merchants):
    """Cold start: nothing is known but the event."""
    found = scores(backtest_fraud(rows([GENUINE]), model, with_merchants))
    assert 0 < found["t-0"][0] < 1
