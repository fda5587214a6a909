"""Explanations of what the stream scored with more than a customer's history."""

from datetime import timedelta
from typing import Any

import pytest
from httpx import AsyncClient

from features.arena import HistoryArena
from features.codec import decode, encode_header
from features.packing import pack
from models.model_set import Models
from models.segments import SegmentModel
from schemas.fields import from_epoch_ms
from schemas.topics import FRAUD_SCORES, LABELS, TRANSACTIONS
from tests.scoring import START, at
from tests.serving import World, assert_problem, serving
from tests.streaming import START_MS, Stream, label, transaction

DAY_MS = 86_400_000
START_OF_ALL_MS = int(START.timestamp() * 1000)
PACKED = pytest.mark.parametrize("packed", [False, True], ids=["not packed", "packed"])


async def a_payment_a_day(days: int, models: Models, *, packed: bool) -> World:
    """A customer with `t-0` to `t-<days - 1>`, of whom all is stored, or what counts and that packed."""
    world = World()
    # One chunk: nothing of it is let go of.
    sent = [at(day, transaction_id=f"t-{day}", amount=f"{10 + day % 7}.50") for day in range(days)]
    await world.score(sent, models)
    histories = world.store._partitions[0].histories
    history = decode(histories["c-1"])
    assert len(history.records) == days
    if packed:
        arena = HistoryArena()
        slot = arena.put("c-1", history)
        arena.prune(slot)
        block = pack(arena.records(slot))
        histories["c-1"] = encode_header(history.totals, len(block)) + block
    return world


async def explained(client: AsyncClient, number: int) -> dict[str, Any]:
    asked = {"customer_id": "c-1", "transaction_id": f"t-{number}"}
    answer = await client.get("/inference/explain", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@PACKED
async def test_a_transaction_whose_windows_are_kept_is_explained_by_the_score_of_the_time(
    eager: Models, packed: bool
) -> None:
    world = await a_payment_a_day(100, eager, packed=packed)
    scores = {s["transaction_id"]: s["score"] for s in world.published["c-1"]}
    async with serving(world.store, eager, START + timedelta(days=100)) as client:
        # The last of them is of a customer whose whole life is kept.
        for number in (99, 79, 9):
            found = await explained(client, number)
            assert found["score"] == scores[f"t-{number}"]
            assert found["history_cut"] is False


@PACKED
async def test_a_transaction_whose_windows_reach_behind_what_is_kept_says_so(
    eager: Models, packed: bool
) -> None:
    world = await a_payment_a_day(200, eager, packed=packed)
    scores = {s["transaction_id"]: s["score"] for s in world.published["c-1"]}
    async with serving(world.store, eager, START + timedelta(days=200)) as client:
        for number, cut in ((139, True), (168, True), (169, False), (179, False)):
            found = await explained(client, number)
            assert found["history_cut"] is cut
            assert cut or found["score"] == scores[f"t-{number}"]


@PACKED
async def test_a_transaction_older_than_what_is_kept_is_not_found_whatever_is_stored(
    eager: Models, packed: bool
) -> None:
    world = await a_payment_a_day(200, eager, packed=packed)
    async with serving(world.store, eager, START + timedelta(days=200)) as client:
        assert (await explained(client, 79))["history_cut"] is True
        for number in (78, 69):
            asked = {"customer_id": "c-1", "transaction_id": f"t-{number}"}
            answer = await client.get("/inference/explain", params=asked)
            problem = assert_problem(answer, 404, "unknown-customer", f"t-{number}")
            assert "120 days that are kept" in problem["detail"]


@PACKED
async def test_churn_as_of_a_moment_whose_windows_are_not_kept_says_so(eager: Models, packed: bool) -> None:
    world = await a_payment_a_day(200, eager, packed=packed)
    async with serving(world.store, eager, START + timedelta(days=200)) as client:
        asked: dict[str, str | int] = {"customer_id": "c-1", "model": "churn"}
        assert (await client.get("/inference/explain", params=asked)).json()["history_cut"] is False
        for day, cut in ((169, False), (168, True), (20, True)):
            asked["as_of"] = as_of = START_OF_ALL_MS + day * DAY_MS
            assert (await client.get("/inference/explain", params=asked)).json()["history_cut"] is cut
            one = await client.post("/inference/churn-score", json={"customer_id": "c-1", "as_of": as_of})
            assert one.json()["history_cut"] is cut
            body = {"customer_ids": ["c-0", "c-1"], "as_of": as_of}
            (found,) = (await client.post("/inference/churn-batch", json=body)).json()["scores"]
            assert found["history_cut"] is cut


async def test_a_segment_as_of_a_moment_whose_windows_are_not_kept_says_so(
    eager: Models, segments: SegmentModel
) -> None:
    world = await a_payment_a_day(200, eager, packed=False)
    async with serving(
        world.store, eager, START + timedelta(days=200), extras={"segments": segments}
    ) as client:
        for day, cut in ((169, False), (168, True)):
            asked = {"customer_id": "c-1", "as_of": START_OF_ALL_MS + day * DAY_MS}
            assert (await client.post("/inference/segment", json=asked)).json()["history_cut"] is cut


async def test_merchants_that_no_longer_keep_the_windows_of_a_transaction_are_said_too(
    entity_models: Models,
) -> None:
    stream = Stream(entity_models)
    for number in range(45):
        # The customer is silent while others go on at the merchant.
        sent = transaction(
            number,
            customer="c-1" if number < 8 else "c-2",
            event_time=START_MS + number * DAY_MS,
            merchant_id="m-1",
        )
        stream.kafka.put(TRANSACTIONS.name, 0, sent)
    await stream.start()
    await stream.run()
    async with serving(stream.store, entity_models, from_epoch_ms(START_MS + 45 * DAY_MS)) as client:
        for number, customer, cut in ((7, "c-1", True), (20, "c-2", False)):
            asked = {"customer_id": customer, "transaction_id": f"t-{number}"}
            assert (await client.get("/inference/explain", params=asked)).json()["history_cut"] is cut


async def test_merchants_and_the_like_are_those_of_the_transaction(entity_models: Models) -> None:
    stream = Stream(entity_models)
    for number in range(40):
        sent = transaction(
            number,
            customer=f"c-{number % 4}",
            event_time=START_MS + number * DAY_MS // 2,
            merchant_id="m-1",
            device_id="d-1",
            counterparty_id="p-1",
        )
        stream.kafka.put(TRANSACTIONS.name, 0, sent)
        if number == 5:
            await stream.start()
            await stream.run()
            stream.kafka.put(LABELS.name, 0, label("t-1", customer="c-1", at_ms=START_MS + 3 * DAY_MS))
            await stream.run()
    await stream.run()
    scores = {m["transaction_id"]: m for m in stream.kafka.messages(FRAUD_SCORES.name)}
    async with serving(stream.store, entity_models, from_epoch_ms(START_MS + 40 * DAY_MS)) as client:
        for number in (30, 36, 39):
            asked = {"customer_id": f"c-{number % 4}", "transaction_id": f"t-{number}", "most": 200}
            found = (await client.get("/inference/explain", params=asked)).json()
            assert found["score"] == found["published"] == scores[f"t-{number}"]["score"]
            assert found["not_kept"] == []
            known = {c["feature"]: c["value"] for c in found["contributions"]}
            assert known.get("merchant_txn_count_30d", 20.0) > 10


async def test_what_only_the_message_said_is_named(attributed: Models) -> None:
    stream = Stream(attributed)
    for number in range(8):
        sent = transaction(number) | {"attributes": {"risk": 6.0}, "balance_after": "10.00"}
        stream.kafka.put(TRANSACTIONS.name, 0, sent)
    await stream.start()
    await stream.run()
    async with serving(stream.store, attributed, from_epoch_ms(START_MS + 40 * DAY_MS)) as client:
        asked = {"customer_id": "c-1", "transaction_id": "t-7"}
        found = (await client.get("/inference/explain", params=asked)).json()
    assert found["not_kept"] == ["balance_after", "amount_to_balance", "attribute_risk"]
    assert found["score"] < found["published"]
