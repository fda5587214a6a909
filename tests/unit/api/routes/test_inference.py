import copy
import json
from datetime import timedelta

import numpy as np
import pytest

from api.deps import Services, entities_of
from api.failure_policy import FailurePolicy
from features.codec import decode
from features.entity_counts import customer_hashes
from features.lifetime import customer_vector
from features.record import to_records
from infra.partitioning import partition_for
from models.churn_scores import churn_results
from schemas.fields import to_epoch_ms, to_rfc3339
from schemas.parse import dump
from schemas.score import ChurnScore, FraudScore
from schemas.transaction import Transaction
from tests.scoring import DAY_MS, START
from tests.serving import AWAY, NOW, Broken, World, assert_problem, serving
from tests.streaming import Stream, transaction

FRAUD, CHURN = "/inference/fraud-detection", "/inference/churn-score"
LEAST = {
    "transaction_id": "t-new",
    "customer_id": "c-new",
    "event_time": "2025-12-01T10:00:00Z",
    "amount": "12.50",
    "currency": "EUR",
}
JSON = {"content-type": "application/json"}


def comparable(score):
    """What must be the same wherever a score is made."""
    return {
        k: v for k, v in json.loads(json.dumps(score)).items() if k not in {"scored_at", "source", "flags"}
    }


async def ask(client, transaction):
    response = await client.post(FRAUD, content=transaction.model_dump_json(exclude_unset=True))
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_answer_is_the_streams_score_bit_for_bit_before_and_after(past, eager):
    """Asked before the stream has seen a transaction, and right after."""
    world, cut = World(), len(past) - 150
    await world.score(past[:cut], eager)
    decisions = set()
    async with serving(world.store, eager) as client:
        for transaction in past[cut:]:
            before = await ask(client, transaction)
            (published,) = await world.score([transaction], eager)
            after = await ask(client, transaction)
            assert comparable(before) == comparable(published) == comparable(after)
            assert before["flags"] == after["flags"] == published["flags"]
            decisions.add(published["decision"])
    assert len(decisions) > 1


async def test_a_transaction_that_the_stream_saw_long_ago_is_scored_as_then(client, world, customer):
    """What came after it is in no window of it."""
    for sent in world.published[customer][5:-1:7]:
        transaction = next(
            t for t in world.transactions[customer] if t.transaction_id == sent["transaction_id"]
        )
        answer = await ask(client, transaction)
        assert comparable(answer) == comparable(sent)
        # Late as of now, and more than 30 days late its window begins before what is kept.
        assert answer["flags"] in (["late"], ["late", "history_cut"])


async def test_an_answer_is_what_the_contract_says(client, world):
    for transactions in world.transactions.values():
        answer = await ask(client, transactions[-1])
        assert FraudScore.model_validate(answer).model_dump(mode="json", exclude_unset=True) == answer
        assert answer["scored_at"] == to_rfc3339(NOW)
        assert not {"source", "features"} & set(answer)


async def test_a_reason_whose_value_is_unknown_says_null(client, world):
    reasons = [
        reason
        for transactions in world.transactions.values()
        for transaction in transactions[-60:]
        for reason in (await ask(client, transaction))["reasons"]
    ]
    assert any(reason["value"] is None for reason in reasons)
    assert all(set(reason) == {"feature", "value", "contribution", "text"} for reason in reasons)


async def test_a_customer_never_seen_is_a_cold_start(client):
    response = await client.post(FRAUD, json=LEAST)
    assert response.status_code == 200
    assert response.json()["flags"] == ["cold_start"]
    assert response.json()["customer_id"] == "c-new"


async def test_nothing_is_kept_of_what_was_asked(client, world, customer):
    before = copy.deepcopy(world.store._partitions)
    await ask(client, world.transactions[customer][-1])
    await client.post(FRAUD, json=LEAST)
    await client.post(FRAUD, json=LEAST | {"customer_id": customer})
    await client.post(CHURN, json={"customer_id": customer})
    assert world.store._partitions == before


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"{", "not_json"),
        (b"NaN", "not_an_object"),
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"\xff\xfe{}", "invalid_encoding"),
        (b"{}", "invalid_field"),
        (b"[" * 30_000, "not_json"),
        (json.dumps(LEAST | {"amount": "0"}).encode(), "amount_not_positive"),
        (json.dumps(LEAST | {"amount": "1e308"}).encode(), "amount_too_large"),
        (json.dumps(LEAST | {"amount": float("nan")}).encode(), None),
        (json.dumps(LEAST | {"amount": "0.001"}).encode(), "amount_not_positive"),
        (json.dumps(LEAST | {"event_time": "2025-12-01T10:00:00"}).encode(), "invalid_field"),
        (
            json.dumps(LEAST | {"event_time": "2027-01-01T00:00:00Z"}).encode(),
            "event_from_the_future",
        ),
        (json.dumps(LEAST | {"customer_id": ""}).encode(), "invalid_field"),
        (json.dumps(LEAST | {"note": "4111111111111111"}).encode(), "card_number"),
        (json.dumps(LEAST | {"customer_id": "4111 1111 1111 1111"}).encode(), "card_number"),
        (json.dumps(LEAST | {"note": "x" * 70_000}).encode(), "too_large"),
    ],
)
async def test_what_the_stream_refuses_is_refused_with_the_same_code(client, body, reason):
    response = await client.post(FRAUD, content=body)
    problem = assert_problem(response, 422, "refused-message", "4111", "xxx", "2027", "1e308", "[[[")
    assert problem["detail"]
    if reason is not None:
        assert problem["reason"] == reason


async def test_fields_that_are_not_known_are_accepted(client):
    response = await client.post(FRAUD, json=LEAST | {"branch_code": "77", "nested": {"a": [1, 2]}})
    assert response.status_code == 200


async def test_a_day_ahead_of_the_clock_is_still_accepted(client):
    ahead = to_epoch_ms(NOW) + DAY_MS
    assert (await client.post(FRAUD, json=LEAST | {"event_time": ahead})).status_code == 200
    response = await client.post(FRAUD, json=LEAST | {"event_time": ahead + 1})
    assert assert_problem(response, 422, "refused-message")["reason"] == "event_from_the_future"


@pytest.mark.parametrize("days", [None, 1.5, 40.0, 110.0, 400.0])
async def test_churn_is_the_models_as_of_any_moment(client, world, eager, customer, days):
    as_of_ms = to_epoch_ms(NOW if days is None else START) + int((days or 0) * DAY_MS)
    asked = {"customer_id": customer} | ({} if days is None else {"as_of": as_of_ms})
    answer = (await client.post(CHURN, json=asked)).json()
    history = decode(world.store._partitions[0].histories[customer])
    X = customer_vector(eager.engine, history.records, history.totals, as_of_ms)[None]
    (result,) = churn_results(X, [(customer, 0, as_of_ms)], [history.totals.churn_band], eager, staying=True)
    assert answer["churn_probability"] == result.proba
    assert answer["drivers"] == json.loads(dump(result.drivers))
    assert answer["as_of"] == to_rfc3339(
        NOW if days is None else START.fromtimestamp(as_of_ms / 1000, START.tzinfo)
    )
    assert answer["trigger"] == "request"
    assert ChurnScore.model_validate(answer).customer_id == customer


async def test_a_customer_of_the_lowest_band_is_told_what_speaks_for_staying(client, customer):
    answers = [
        (await client.post(CHURN, json={"customer_id": customer, "as_of": at_ms})).json()
        for at_ms in (to_epoch_ms(START) + int(days * DAY_MS) for days in range(1, 100))
    ]
    low, high = (next(a for a in answers if a["band"] == band) for band in ("low", "high"))
    assert 1 <= len(low["drivers"]) <= 4
    contributions = [driver["contribution"] for driver in low["drivers"]]
    assert contributions == sorted(contributions)
    assert max(contributions) < 0 < min(driver["contribution"] for driver in high["drivers"])
    assert low["recommended_action"] == "none"


async def test_silence_raises_churn(client, customer):
    probabilities = [
        (
            await client.post(CHURN, json={"customer_id": customer, "as_of": to_epoch_ms(NOW) + d * DAY_MS})
        ).json()
        for d in (0, 40)
    ]
    assert probabilities[1]["churn_probability"] > probabilities[0]["churn_probability"]
    assert probabilities[1]["band"] != "low"
    assert probabilities[1]["recommended_action"] != "none"


async def test_churn_of_an_unknown_customer_is_not_found(client):
    assert_problem(
        await client.post(CHURN, json={"customer_id": "nobody-home"}), 404, "unknown-customer", "nobody"
    )


async def test_churn_of_a_customer_with_a_slash_in_the_id(client):
    assert (await client.post(CHURN, json={"customer_id": "c/2"})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"{}",
        b'{"customer_id": ""}',
        b'{"customer_id": 7771}',
        b'{"customer_id": "\\ud800"}',
        b'{"customer_id": "4111111111111111"}',
        b'{"customer_id": "c-1", "as_of": "2026-01-01T00:00:00"}',
        b'{"customer_id": "c-1", "as_of": true}',
        b'{"customer_id": "c-1", "as_of": 1e300}',
        b'{"customer_id": "c-1", "as_of": NaN}',
    ],
)
async def test_what_is_no_churn_request_is_refused(client, body):
    response = await client.post(CHURN, content=body, headers=JSON)
    assert_problem(response, 422, "refused-request", "4111", "7771", '2026-01-01T00:00:00"', "1e300", "[[[")


@pytest.mark.parametrize("body", [b"\xff", b"[" * 30_000], ids=["not UTF-8", "deep"])
async def test_what_cannot_be_parsed_at_all_is_a_bad_request(client, body):
    assert_problem(await client.post(CHURN, content=body, headers=JSON), 400, "http-bad-request", "[[[")


async def test_while_the_store_is_away_no_churn_is_guessed(away):
    response = await away.post(CHURN, json={"customer_id": "c-secret"})
    assert_problem(response, 503, "dependency-away", "c-secret", "t-new")


async def test_while_the_store_is_away_a_transaction_is_scored_as_degraded_and_never_allowed(away):
    score = (await away.post(FRAUD, json=LEAST)).json()
    assert score["flags"] == ["cold_start", "degraded"]
    assert score["decision"] in {"review", "block"}
    FraudScore.model_validate(score)


async def test_where_degraded_answers_are_not_wanted_there_are_none(eager):
    async with serving(Broken(AWAY), eager, extras={"policy": FailurePolicy(redis_away="hold")}) as client:
        assert_problem(await client.post(FRAUD, json=LEAST), 503, "dependency-away", "c-new")


async def test_merchant_and_device_count_as_in_the_stream(entity_models):
    stream = Stream(entity_models, partitions=2, misplaced=True, score_features=True)
    for n in range(90):
        sent = transaction(n, customer=f"c-{n % 4}", device_id=f"d-{n % 3}")
        stream.kafka.put("transactions", partition_for(sent["customer_id"], 2), sent, b"k")
    await stream.start()
    await stream.run_side_by_side("transactions", sizes=[1] * 1000)
    published = {s["transaction_id"]: s for s in stream.kafka.messages("scores.fraud")}
    assert published["t-89"]["features"]["merchant_txn_count_30d"] > 0
    assert published["t-89"]["features"]["device_customers_7d"] > 1
    scores = set()
    async with serving(stream.store, entity_models, now=NOW + timedelta(days=60)) as client:
        for n in range(40, 90):
            again = Transaction.model_validate(transaction(n, customer=f"c-{n % 4}", device_id=f"d-{n % 3}"))
            found = comparable(published[f"t-{n}"])
            del found["features"]
            answer = comparable(await ask(client, again))
            assert answer == found
            scores.add(answer["score"])
    assert len(scores) > 1


async def test_vector_of_a_request_is_the_streams(entity_models):
    stream = Stream(entity_models, score_features=True)
    stream.transact(90)
    await stream.start()
    await stream.run()
    services = Services(stream.store, entity_models, lambda: None, lambda: NOW)
    for score in stream.kafka.messages("scores.fraud")[60:]:
        number = int(score["transaction_id"][2:])
        again = Transaction.model_validate(transaction(number, customer=score["customer_id"]))
        record = to_records([again], [again.amount_minor])
        entities = await entities_of(services, record)
        customers = customer_hashes([again.customer_id])
        (row,) = entities.compute(record, customers, np.arange(1), count=False).tolist()
        names = [feature.name for feature in entities.features]
        assert [None if v != v else v for v in row] == [score["features"][name] for name in names]
