"""What a sink does where the broker deleted a part of the logs."""

import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.errors import HistoryError
from schemas.topics import CHURN_SCORES, ERASURES, FRAUD_SCORES, TRANSACTIONS
from tests.sinking import Broker, Deployment, customer_of, score, transaction


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def deployment(tmp_path, broker):
    running = Deployment(tmp_path, broker)
    yield running
    running.close()


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


def test_where_partitions_were_added_behind_an_event_log_it_is_refused(broker, deployment):
    score_all(broker, 6)
    deployment.run()
    broker.partitions = 2
    with pytest.raises(HistoryError, match=r"from 1 partitions, the topics now have 2.* count twice"):
        deployment.run()
    assert deployment.rows == names(*range(6))


def test_a_partition_that_is_added_before_anything_was_written_is_read(broker, deployment):
    deployment.run()
    broker.partitions = 2
    score_all(broker, 2, partition=1)
    deployment.run()
    assert deployment.rows == names(0, 1, partition=1)


def test_what_was_passed_on_and_scored_once_more_is_one_row_where_all_is_built_anew(broker, deployment):
    """Of the customer of partition 1, whose transactions were in the only one before."""
    broker.partitions = 2
    broker.log(TRANSACTIONS.name).append(transaction("t-moved", 1))
    broker.log(FRAUD_SCORES.name).append(score("t-moved", 0).replace(*owners()))
    score_all(broker, 2)
    broker.score("t-moved", broker.accept("t-moved", 1), 1)
    deployment.run()
    assert deployment.rows == sorted(["t-moved", "t-0-1", "t-0-2"])
    assert deployment.skipped("moved") == 1


def owners():
    return customer_of(0).encode(), customer_of(1).encode()


def mark(broker, *topics):
    """The end of a producer's transaction: a record that consumers are not given."""
    for topic in topics:
        broker.log(topic).append(None)


@pytest.mark.parametrize("topic", [FRAUD_SCORES.name, CHURN_SCORES.name, ERASURES.name])
def test_a_log_that_begins_behind_the_marker_of_what_was_stored_has_lost_nothing(broker, deployment, topic):
    score_all(broker, 4)
    for other in (CHURN_SCORES.name, ERASURES.name):
        broker.log(other).append(b"{}")
    mark(broker, FRAUD_SCORES.name, CHURN_SCORES.name, ERASURES.name)
    deployment.run()
    broker.cut(topic, len(broker.log(topic)))
    deployment.run()
    score_all(broker, 1)
    deployment.run()
    assert deployment.rows == names(*range(5))


def test_a_score_that_waits_is_not_passed_by_with_the_marker_behind_it(broker, deployment):
    score_all(broker, 2)
    deployment.run()
    # Its transaction is not shown yet: it belongs to one of its producer's that is still open.
    broker.stable[TopicPartition(TRANSACTIONS.name, 0)] = 2
    score_all(broker, 1)
    mark(broker, FRAUD_SCORES.name)
    deployment.run()
    assert deployment.rows == names(0, 1)
    assert deployment.store.offsets()[FRAUD_SCORES.name, 0] == 2
    broker.cut(FRAUD_SCORES.name, 3)
    with pytest.raises(HistoryError, match="starts at offset 3, the event log goes to 2"):
        deployment.run()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.booleans()),
        st.tuples(st.just("mark"), st.sampled_from([TRANSACTIONS.name, FRAUD_SCORES.name])),
        st.tuples(st.just("stop"), st.integers(1, 4)),
        st.tuples(st.just("die"), st.integers(1, 6)),
        st.tuples(st.just("cut"), st.sampled_from([TRANSACTIONS.name, FRAUD_SCORES.name])),
    ),
    max_size=25,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), STEPS)
def test_whatever_was_deleted_all_scored_is_stored_once_or_the_sink_says_that_it_is_not(data, steps):
    """Nothing that was not stored is passed by; nobody is refused for what was stored, or never a record."""
    broker, scored = Broker(), []
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Deployment(Path(folder), broker)) as deployment,
    ):

        def accept(has_score):
            name = f"t-0-{len(broker.log(TRANSACTIONS.name))}"
            offset = broker.accept(name)
            if has_score:
                broker.score(name, offset)
                scored.append(name)

        accept(True)
        deployment.run()
        all_read = True
        for step, how in [*steps, ("stop", 3)]:
            if step == "accept":
                accept(how)
                all_read = False
            elif step == "mark":
                mark(broker, how)
                all_read = False
            elif step == "cut":
                tp = TopicPartition(how, 0)
                broker.starts[tp] = data.draw(st.integers(broker.start(tp), len(broker.log(how))))
            else:
                try:
                    deployment.run(dies_after=how if step == "die" else None, fetched=how)
                except HistoryError:
                    assert not all_read
                    return
                all_read = step == "stop"
                if all_read:
                    assert deployment.rows == sorted(scored)
