"""Batches, explanations, segments and models."""

import asyncio
import json
from dataclasses import replace

import pytest

from api.deps import Loaded
from models.registry import SEGMENTS, ModelRegistry
from schemas.errors import ModelError
from schemas.fields import to_epoch_ms
from tests.serving import AWAY, NOW, Broken, MemoryReplies, assert_problem, serving

FRAUD, BATCH, CHURN, MANY = (
    "/inference/fraud-detection",
    "/inference/batch-process",
    "/inference/churn-score",
    "/inference/churn-batch",
)


async def test_a_batch_answers_as_one_by_one_also_where_a_customer_comes_twice(client, world):
    messages = [
        json.loads(t.model_dump_json(exclude_unset=True))
        for transactions in world.transactions.values()
        for t in transactions[-4:]
    ]
    messages.insert(3, {"transaction_id": "bad", "customer_id": "c-1"})
    answer = (await client.post(BATCH, json={"transactions": messages})).json()
    assert (answer["scored"], answer["refused"]) == (len(messages) - 1, 1)
    assert answer["results"][3]["refused"]["reason"] == "invalid_field"
    for message, result in zip(messages, answer["results"], strict=True):
        assert messages[result["index"]] is message
        if "score" in result:
            assert result["score"] == (await client.post(FRAUD, json=message)).json()


async def test_others_are_answered_while_a_batch_of_one_customer_is_scored(client, world, customer):
    message = json.loads(world.transactions[customer][-1].model_dump_json(exclude_unset=True))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    answer = (await client.post(BATCH, json={"transactions": [message] * 200})).json()
    counting.cancel()
    assert answer["scored"] == 200
    # One for each transaction, but for the first or the last.
    assert turns >= 198


async def test_a_batch_of_churn_answers_as_one_by_one(client, world):
    customers = [*world.transactions, "nobody-home", next(iter(world.transactions))]
    answer = (await client.post(MANY, json={"customer_ids": customers, "drivers": True})).json()
    assert answer["unknown"] == ["nobody-home"]
    assert [s["customer_id"] for s in answer["scores"]] == list(world.transactions)
    for score in answer["scores"]:
        assert score == (await client.post(CHURN, json={"customer_id": score["customer_id"]})).json()
    plain = (await client.post(MANY, json={"customer_ids": customers})).json()
    assert [s["churn_probability"] for s in plain["scores"]] == [
        s["churn_probability"] for s in answer["scores"]
    ]
    assert all(s["drivers"] == [] for s in plain["scores"])
    assert any(s["drivers"] for s in answer["scores"])


@pytest.mark.parametrize(
    "odd", [f'{{"amount": {10**400}}}', '{"customer_id": "\\ud835"}', '{"x": NaN}', '{"": {}}']
)
async def test_whatever_json_a_batch_holds_each_transaction_gets_its_answer(client, odd):
    body = b'{"transactions": [%s, {}]}' % odd.encode()
    answer = await client.post(BATCH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    assert [bool(r["refused"]["reason"]) for r in answer.json()["results"]] == [True, True]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (MANY, {"customer_ids": []}),
        (MANY, {"customer_ids": ["c"] * 1001}),
        (MANY, {"customer_ids": ["4111111111111111"]}),
        (BATCH, {"transactions": []}),
        (BATCH, {"transactions": [{}] * 1001}),
        (BATCH, {"transactions": ["text"]}),
    ],
)
async def test_a_batch_that_is_none_is_refused_as_a_whole(client, path, body):
    assert_problem(await client.post(path, json=body), 422, "refused-request", "4111")


async def test_batches_need_the_state(away):
    assert_problem(await away.post(MANY, json={"customer_ids": ["c"]}), 503, "dependency-away")


async def test_an_explanation_adds_up_to_the_published_score(client, world, customer):
    sent = world.published[customer][-3]
    asked = {"customer_id": customer, "transaction_id": sent["transaction_id"], "most": 5}
    found = (await client.get("/inference/explain", params=asked)).json()
    assert found["score"] == found["published"] == sent["score"]
    parts = sum(c["contribution"] for c in found["contributions"])
    assert found["base"] + parts + found["others"] == pytest.approx(found["log_odds"], abs=1e-4)
    sizes = [abs(c["contribution"]) for c in found["contributions"]]
    assert len(sizes) == 5
    assert sizes == sorted(sizes, reverse=True)
    assert all(c["text"] for c in found["contributions"])


async def test_churn_is_explained_as_of_a_moment(client, customer):
    params = {"customer_id": customer, "model": "churn", "as_of": to_epoch_ms(NOW), "most": 200}
    found = (await client.get("/inference/explain", params=params)).json()
    score = (await client.post(CHURN, json={"customer_id": customer})).json()
    assert found["score"] == score["churn_probability"]
    assert found["others"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("params", [{}, {"transaction_id": "t-unknown"}])
async def test_a_transaction_that_is_not_kept_is_not_found(client, customer, params):
    response = await client.get("/inference/explain", params={"customer_id": customer} | params)
    assert_problem(response, 404, "unknown-customer", "t-unknown")


async def test_a_segment_is_the_models_as_of_a_moment(world, eager, segments, customer):
    async with serving(world.store, eager, extras={"segments": segments}) as client:
        now = (await client.post("/inference/segment", json={"customer_id": customer})).json()
        later = to_epoch_ms(NOW) + 85 * 86_400_000
        then = (
            await client.post("/inference/segment", json={"customer_id": customer, "as_of": later})
        ).json()
        assert now["segment"] in segments.names
        assert now["frequency_90d"] > then["frequency_90d"]
        assert then["recency_days"] > now["recency_days"]
        assert now["model"]["version"] == segments.card.version
        missing = await client.post("/inference/segment", json={"customer_id": "nobody-home"})
        assert_problem(missing, 404, "unknown-customer")
        assert "model_segments" in (await client.get("/health/detailed")).json()["parts"]


async def test_without_segments_it_is_said_and_the_rest_answers(client, customer):
    response = await client.post("/inference/segment", json={"customer_id": customer})
    assert "train segments" in assert_problem(response, 503, "model-unusable")["detail"]
    assert (await client.post(CHURN, json={"customer_id": customer})).status_code == 200


async def test_models_are_loaded_again_and_broken_ones_change_nothing(
    world, eager, registry, tmp_path, engine, segments, customer
):
    mine = ModelRegistry(tmp_path)
    for name in ("fraud", "churn"):
        card = registry.card(name, "v1")
        mine.save(card, (registry._root / name / "v1" / "trees.ubj").read_bytes())
        mine.promote(name, "v1")
    extras = {
        "reload": lambda: Loaded(mine.load_set(mine.roles_in_use(), engine), mine.load_segments(engine)),
        "replies": MemoryReplies(),
    }
    async with serving(world.store, replace(eager, anomaly=None), extras=extras) as client:
        assert [m["name"] for m in (await client.get("/models/status")).json()["models"]] == [
            "fraud",
            "churn",
        ]
        trees = (registry._root / "fraud" / "v1" / "trees.ubj").read_bytes()
        mine.save(registry.card("fraud", "v1"), trees)
        mine.promote("fraud", "v2")
        mine.save(segments.card, json.dumps({"mean": [0]}).encode())
        mine.promote(SEGMENTS, "v1")
        with pytest.raises(ModelError):
            extras["reload"]()
        assert_problem(await client.post("/models/reload"), 503, "model-unusable")
        status = (await client.get("/models/status")).json()
        assert [m["version"] for m in status["models"]] == ["v1", "v1"]
        (tmp_path / SEGMENTS / "roles.json").unlink()
        (tmp_path / SEGMENTS / "v1").rename(tmp_path / SEGMENTS / "broken")
        answer = (await client.post("/models/reload", headers={"Idempotency-Key": "k1"})).json()
        assert answer["changed"] == ["fraud"]
        # The same key is answered as before, and not loaded again.
        mine.promote("fraud", "v1")
        again = await client.post("/models/reload", headers={"Idempotency-Key": "k1"})
        assert again.json() == answer
        assert again.headers["Idempotency-Replayed"] == "true"
        status = (await client.get("/models/status")).json()
        assert status["models"][0]["version"] == "v2"
        other = await client.post("/models/reload?x=1", headers={"Idempotency-Key": "k1"})
        assert_problem(other, 422, "idempotency-key-reused")
        extras["replies"].kept[next(iter(extras["replies"].kept))] = type(
            next(iter(extras["replies"].kept.values()))
        )(next(iter(extras["replies"].kept.values())).request, None)
        busy = await client.post("/models/reload", headers={"Idempotency-Key": "k1"})
        assert_problem(busy, 409, "idempotency-key-in-use")


async def test_a_failed_write_can_be_tried_again_with_its_key(world, eager):
    def broken():
        raise ModelError("no")

    replies = MemoryReplies()
    async with serving(world.store, eager, extras={"reload": broken, "replies": replies}) as client:
        for _ in range(2):
            response = await client.post("/models/reload", headers={"Idempotency-Key": "k"})
            assert_problem(response, 503, "model-unusable")
        assert replies.kept == {}
        assert_problem(
            await client.post("/models/reload", headers={"Idempotency-Key": ""}), 422, "refused-request"
        )


async def test_what_answers_here_says_its_name(client):
    assert (await client.get("/")).json()["name"] == "tidegate"


async def test_a_broken_store_is_not_taken_for_degraded(eager):
    async with serving(Broken(ValueError("x")), eager, raise_app_exceptions=False) as client:
        assert (await client.post(FRAUD, json={})).status_code == 422
        assert (await client.get("/customers/c")).status_code == 500
    assert AWAY
