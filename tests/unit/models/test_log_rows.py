import numpy as np
import pytest

from features.attributes import attribute_features
from features.engine import Engine
from features.entity_features import entity_features
from models.fraud_data import NEVER, vectors_of
from models.log_rows import rows_of_messages
from models.vectors import FRAUD, GENUINE, NO_LABEL
from schemas.label import Label
from schemas.transaction import Transaction
from tests.scoring import DAY_MS, START, at, score_in_chunks, transactions_of

START_MS = int(START.timestamp() * 1000)
HOUR_MS = 3_600_000


def label(day, transaction_id, value="fraud", customer_id="c-1"):
    return Label(
        customer_id=customer_id,
        transaction_id=transaction_id,
        label=value,
        label_time=START_MS + int(day * DAY_MS),
    )


def test_vectors_of_a_log_are_those_of_the_stream(bank_messages, models):
    stream = transactions_of(bank_messages, 12)[:2500]
    rows = rows_of_messages(stream, models.engine)
    data = vectors_of(rows, models.engine)
    served = np.array(score_in_chunks(stream, [640], models).vectors)
    np.testing.assert_array_equal(data.X, served.astype(np.float32))
    assert rows.transaction_ids == [t.transaction_id for t in stream]
    assert data.time_ms.tolist() == [t.event_time_ms for t in stream]


def test_a_duplicate_is_learned_from_once(engine):
    rows = rows_of_messages([at(1), at(2), at(2), at(3)], engine)
    assert len(rows) == 4
    assert len(vectors_of(rows, engine).X) == 3


def test_the_newest_label_counts_from_when_it_was_first_said(engine):
    stream = [
        *(at(n, transaction_id=f"t-{n}") for n in (1, 2, 3, 4, 5, 6)),
        label(6, "t-1"),
        label(5, "t-1"),
        label(4, "t-1", "genuine"),
        label(7, "t-5"),
        label(8, "t-5", "genuine"),
        label(7.5, "t-5"),
        label(7, "t-6"),
        label(9, "t-6"),
        label(8, "t-6", "genuine"),
        label(5, "t-2", "genuine"),
        label(7, "t-2"),
        label(5, "t-3", "genuine"),
        label(8, "t-9"),
    ]
    rows = rows_of_messages(stream, engine)
    assert rows.labels.tolist() == [FRAUD, FRAUD, GENUINE, NO_LABEL, GENUINE, FRAUD]
    assert ((rows.label_time_ms - START_MS) // DAY_MS)[[0, 1, 2, 4, 5]].tolist() == [5, 7, 5, 8, 9]
    assert rows.closed_ms == {}
    known_ms = vectors_of(rows.frauds_only(), engine).known_ms
    assert known_ms.tolist() == [
        *(START_MS + day * DAY_MS for day in (5, 7)),
        *(NEVER, NEVER, NEVER),
        START_MS + 9 * DAY_MS,
    ]


def test_an_account_is_closed_when_that_was_said_first(engine):
    closed = [
        Label(customer_id="c-1", label="account_closed", label_time=START_MS + day * DAY_MS) for day in (6, 8)
    ]
    rows = rows_of_messages([at(1), *closed], engine)
    assert rows.labels.tolist() == [NO_LABEL]
    assert rows.closed_ms == {"c-1": START_MS + 6 * DAY_MS}


def test_nothing_is_no_rows(engine):
    rows = rows_of_messages([], engine)
    assert (len(rows), rows.closed_ms) == (0, {})
    assert vectors_of(rows, engine).X.shape == (0, len(engine.names))


def test_attributes_come_along():
    engine = Engine(attributes=attribute_features("risk"))
    rows = rows_of_messages([at(1, attributes={"risk": 0.5}), at(2)], engine)
    assert rows.attributes is not None
    np.testing.assert_array_equal(rows.attributes, [[0.5], [np.nan]])


def entity_log():
    """Frauds at one shop, their labels in between, and later customers of the same shop."""
    sent: list[Transaction | Label] = []
    for n in range(20):
        sent.append(at(n / 4, transaction_id=f"t-{n}", customer_id=f"c-{n % 4}", merchant_id="m-1"))
        if n % 5 == 0:
            known = sent[-1].event_time_ms + HOUR_MS
            about = {"customer_id": f"c-{n % 4}", "transaction_id": f"t-{n}", "label": "fraud"}
            sent += [Label.model_validate({**about, "label_time": known})] * 2
    return [*sent, *(at(12, transaction_id=f"u-{n}", customer_id="c-9", merchant_id="m-1") for n in range(3))]


def test_vectors_hold_what_other_customers_did_at_the_merchant():
    engine = Engine(entities=entity_features("merchant"))
    data = vectors_of(rows_of_messages(entity_log(), engine), engine)
    last = dict(zip(engine.names, data.X[-1].tolist(), strict=True))
    # All twenty are over by the hour a week before, with the frauds 0, 5, 10 and 15; each is said twice.
    assert last["merchant_txn_count_30d"] == 20
    assert last["merchant_fraud_count_30d"] == 4
    assert last["merchant_fraud_share_30d"] == pytest.approx(0.2)
