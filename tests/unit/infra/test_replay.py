from collections.abc import Iterator

import orjson

from infra.intake import Event
from infra.pacing import Pacer
from infra.replay import Replay
from infra.row_mapper import RowLabel
from tests.unit.infra.mappings import map_row, mapping

HOUR_MS = 3_600_000
START_MS = 1_772_359_200_000  # 2026-03-01T10:00:00Z


class FakePublisher:
    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes, dict[str, object], int | None]] = []

    async def publish(self, topic: str, key: bytes, value: bytes, timestamp_ms: int | None = None) -> None:
        self.messages.append((topic, key, orjson.loads(value), timestamp_ms))

    @property
    def order(self) -> list[tuple[str, object]]:
        return [(topic, message["transaction_id"]) for topic, _, message, _ in self.messages]


def events(*labelled_h: int | None) -> Iterator[Event]:
    """One event an hour; each labelled the given hours after it, or not at all."""
    for i, after_h in enumerate(labelled_h):
        row = map_row(mapping(), id=f"t{i}", customer=f"c{i}", ts=f"2026-03-01T{10 + i}:00:00Z")
        assert row.transaction is not None
        time_ms = START_MS + i * HOUR_MS
        label = None if after_h is None else RowLabel("fraud", time_ms + after_h * HOUR_MS)
        yield Event(i + 1, row.transaction, time_ms, row.raw, label)


def later() -> int:
    return START_MS + 1000 * HOUR_MS


async def test_transactions_are_keyed_by_customer_and_carry_no_old_record_time() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="transactions", now_ms=later)
    await replay.run(events(1, None))
    assert [(topic, key, time) for topic, key, _, time in publisher.messages] == [
        ("transactions", b"c0", None), ("transactions", b"c1", None),
    ]  # fmt: skip
    assert (replay.published.transactions, replay.published.labels) == (2, 0)


async def test_labels_come_when_they_became_known_and_the_rest_at_the_end() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="t", labels_topic="l", now_ms=later)
    await replay.run(events(2, 0, None, 9, 1))
    assert publisher.order == [
        ("t", "t0"), ("t", "t1"), ("l", "t1"), ("l", "t0"), ("t", "t2"), ("t", "t3"), ("t", "t4"),
        ("l", "t4"), ("l", "t3"),
    ]  # fmt: skip
    assert replay.published.labels == 4


async def test_a_label_whose_time_is_out_of_range_is_left_out() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="t", labels_topic="l", now_ms=later)
    await replay.run(events(24 * 365 * 100))
    assert (replay.published.labels, replay.published.labels_refused) == (0, 1)


async def test_a_label_that_nobody_can_know_yet_is_left_out_and_counted() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="t", labels_topic="l", now_ms=lambda: START_MS + 2 * HOUR_MS)
    await replay.run(events(1, 1, 1, 9))
    assert [what for what in publisher.order if what[0] == "l"] == [("l", "t0"), ("l", "t1")]
    assert (replay.published.labels, replay.published.labels_not_yet) == (2, 2)


async def test_labels_are_paced_by_their_own_time() -> None:
    slept: list[float] = []
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(round(seconds, 6))

    pacer = Pacer(speedup=3600, clock=lambda: now, sleep=sleep)
    await Replay(FakePublisher(), pacer, topic="t", labels_topic="l", now_ms=later).run(events(5, None))
    assert slept == [1, 4]


def closing(*closed_h: int | None, rows_of: int = 1) -> Iterator[Event]:
    """One event an hour, each saying when its customer closed the account, in hours since the start."""
    for i, at_h in enumerate(closed_h):
        row = map_row(mapping(), id=f"t{i}", customer=f"c{i // rows_of}", ts=f"2026-03-01T{10 + i}:00:00Z")
        assert row.transaction is not None
        closed_ms = None if at_h is None else START_MS + at_h * HOUR_MS
        yield Event(i + 1, row.transaction, START_MS + i * HOUR_MS, row.raw, None, closed_ms)


async def test_a_closed_account_is_one_label_when_the_events_reach_its_time() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="t", labels_topic="l", now_ms=later)
    await replay.run(closing(3, 3, 9, None, rows_of=2))
    said = [(topic, message.get("transaction_id")) for topic, _, message, _ in publisher.messages]
    assert said == [("t", "t0"), ("t", "t1"), ("t", "t2"), ("l", None), ("t", "t3"), ("l", None)]
    assert [(key, message) for topic, key, message, _ in publisher.messages if topic == "l"] == [
        (b"c0", {"customer_id": "c0", "label": "account_closed", "label_time": "2026-03-01T13:00:00.000Z"}),
        (b"c1", {"customer_id": "c1", "label": "account_closed", "label_time": "2026-03-01T19:00:00.000Z"}),
    ]
    assert (replay.published.labels, replay.published.accounts_closed) == (2, 2)


async def test_of_several_times_of_closing_the_earliest_is_published_and_only_that() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="t", labels_topic="l", now_ms=later)
    # The last row comes when the account is known to be closed already.
    await replay.run(closing(9, 2, 7, 1, rows_of=4))
    (told,) = [message for topic, _, message, _ in publisher.messages if topic == "l"]
    assert told["label_time"] == "2026-03-01T12:00:00.000Z"
    assert (replay.published.labels, replay.published.labels_not_yet) == (1, 0)


async def test_without_a_topic_of_labels_no_closed_account_is_published() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="t", now_ms=later)
    await replay.run(closing(0, 1))
    assert {topic for topic, *_ in publisher.messages} == {"t"}
    assert replay.published.accounts_closed == 0


async def test_a_closing_of_the_future_is_left_out_and_counted() -> None:
    publisher = FakePublisher()
    replay = Replay(publisher, Pacer(), topic="t", labels_topic="l", now_ms=lambda: START_MS + 2 * HOUR_MS)
    await replay.run(closing(1, 30, 24 * 365 * 100))
    assert [message["customer_id"] for topic, _, message, _ in publisher.messages if topic == "l"] == ["c0"]
    assert (replay.published.labels_not_yet, replay.published.labels_refused) == (1, 1)
