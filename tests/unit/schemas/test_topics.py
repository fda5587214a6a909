from schemas.fields import Message
from schemas.topics import CUSTOMERS, TOPICS, TRANSACTIONS

DAY_MS = 24 * 3600 * 1000


def test_topics_have_their_own_names_and_known_directions():
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
    assert {topic.direction for topic in TOPICS} == {"in", "out"}
    assert all(issubclass(topic.message, Message) and topic.meaning.endswith(".") for topic in TOPICS)


def test_log_outlives_the_longest_window_and_the_longest_lateness():
    assert int(TRANSACTIONS.config["retention.ms"]) >= (90 + 30) * DAY_MS


def test_profiles_are_compacted():
    assert dict(CUSTOMERS.config) == {"cleanup.policy": "compact"}
