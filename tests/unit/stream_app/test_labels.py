import asyncio
from pathlib import Path

from features.codec import decode
from infra.intake import Intake
from infra.pacing import Pacer
from infra.replay import Replay
from infra.row_batches import to_rows
from models.model_set import Models
from models.vectors import in_time_order
from schemas.errors import DependencyError
from schemas.topics import LABELS, TRANSACTIONS
from tests.streaming import DAY_MS, PUBLISHED_MS, START_MS, Stream, label, transaction
from tests.unit.infra.mappings import mapping

T, L = TRANSACTIONS.name, LABELS.name


async def labels_of(stream: Stream, customer: str) -> list[int]:
    state = await stream.store.read(customer)
    assert state is not None
    records = decode(state.history).records
    return [int(r["label"]) for r in records if r["kind"] == 1]


async def test_label_waits_for_transactions_published_before_it(stream: Stream) -> None:
    stream.transact(4)
    stream.kafka.put(L, 0, label("t-1", customer="c-1"))
    await stream.start()
    chunk = stream.consumer.fetch(L, 0)
    assert chunk is not None
    handling = asyncio.create_task(stream.worker.handle([chunk]))
    await asyncio.sleep(0.01)
    assert not handling.done()
    await stream.run(topics=[T])
    await handling

    assert await labels_of(stream, "c-1") == [1]
    assert stream.dead == []
    assert stream.worker.processed(L, 0) == 1


async def test_label_does_not_wait_for_what_was_deleted_from_the_log(stream: Stream) -> None:
    stream.kafka.logs[T, 0] = [None] * 5
    stream.kafka.starts[T, 0] = 5
    stream.kafka.put(L, 0, label("t-1", customer="c-1"))
    await stream.start()
    await asyncio.wait_for(stream.run(), 5)

    assert stream.reasons == ["unknown_transaction"]


async def test_label_does_not_wait_for_markers_at_the_end_of_the_log(stream: Stream) -> None:
    """A producer with transactions leaves an offset behind its records that nobody is ever given."""
    stream.transact(2)
    stream.kafka.logs[T, 0].append(None)
    stream.kafka.put(L, 0, label("t-1", customer="c-1"))
    await stream.start()
    await asyncio.wait_for(stream.run(), 5)

    assert await labels_of(stream, "c-1") == [1]


async def test_label_waits_on_while_the_consumer_does_not_say_where_it_is(stream: Stream) -> None:
    """So it is in a rebalance: the worker must not end of it."""
    stream.transact(2)
    stream.kafka.logs[T, 0].append(None)
    stream.kafka.put(L, 0, label("t-1", customer="c-1"))
    await stream.start()
    position, asked = stream.consumer.position, []

    async def silent_at_first(topic: str, partition: int) -> int:
        asked.append(topic)
        if len(asked) == 1:
            raise DependencyError("Kafka's consumer does not say where it is")
        return await position(topic, partition)

    stream.consumer.position = silent_at_first  # type: ignore[method-assign]
    await asyncio.wait_for(stream.run(), 10)

    assert len(asked) > 1
    assert not stream.worker.failed.done()
    assert await labels_of(stream, "c-1") == [1]


async def test_label_for_an_unknown_transaction_is_a_dead_letter(stream: Stream) -> None:
    stream.transact(3)
    stream.kafka.put(L, 0, label("t-99", customer="c-1"))
    stream.kafka.put(L, 0, label("t-1", customer="c-2"))
    stream.kafka.put(L, 0, label("t-1", customer="c-1"))
    stream.kafka.put(L, 0, label("t-1", customer="nobody"))
    await stream.start()
    await stream.run()

    assert stream.reasons == ["unknown_transaction"] * 3
    assert [d["source"]["offset"] for d in stream.dead] == [0, 1, 3]
    assert await labels_of(stream, "c-1") == [1]


async def test_account_closed_needs_a_known_customer_only(stream: Stream) -> None:
    stream.transact(3)
    for customer in ("c-1", "nobody"):
        stream.kafka.put(L, 0, {"customer_id": customer, "label": "account_closed", "label_time": START_MS})
    await stream.start()
    await stream.run()

    assert await labels_of(stream, "c-1") == [3]
    assert stream.reasons == ["unknown_customer"]


async def test_the_same_label_twice_counts_once_and_another_value_is_another_label(stream: Stream) -> None:
    stream.transact(3)
    for value in ("fraud", "fraud", "genuine"):
        stream.kafka.put(L, 0, label("t-1", customer="c-1", value=value))
    await stream.start()
    await stream.run([9, 1, 9] * 4)

    assert sorted(await labels_of(stream, "c-1")) == [1, 2]
    assert stream.observer.outcomes["labelled"] == 2


async def test_label_from_the_future_is_refused_and_the_right_one_of_its_transaction_counts(
    stream: Stream,
) -> None:
    stream.transact(6, customers=1)
    stream.kafka.put(L, 0, label("t-1", customer="c-0", at_ms=START_MS + 9000 * DAY_MS))
    stream.kafka.put(L, 0, label("t-1", customer="c-0"))
    stream.kafka.put(L, 0, label("t-2", customer="c-0"))
    await stream.start()
    await stream.run()

    assert stream.reasons == ["event_from_the_future"]
    assert stream.dead[0]["detail"].startswith("label_time: more than a day after the message was published")
    assert len(await labels_of(stream, "c-0")) == 2


async def test_bad_labels_are_dead_letters_and_their_neighbours_count(stream: Stream) -> None:
    stream.transact(3)
    bad = (b"?", None, {"customer_id": "c-1", "label": "fraud", "label_time": START_MS}, [1])
    for value in (*bad, label("t-1", customer="c-1")):
        stream.kafka.put(L, 0, value)
    await stream.start()
    await stream.run()

    assert stream.reasons == ["not_json", "empty", "invalid_field", "not_an_object"]
    assert {d["source"]["topic"] for d in stream.dead} == {L}
    assert await labels_of(stream, "c-1") == [1]


async def test_misplaced_label_is_forwarded(models: Models) -> None:
    stream = Stream(models, partitions=4, misplaced=True)
    for n in range(6):
        stream.kafka.put(T, 1, transaction(n, customer=f"customer-{n}"), None)
    await stream.start()
    await stream.run()
    for n in range(6):
        stream.kafka.put(L, 3, label(f"t-{n}", customer=f"customer-{n}"), None)
    await stream.run()

    assert stream.dead == []
    for n in range(6):
        assert await labels_of(stream, f"customer-{n}") == [1]


async def test_replayed_labels_change_nothing(models: Models) -> None:
    once, twice = Stream(models), Stream(models)
    for stream in (once, twice):
        stream.transact(6)
        for n in range(6):
            stream.kafka.put(L, 0, label(f"t-{n}", customer=f"c-{n % 3}"))
        stream.store.lost_replies = 0 if stream is once else 50
        await stream.start()
        await stream.run([6, 2, 1])

    assert once.store.state() == twice.store.state()


async def test_stream_and_backtest_of_one_file_agree_on_who_closed_the_account_and_when(
    stream: Stream, tmp_path: Path
) -> None:
    """`tidegate publish --labels` into a worker, and the same file read as training and backtest read it."""
    rules = mapping(account_closed="{column: left, format: '%Y-%m-%d'}")
    data = tmp_path / "data.csv"
    rows = [("c1", 1, "2026-01-20"), ("c2", 2, ""), ("c1", 9, "2026-01-20"), ("c3", 12, "")]
    # It says so on the last row only; another one's time is later than the file's end; one's is not yet.
    rows += [("c3", 15, "2026-01-18"), ("c4", 16, "2026-03-01"), ("c2", 25, ""), ("c5", 26, "2090-01-01")]
    data.write_text(
        "id,customer,ts,amount,left\n"
        + "".join(f"t{i},{c},2026-01-{day:02}T10:00:00Z,5,{left}\n" for i, (c, day, left) in enumerate(rows))
    )

    class Log:
        async def publish(
            self, topic: str, key: bytes, value: bytes, timestamp_ms: int | None = None
        ) -> None:
            stream.kafka.put(topic, 0, value, key)

    with Intake(data, rules) as intake:
        await Replay(Log(), Pacer(), topic=T, labels_topic=L, now_ms=lambda: PUBLISHED_MS).run(intake)
    with Intake(data, rules) as intake:
        read = in_time_order(to_rows(events, labels=True) for events in intake.plain())
    await stream.start()
    await stream.run()

    known: dict[str, int] = {}
    for customer in set(read.customer_ids):
        state = await stream.store.read(customer)
        assert state is not None
        told = [int(r["time_ms"]) for r in decode(state.history).records if r["label"] == 3]
        assert len(told) <= 1
        if told:
            known[customer] = told[0]
    assert known == {c: time_ms for c, time_ms in read.closed_ms.items() if time_ms <= PUBLISHED_MS}
    assert sorted(known) == ["c1", "c3", "c4"]
    assert stream.dead == []
