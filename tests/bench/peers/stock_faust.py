"""Stock Faust, written the usual way: an agent that takes one event, asks Redis, scores, sends.

Two trips to Redis for each event, because what is written follows from what was read: the history, then
one pipeline with everything that changes. Nothing ties them to the offset that Faust commits: after a
crash an event can count twice or, where its agent raised, never.
"""

import os
from pathlib import Path

import faust
import redis.asyncio as redis

from tests.bench.peers.one_event import Scorer

_HEADER_BYTES = 48

app = faust.App(
    "peer-faust",
    broker=f"kafka://{os.environ['PEER_BOOTSTRAP']}",
    store="memory://",
    datadir=os.environ["PEER_DIR"],
    web_enabled=False,
    topic_disable_leader=True,
    topic_allow_declare=False,
    consumer_auto_offset_reset="earliest",
)
transactions = app.topic("transactions", key_serializer="raw", value_serializer="raw")
fraud_scores = app.topic("scores.fraud", key_serializer="raw", value_serializer="raw")
churn_scores = app.topic("scores.churn", key_serializer="raw", value_serializer="raw")
store = redis.Redis.from_url(os.environ["PEER_REDIS_URL"])
scorer = Scorer(Path(os.environ["PEER_MODELS"]))


@app.agent(transactions)
async def score(stream):
    async for event in stream.events():
        customer = event.key
        stored = await store.get(b"h:" + customer)
        message = event.message
        source = {"topic": message.topic, "partition": message.partition, "offset": message.offset}
        scored = scorer.score(event.value, stored, source)
        async with store.pipeline(transaction=False) as pipe:
            pipe.setrange(b"h:" + customer, 0, scored.header)
            pipe.append(b"h:" + customer, scored.record)
            pipe.lpush(b"s:" + customer, scored.fraud)
            pipe.ltrim(b"s:" + customer, 0, 9)
            if scored.churn is not None:
                pipe.set(b"c:" + customer, scored.churn)
            await pipe.execute()
        await fraud_scores.send(key=customer, value=scored.fraud)
        if scored.churn is not None:
            await churn_scores.send(key=customer, value=scored.churn)


if __name__ == "__main__":
    app.main()
