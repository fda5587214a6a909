"""Quix Streams, written the usual way: a data frame with a stateful function.

Quix's own windows make one row for each window and key, drop what is late, and cannot be joined to a vector
of more than a hundred features as of each event. Therefore the customer's history is kept as state (RocksDB
with a changelog topic, Quix's defaults) and read by Tidegate's engine, which is exact. Its state has no
append: the whole history is written for each event.
"""

import os
from pathlib import Path

from quixstreams import Application, message_context

from tests.bench.peers.one_event import Scorer

_HEADER_BYTES = 48

app = Application(
    broker_address=os.environ["PEER_BOOTSTRAP"],
    consumer_group="peer-quix",
    auto_offset_reset="earliest",
    state_dir=os.environ["PEER_DIR"],
    loglevel="WARNING",
)
transactions = app.topic("transactions", key_deserializer="str", value_deserializer="bytes")
fraud_scores = app.topic("scores.fraud", key_serializer="str", value_serializer="bytes")
churn_scores = app.topic("scores.churn", key_serializer="str", value_serializer="bytes")
scorer = Scorer(Path(os.environ["PEER_MODELS"]))


def score(value, state):
    context, stored = message_context(), state.get_bytes("history")
    source = {"topic": context.topic, "partition": context.partition, "offset": context.offset}
    scored = scorer.score(value, stored, source)
    state.set_bytes("history", scored.header + (stored or b"")[_HEADER_BYTES:] + scored.record)
    return scored


scored = app.dataframe(transactions).apply(score, stateful=True)
scored.apply(lambda one: one.fraud).to_topic(fraud_scores)
scored.filter(lambda one: one.churn is not None).apply(lambda one: one.churn).to_topic(churn_scores)

if __name__ == "__main__":
    app.run()
