import pytest

from infra import sink_feed
from infra.sink_feed import SinkFeed
from schemas.errors import HistoryError
from schemas.topics import CHURN_SCORES, CUSTOMERS, ERASURES, FRAUD_SCORES, TRANSACTIONS


class Log:
    """A broker that deleted what is before an offset of each topic, and its consumer."""

    def __init__(self, starts):
        self.starts, self.sought = starts, {}

    def assign(self, partitions):
        pass

    async def beginning_offsets(self, partitions):
        return {tp: self.starts.get(tp.topic, 0) for tp in partitions}

    def seek(self, tp, offset):
        self.sought[tp.topic] = offset

    async def position(self, tp):
        return self.sought[tp.topic]


@pytest.fixture
def opened(monkeypatch):
    async def open_(starts, stored):
        log = Log(starts)

        async def connected(*args, **options):
            return log

        async def bounds(self, partitions):
            return {tp: (0, 0) for tp in partitions}

        monkeypatch.setattr(sink_feed, "connected", connected)
        monkeypatch.setattr(SinkFeed, "bounds", bounds)
        found = await SinkFeed("nowhere:1", 10).open(
            1, {(topic, 0): offset for topic, offset in stored.items()}
        )
        return found, log.sought

    return open_


async def test_transactions_without_a_score_may_have_been_deleted_by_the_broker(opened):
    """Dead letters at the end, or the marker of a producer's transaction: all that counts is stored."""
    found, sought = await opened({TRANSACTIONS.name: 25}, {TRANSACTIONS.name: 20, FRAUD_SCORES.name: 20})
    assert found[TRANSACTIONS.name, 0] == sought[TRANSACTIONS.name] == 25
    assert sought[FRAUD_SCORES.name] == 20


async def test_profiles_that_were_compacted_away_are_no_loss(opened):
    assert (await opened({CUSTOMERS.name: 7}, {CUSTOMERS.name: 3}))[1][CUSTOMERS.name] == 7


@pytest.mark.parametrize("topic", [FRAUD_SCORES.name, CHURN_SCORES.name, ERASURES.name])
async def test_what_the_broker_deleted_before_it_was_read_is_an_error(opened, topic):
    with pytest.raises(HistoryError, match=f"{topic} 0 starts at offset 9, the event log goes to 8"):
        await opened({topic: 9}, {topic: 8})
    assert (await opened({topic: 8}, {topic: 8}))[1][topic] == 8
