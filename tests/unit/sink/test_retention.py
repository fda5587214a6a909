"""What a sink does where the broker deleted a part of the logs."""

import pytest
from structlog.testing import capture_logs

from schemas.errors import HistoryError
from schemas.topics import FRAUD_SCORES, TRANSACTIONS
from tests.sinking import Broker, Deployment


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def deployment(tmp_path, broker):
    running = Deployment(tmp_path, broker)
    yield running
    running.database.close()


def score_all(broker, count, partition=0):
    """Transactions with their scores, behind those that are there."""
    for _ in range(count):
        name = f"t-{partition}-{len(broker.log(TRANSACTIONS.name, partition))}"
        broker.score(name, broker.accept(name, partition), partition)


def names(*numbers, partition=0):
    return sorted(f"t-{partition}-{number}" for number in numbers)


def test_a_sink_that_begins_with_nothing_leaves_out_scores_of_transactions_that_are_gone(broker, deployment):
    score_all(broker, 9)
    broker.cut(TRANSACTIONS.name, 5)
    broker.cut(FRAUD_SCORES.name, 1)
    with capture_logs() as said:
        deployment.run()
    assert deployment.rows == names(5, 6, 7, 8)
    assert (deployment.skipped("expired"), deployment.skipped("repeated")) == (4, 0)
    assert [line["event"] for line in said if line["log_level"] == "warning"] == [
        "scores of transactions that the broker deleted before the event log was begun"
    ]
    # Begun is begun: it goes on, and has nothing to say any more.
    score_all(broker, 2)
    with capture_logs() as said:
        deployment.run()
    assert deployment.rows == names(*range(5, 11))
    assert (deployment.skipped("expired"), said[-1]["event"]) == (4, "sink ready")


def test_it_goes_on_where_it_was_stopped_among_scores_of_transactions_that_are_gone(broker, deployment):
    score_all(broker, 20)
    broker.cut(TRANSACTIONS.name, 17)
    deployment.run(dies_after=4)
    assert deployment.rows == []
    assert 0 < deployment.store.offsets()[FRAUD_SCORES.name, 0] < 17
    deployment.run()
    assert deployment.rows == names(17, 18, 19)
    # Those of a flush that its end came before are counted by the next one.
    assert (deployment.skipped("expired"), deployment.skipped("repeated")) == (17, 0)


def test_a_transaction_that_was_deleted_after_the_event_log_was_begun_is_refused(broker, deployment):
    score_all(broker, 3)
    deployment.run()
    score_all(broker, 4)
    broker.cut(TRANSACTIONS.name, 5)
    with pytest.raises(HistoryError, match="offset 3 of transactions 0 has a score and is not in the log"):
        deployment.run()
    assert (deployment.rows, deployment.skipped("expired")) == (names(0, 1, 2), 0)


def test_it_is_refused_too_where_nothing_of_the_partition_was_stored_when_it_was_deleted(broker, deployment):
    """Of the other partition the event log has what came before these: a hole, not a later beginning."""
    broker.partitions = 2
    score_all(broker, 3)
    deployment.run()
    score_all(broker, 4, partition=1)
    broker.cut(TRANSACTIONS.name, 2, partition=1)
    with pytest.raises(HistoryError, match="offset 0 of transactions 1 has a score"):
        deployment.run()


def test_a_partition_that_is_added_later_is_read_from_its_first_transaction(broker, deployment):
    score_all(broker, 6)
    broker.cut(TRANSACTIONS.name, 4)
    deployment.run()
    broker.partitions = 2
    score_all(broker, 2, partition=1)
    deployment.run()
    assert deployment.rows == names(4, 5) + names(0, 1, partition=1)


def test_of_an_added_partition_too_what_was_deleted_before_it_was_read_is_refused(broker, deployment):
    score_all(broker, 3)
    deployment.run()
    broker.partitions = 2
    score_all(broker, 4, partition=1)
    broker.cut(TRANSACTIONS.name, 2, partition=1)
    with pytest.raises(HistoryError, match="offset 0 of transactions 1 has a score"):
        deployment.run()
