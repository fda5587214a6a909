import json
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote

import numpy as np
import pytest

from features.codec import decode
from features.ports import Commit, HistoryChange
from schemas.errors import HistoryIncomplete
from schemas.fields import to_epoch_ms, to_rfc3339
from schemas.parse import dump
from schemas.score import ChurnScore, FraudScore
from tests.scoring import DAY_MS, START, at
from tests.serving import NOW, Broken, World, assert_problem, serving
from tests.unit.api.conftest import AWKWARD

SUMS = ("amount_sum_", "credit_sum_", "spend_")
UNKNOWN = ("time_since", "amount_mean", "amount_max")


def path(customer_id: str, what: str) -> str:
    return f"/customers/{quote(customer_id, safe='')}/{what}"


def expected(world, models, customer_id, as_of_ms):
    history = decode(world.store._partitions[0].histories[customer_id])
    row = models.engine.compute(history.records, None, as_of_ms)
    return {n: None if np.isnan(v) else v for n, v in zip(models.engine.names, row.tolist(), strict=True)}


async def test_features_are_the_engines_as_of_now(client, world, eager):
    for customer in world.transactions:
        answer = (await client.get(path(customer, "features"))).json()
        assert answer["customer_id"] == customer
        assert answer["as_of"] == to_rfc3339(NOW)
        assert answer["declarations"] == eager.engine.hash
        assert answer["transactions"] == len(world.transactions[customer])
        assert answer["features"] == expected(world, eager, customer, to_epoch_ms(NOW))


@pytest.mark.parametrize("days", [0.0, 0.5, 3.0, 20.0, 60.0, 89.0])
async def test_features_are_the_engines_as_of_any_moment(client, world, customer, eager, days):
    as_of_ms = world.transactions[customer][0].event_time_ms + int(days * DAY_MS)
    answer = (await client.get(path(customer, "features"), params={"as_of": as_of_ms})).json()
    assert answer["features"] == expected(world, eager, customer, as_of_ms)


#  last event
#      |------ 90 d ------)
#      ^ as of here: in no window     ^ as of here: out of all windows
async def test_windows_that_have_emptied_read_empty(client, world, customer):
    last = max(t.event_time_ms for t in world.transactions[customer])
    first = min(t.event_time_ms for t in world.transactions[customer])
    for as_of_ms in (last + 90 * DAY_MS + 1, first):
        answer = (await client.get(path(customer, "features"), params={"as_of": as_of_ms})).json()
        features = answer["features"]
        compared = ("_to_", "merchant", "same_amount")
        counted = [n for n in features if "_count_" in n and not any(word in n for word in compared)]
        summed = [n for n in features if n.startswith(SUMS) and "_to_" not in n and "_on_" not in n]
        assert len(counted) > 15
        assert len(summed) > 25
        assert {features[n] for n in [*counted, *summed]} == {0}
        assert {v for n, v in features.items() if n.startswith(UNKNOWN)} == {None}
        assert answer["transactions"] == len(world.transactions[customer])


async def test_the_last_event_is_in_its_windows_a_moment_later(client, world, customer):
    last = max(t.event_time_ms for t in world.transactions[customer])
    for later_ms, count in ((0, 0), (1, 1), (60_000, 1), (60_001, 0)):
        params = {"as_of": last + later_ms}
        features = (await client.get(path(customer, "features"), params=params)).json()["features"]
        assert features["txn_count_1m"] == count


async def test_what_compares_with_an_event_is_unknown(client, customer):
    features = (await client.get(path(customer, "features"))).json()["features"]
    for name in (
        "amount",
        "amount_zscore_90d",
        "merchant_is_new_90d",
        "same_country_share_30d",
        "hour_of_day",
    ):
        assert features[name] is None


@pytest.mark.parametrize(
    ("first_day", "asked_day", "cut"),
    [
        (0, 199, False),
        (0, 169, False),
        (0, 168, True),
        (0, 139, True),
        (79, 139, False),  # all that ever was is kept
        (78, 139, True),
        (159, 164, False),  # first 40 days ago, asked as of 35 days ago
    ],
)
async def test_features_say_where_windows_reach_behind_what_is_kept(eager, first_day, asked_day, cut):
    world = World()
    for begin in range(first_day, 200, 10):
        await world.score([at(day) for day in range(begin, min(begin + 10, 200))], eager)
    async with serving(world.store, eager, START + timedelta(days=200)) as client:
        as_of_ms = to_epoch_ms(START) + asked_day * DAY_MS
        answer = (await client.get("/customers/c-1/features", params={"as_of": as_of_ms})).json()
        now = (await client.get("/customers/c-1/features")).json()
    assert answer["history_cut"] is cut
    whole = min(90, asked_day - first_day)
    assert (answer["features"]["txn_count_90d"] == whole) is not cut
    assert now["history_cut"] is False


async def test_moments_are_the_same_however_they_are_written(client, customer):
    moment = datetime(2025, 11, 30, 22, 0, tzinfo=UTC)
    ways = (
        "2025-11-30T22:00:00Z",
        "2025-11-30T22:00:00.000+00:00",
        moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
        str(to_epoch_ms(moment)),
    )
    answers = [(await client.get(path(customer, "features"), params={"as_of": way})).json() for way in ways]
    assert answers[0]["as_of"] == "2025-11-30T22:00:00.000Z"
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    "as_of",
    [
        "2026-01-01T00:00:00",
        "2026-01-01",
        "yesterday-at-noon",
        "2026-13-01T00:00:00Z",
        "1979-12-31T23:59:59Z",
        "2100-01-01T00:00:00Z",
        "1767225600",
        "9" * 5000,
        "²" * 20,
        "",
        "2026-01-01T00:00:00 01:00",
    ],
)
async def test_what_is_no_moment_is_refused(client, customer, as_of):
    response = await client.get(path(customer, "features"), params={"as_of": as_of})
    problem = assert_problem(response, 422, "refused-request", *([as_of] if as_of else []))
    assert problem["detail"].startswith("query.as_of: ")


async def test_a_customer_with_only_a_profile_has_empty_windows(client):
    answer = (await client.get("/customers/only-a-profile/features")).json()
    assert answer["transactions"] == 0
    assert answer["features"]["txn_count_90d"] == 0
    scores = (await client.get("/customers/only-a-profile/scores")).json()
    assert scores == {"customer_id": "only-a-profile", "fraud": [], "churn": None}


async def test_scores_are_the_newest_ten_as_published_newest_first(client, world):
    for customer, published in world.published.items():
        answer = (await client.get(path(customer, "scores"))).json()
        assert len(answer["fraud"]) == 10
        for found, sent in zip(answer["fraud"], reversed(published[-10:]), strict=True):
            assert found == json.loads(dump(sent))
            FraudScore.model_validate(found)
        churn = ChurnScore.model_validate(answer["churn"])
        assert churn.customer_id == customer
        assert churn.as_of.date() == world.transactions[customer][-1].event_time.date()


@pytest.mark.parametrize("customer_id", AWKWARD)
async def test_awkward_ids_are_ids(client, customer_id):
    for what in ("features", "scores"):
        response = await client.get(path(customer_id, what))
        assert response.status_code == 200
        assert response.json()["customer_id"] == customer_id


@pytest.mark.parametrize("what", ["features", "scores"])
async def test_an_unknown_customer_is_not_found_and_not_repeated(client, what):
    for customer_id in ("nobody-home", "ünbekannt", "a/b/c", "y" * 64, "\x00", "' OR 1=1"):
        response = await client.get(path(customer_id, what))
        assert_problem(response, 404, "unknown-customer", customer_id)


@pytest.mark.parametrize("what", ["features", "scores"])
@pytest.mark.parametrize("customer_id", ["x" * 65, "4111111111111111", "4111 1111 1111 1111"])
async def test_what_is_no_id_is_refused_and_not_repeated(client, what, customer_id):
    assert_problem(await client.get(path(customer_id, what)), 422, "refused-request", customer_id)


@pytest.mark.parametrize("what", ["features", "scores"])
async def test_an_empty_id_is_refused(client, what):
    assert_problem(await client.get(f"/customers//{what}"), 422, "refused-request")


@pytest.mark.parametrize("what", ["features", "scores"])
async def test_while_the_store_is_away_lookups_say_when_to_try_again(away, what):
    response = await away.get(f"/customers/c-secret/{what}")
    problem = assert_problem(response, 503, "dependency-away", "c-secret")
    assert "127.0.0.1" not in problem["detail"]
    assert response.headers["retry-after"] == "1"


async def test_a_history_that_cannot_be_read_is_not_guessed_at(eager):
    world = World()
    lease = await world.begin()
    cut = HistoryChange("c-1", 0, b"half", b"", 0, replaced=True)
    await world.store.apply(lease, Commit("transactions", None, 1, [cut]))
    async with serving(world.store, eager) as client:
        assert_problem(await client.get("/customers/c-1/features"), 503, "history-unreadable", "c-1")


async def test_customers_of_an_empty_store_are_said_to_wait_for_it_and_not_to_be_away(eager):
    empty = HistoryIncomplete("the store is empty: no worker has run against it yet")
    async with serving(Broken(empty), eager) as client:
        for path in ("/customers/c-1", "/customers/c-1/features", "/ready"):
            answer = await client.get(path)
            assert_problem(answer, 503, "history-incomplete", "c-1")
            assert answer.headers["retry-after"] == "1"
        health = (await client.get("/health/detailed")).json()
    assert health["parts"]["redis"]["facts"]["problem"] == "history-incomplete"
