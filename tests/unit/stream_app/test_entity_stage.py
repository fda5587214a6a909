"""Merchants and devices in the stream: what the log says, whatever the chunks and the crashes."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features.arena import HistoryArena
from features.engine import Engine
from features.entity_counts import Entities
from features.entity_features import ENTITY_FEATURES
from features.tile_codec import TILE, decode
from infra.partitioning import partition_for
from models.model_set import Models
from schemas.errors import DependencyError
from schemas.label import Label
from schemas.parse import dump
from schemas.topics import FRAUD_SCORES, LABELS, TRANSACTIONS
from schemas.transaction import Transaction
from stream_app.alignment import Alignment
from stream_app.entity_stage import Counted, EntityStage
from stream_app.partition import Partition
from stream_app.retry import Retry
from tests.replay import replay_chunks
from tests.streaming import (
    DAY_MS,
    START_MS,
    Crash,
    Publisher,
    Stream,
    label,
    transaction,
)

T, L = TRANSACTIONS.name, LABELS.name
PARTITIONS = 3
HOUR_MS = 3_600_000
NAMES = [feature.name for feature in ENTITY_FEATURES]
POINTS = ("before-publish", "after-publish", "before-commit", "after-commit")


@dataclass
class Scene:
    """A log in phases: transactions of all partitions, then labels about them."""

    phases: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = field(default_factory=list)

    def put(self, stream: Stream, phase: int) -> None:
        for topic, messages in zip((T, L), self.phases[phase], strict=True):
            for message in messages:
                customer = str(message["customer_id"])
                stream.kafka.put(topic, partition_for(customer, PARTITIONS), message, customer.encode())

    def offline(self, engine: Engine) -> dict[str, list[float | None]]:
        """Vectors of one replay in time order."""
        order: list[Transaction | Label] = []
        for transactions, labels in self.phases:
            order += [Transaction.model_validate(t) for t in transactions]
            order += [Label.model_validate(known) for known in labels]
        chunks = replay_chunks(order, engine, HistoryArena(), Entities(engine.entities))
        return {
            t.transaction_id: [None if math.isnan(v) else v for v in row[-len(NAMES) :].tolist()]
            for chunk, features in chunks
            for t, row in zip(chunk, features.X, strict=True)
        }


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    now, number, scene = START_MS, 0, Scene()
    for _ in range(draw(st.integers(1, 3))):
        transactions, labels = [], []
        for _ in range(draw(st.integers(1, 30))):
            now += draw(st.sampled_from([0, 60_000, HOUR_MS // 2, HOUR_MS, 5 * HOUR_MS, DAY_MS, 4 * DAY_MS]))
            transactions.append(
                transaction(
                    number,
                    customer=f"c-{draw(st.integers(0, 5))}",
                    event_time=now,
                    merchant_id=draw(st.sampled_from(["m-1", "m-2", None])),
                    device_id=draw(st.sampled_from(["d-1", "d-2", None])),
                    counterparty_id=draw(st.sampled_from(["p-1", "p-2", None])),
                )
            )
            number += 1
            if draw(st.integers(0, 5)) == 0:
                # Hours from all others, and behind an event that says so: where a correction is counted among
                # events of its hour is chance.
                now += 5 * HOUR_MS
                earlier = draw(
                    st.sampled_from([*(t for past, _ in scene.phases for t in past), *transactions])
                )
                transactions.append(transaction(number, customer=earlier["customer_id"], event_time=now))
                changed = {
                    "revision": number,
                    "event_time": draw(st.sampled_from([now, earlier["event_time"]])),
                    "amount": draw(st.sampled_from(["1", "7000"])),
                    "merchant_id": draw(st.sampled_from(["m-1", "m-2", earlier["merchant_id"]])),
                    "device_id": draw(st.sampled_from(["d-1", None])),
                }
                transactions.append({**earlier, **changed})
                now += 5 * HOUR_MS
                number += 1
        for fraud in draw(st.lists(st.sampled_from(transactions), max_size=4)):
            value = draw(st.sampled_from(["fraud", "fraud", "genuine"]))
            labels.append(
                label(fraud["transaction_id"], customer=fraud["customer_id"], value=value, at_ms=now)
            )
        scene.phases.append((transactions, labels))
    return scene


def stream_of(models: Models, **given: Any) -> Stream:
    return Stream(models, partitions=PARTITIONS, misplaced=True, score_features=True, **given)


def vectors(stream: Stream) -> dict[str, list[float | None]]:
    return {
        m["transaction_id"]: [m["features"][name] for name in NAMES]
        for m in stream.kafka.messages(FRAUD_SCORES.name)
    }


@settings(max_examples=20, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(scenes(), st.lists(st.integers(1, 9), max_size=20))
def test_vectors_of_a_worker_with_several_partitions_are_those_of_one_replay_in_time_order(
    entity_models: Models, scene: Scene, sizes: list[int]
) -> None:
    async def run() -> None:
        stream = stream_of(entity_models)
        for phase in range(len(scene.phases)):
            scene.put(stream, phase)
            if phase == 0:
                await stream.start()
            for topic in (T, L):
                await stream.run_side_by_side(topic, sizes=sizes)
        assert not stream.worker.failed.done()
        assert vectors(stream) == scene.offline(entity_models.engine)

    asyncio.run(run())


@settings(max_examples=20, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(
    scenes(),
    st.lists(st.integers(1, 9), max_size=20),
    st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 6)), max_size=4),
    st.lists(st.integers(0, 6), max_size=3),
)
def test_crashes_change_no_score_and_count_nothing_twice(
    entity_models: Models,
    scene: Scene,
    sizes: list[int],
    crashes: list[tuple[str, int]],
    publishes: Sequence[int],
) -> None:
    async def run() -> None:
        once, often = stream_of(entity_models), stream_of(entity_models)
        left = [list(crash) for crash in crashes]
        dead = False

        def stay_dead() -> None:
            if dead:
                raise Crash

        def die(reached: str) -> None:
            nonlocal dead
            stay_dead()
            if left and reached == left[0][0]:
                left[0][1] -= 1
                if left[0][1] <= 0:
                    left.pop(0)
                    dead = True
                    raise Crash

        for phase in range(len(scene.phases)):
            for stream in (once, often):
                scene.put(stream, phase)
            if phase == 0:
                await once.start()
                await often.start()
            for topic in (T, L):
                await once.run_side_by_side(topic)
                often.publisher.failures = [(through, DependencyError("gone")) for through in publishes]
                for _ in range(len(crashes) + 1):
                    often.crash = die
                    often.publisher.before = stay_dead
                    try:
                        await often.run_side_by_side(topic, sizes=sizes)
                    except Crash:
                        often.publisher = Publisher(often.kafka)
                        dead = False
                        await often.start()
        assert not once.worker.failed.done()
        assert not often.worker.failed.done()
        assert vectors(often) == vectors(once) == scene.offline(entity_models.engine)
        # A publish that is tried again may say the same twice, and never something else.
        scores = {dump(m) for m in often.kafka.messages(FRAUD_SCORES.name)}
        assert len(scores) == sum(len(transactions) for transactions, _ in scene.phases)
        assert often.store.tiles() == once.store.tiles()

    asyncio.run(run())


async def filled(models: Models, days: int = 3) -> Stream:
    stream = stream_of(models)
    for n in range(days * 8):
        customer = f"c-{n % 6}"
        stream.kafka.put(T, partition_for(customer, PARTITIONS), transaction(n, customer=customer))
    await stream.start()
    await stream.run_side_by_side(T)
    return stream


async def test_each_partition_stores_only_what_its_own_customers_add(entity_models: Models) -> None:
    stream = await filled(entity_models)
    counts = {
        number: sum(int(decode(v)["count"].sum()) for v in p.entities.values())
        for number, p in stream.store._partitions.items()
    }
    assert counts == {p: len(stream.kafka.logs[T, p]) for p in range(PARTITIONS)}


async def test_new_worker_reads_what_all_partitions_stored(entity_models: Models) -> None:
    stream = await filled(entity_models)
    await stream.start()
    customer, late = "c-0", START_MS + 10 * DAY_MS
    number = partition_for(customer, PARTITIONS)
    stream.kafka.put(T, number, transaction(99, customer=customer, event_time=late, merchant_id="m-1"))
    await stream.run_side_by_side(T)
    wanted = sum(n % 5 == 1 for n in range(24) if START_MS + n * 3 * HOUR_MS < late - 7 * DAY_MS)
    assert vectors(stream)["t-99"][NAMES.index("merchant_txn_count_30d")] == wanted > 0


async def test_stored_tiles_are_put_together_when_they_have_become_many(entity_models: Models) -> None:
    stream = stream_of(entity_models)
    await stream.start()
    number = partition_for("c-1", PARTITIONS)
    for n in range(200):
        message = transaction(n, customer="c-1", event_time=START_MS + n * 1000, merchant_id="m-1")
        stream.kafka.put(T, number, message)
    await stream.run_side_by_side(T, sizes=[1] * 1000)
    (stored,) = stream.store._partitions[number].entities.values()
    assert len(decode(stored)) < 100
    assert int(decode(stored)["count"].sum()) == 200


async def test_store_that_lost_writes_takes_what_was_counted_with_it(entity_models: Models) -> None:
    import copy

    stream = await filled(entity_models, days=2)
    before = copy.deepcopy(dict(stream.store._partitions))
    for n in range(30, 40):
        customer = f"c-{n % 6}"
        stream.kafka.put(T, partition_for(customer, PARTITIONS), transaction(n, customer=customer))
    await stream.run_side_by_side(T)
    whole = stream.store.tiles()
    stream.store._partitions.clear()
    stream.store._partitions.update(before)
    for n in range(40, 60):
        customer = f"c-{n % 6}"
        stream.kafka.put(T, partition_for(customer, PARTITIONS), transaction(n, customer=customer))
    await stream.run_side_by_side(T, sizes=[1] * 100)
    await stream.run_side_by_side(T)
    counted = sum(
        row[3] for state in stream.store.tiles().values() for rows in state.values() for row in rows
    )
    assert not stream.worker.failed.done()
    assert counted == sum(len(stream.kafka.logs[T, p]) for p in range(PARTITIONS))
    assert whole != stream.store.tiles()


async def test_partition_whose_events_are_shuffled_stalls_no_other_in_its_pass(
    entity_models: Models,
) -> None:
    stream = stream_of(entity_models)
    mine, other = (
        next(c for c in map("c-{}".format, range(99)) if partition_for(c, PARTITIONS) == p) for p in (0, 1)
    )
    hours = {mine: (10.0, 11.0, 14.0, 10.5), other: (10.0, 11.0, 12.0, 12.5, 14.0)}
    number = 0
    for partition, (customer, times) in enumerate(hours.items()):
        for hour in times:
            event = transaction(number, customer=customer, event_time=START_MS + int(hour * HOUR_MS))
            stream.kafka.put(T, partition, event | {"device_id": "d-1"}, customer.encode())
            number += 1
    await stream.start()
    stream.worker._entities._alignment._patience_s = 3600.0  # type: ignore[union-attr]
    async with asyncio.timeout(60):
        await stream.run_side_by_side(T)
    assert len(stream.scored) == number


class _SlowStore:
    """Answers each read when it is told to."""

    def __init__(self) -> None:
        self.reads: list[asyncio.Future[list[list[bytes | None]]]] = []

    async def entities(self, keys: Sequence[Any], partitions: Sequence[int]) -> list[list[bytes | None]]:
        self.reads.append(asyncio.get_running_loop().create_future())
        await self.reads[-1]
        return [[None for _ in partitions] for _ in keys]


async def test_of_two_reads_under_way_the_one_that_ends_is_the_one_that_is_told_nothing_more(
    entity_models: Models,
) -> None:
    store: Any = _SlowStore()
    stream = stream_of(entity_models)
    retry, observer = Retry(0.001, 0.002, 5.0, stream.observer.retry), stream.observer
    alignment = Alignment(lambda partition: True)
    stage = EntityStage(ENTITY_FEATURES, store, retry, observer, alignment, partitions=2, mine=lambda: [0, 1])
    first, second = (Partition(number, store, 100) for number in (0, 1))
    keys: list[tuple[str, int]] = [("merchant", 1), ("merchant", 2)]
    tasks = [
        asyncio.ensure_future(stage._bring(partition, [key], 0))
        for partition, key in zip((first, second), keys, strict=True)
    ]
    while len(store.reads) < 2:
        await asyncio.sleep(0)
    store.reads[1].set_result([])
    await tasks[1]
    # Committed while the first read is under way: what it finds may lack it, so it reads once more.
    stage._add_pending(0, {keys[0]: np.zeros(1, TILE)})
    stage.committed(first, Counted(np.empty((0, 0)), ()))
    store.reads[0].set_result([])
    while len(store.reads) < 3:
        await asyncio.sleep(0)
        assert not tasks[0].done()
    store.reads[2].set_result([])
    await tasks[0]
    assert stage._loads == []
