from schemas.topics import ALERTS, DEAD_LETTERS, FRAUD_SCORES, TRANSACTIONS
from schemas.trace import sampled_trace_id
from stream_app.trace import first_traced, trace_context
from tests.streaming import Record, Stream, transaction

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
    assert trace_context([("traceparent", b"Erika Beispiel"), ("tracestate", b"a=1")]) == ()
    assert trace_context([("tracestate", b"a=1")]) == ()


def test_no_card_number_goes_on_with_a_trace() -> None:
    card = b"4111111111111111"
    assert trace_context([("traceparent", card)]) == ()
    assert trace_context([PARENT, ("tracestate", b"a=" + card)]) == (PARENT,)
    assert trace_context([PARENT, ("tracestate", b"a=00f067aa0ba902b7")]) == (
        PARENT,
        ("tracestate", b"a=00f067aa0ba902b7"),
    )


def test_only_a_sampled_trace_that_is_one_is_named() -> None:
    assert sampled_trace_id(PARENT[1]) == "0af7651916cd43dd8448eb211c80319c"
    for wrong in (
        b"",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"ff" + PARENT[1][2:],
        PARENT[1].upper(),
    ):
        assert sampled_trace_id(wrong) is None
    assert sampled_trace_id(b"01" + PARENT[1][2:] + b"-of-a-later-version") is not None


def test_first_record_of_a_sampled_trace_is_found() -> None:
    def record(*headers: tuple[str, bytes]) -> Record:
        return Record("transactions", 0, 0, b"", None, headers=headers)

    unsampled = ("traceparent", PARENT[1][:-1] + b"0")
    assert first_traced([record(), record(unsampled)]) is None
    assert first_traced([record(unsampled), record(("tracestate", b"a=1"), PARENT), record(PARENT)]) == (
        1,
        "0af7651916cd43dd8448eb211c80319c",
    )
