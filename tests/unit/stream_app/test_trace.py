from schemas.topics import ALERTS, DEAD_LETTERS, FRAUD_SCORES, TRANSACTIONS
from stream_app.trace import trace_context
from tests.streaming import Stream, transaction

PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def headers_of(stream: Stream, topic: str) -> list[tuple[tuple[str, bytes], ...]]:
    return [record.headers for record in stream.kafka.logs[topic, 0] if record is not None]


async def test_score_carries_the_trace_of_its_transaction_and_of_no_other(stream: Stream) -> None:
    stream.kafka.put(TRANSACTIONS.name, 0, transaction(1), headers=(PARENT, ("cookie", b"secret")))
    stream.kafka.put(TRANSACTIONS.name, 0, transaction(2))
    await stream.start()
    await stream.run()

    assert headers_of(stream, FRAUD_SCORES.name) == [(PARENT,), ()]


async def test_dead_letter_carries_the_trace_of_what_was_refused(stream: Stream) -> None:
    stream.kafka.put(TRANSACTIONS.name, 0, b"not json", headers=(PARENT,))
    await stream.start()
    await stream.run()

    assert headers_of(stream, DEAD_LETTERS.name) == [(PARENT,)]
    assert headers_of(stream, ALERTS.name) == []


def test_what_no_tracer_writes_is_dropped() -> None:
    assert trace_context(None) == ()
    assert trace_context([("traceparent", b"x" * 600), ("tracestate", None)]) == ()
