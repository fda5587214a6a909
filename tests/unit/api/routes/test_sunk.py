"""Routes that read what the sink keeps: lists, customers, transactions, figures."""

import base64
import itertools
import json
from collections import Counter
from datetime import timedelta

import pytest

from api.routes.analytics import EventFigures
from infra import event_totals
from schemas.errors import DependencyError, HistoryError
from schemas.fields import to_rfc3339
from tests.scoring import START
from tests.serving import AWAY, NOW, Broken, assert_problem, serving, sunk


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(request):
    """URL of a database; of the module, so that the server is started before sockets are forbidden."""
    return str if request.param == "sqlite" else request.getfixturevalue("postgresql").new_database


@pytest.fixture
def kept(new_database, world, tmp_path):
    made = []

    def make():
        made.append(sunk(world, tmp_path / f"sunk-{len(made)}", new_database()))
        return made[-1]

    yield make
    for extras in made:
        extras["index"]._database.close()


@pytest.fixture
async def client(world, eager, kept):
    async with serving(world.store, eager, extras=kept()) as found:
        yield found


async def everything(client, path, rows, **params):
    found, cursor = [], None
    while True:
        response = await client.get(path, params=params | ({"cursor": cursor} if cursor else {}))
        assert response.status_code == 200, response.text
        found += response.json()[rows]
        if (cursor := response.json()["next_cursor"]) is None:
            return found


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    ("sort", "field"),
    [
        ("customer_id", "customer_id"),
        ("transactions", "transactions"),
        ("last_score", "last_score"),
        ("last_event_ms", "last_event"),
        ("churn_probability", "churn_probability"),
    ],
)
async def test_pages_have_every_customer_once_in_order_whatever_the_limit(client, world, sort, field, order):
    for limit in (1, 3, 200):
        found = await everything(client, "/customers", "customers", sort=sort, order=order, limit=limit)
        assert sorted(c["customer_id"] for c in found) == sorted(world.transactions)
        keys = [c[field] for c in found if c[field] is not None]
        assert keys == sorted(keys, reverse=order == "desc")


async def test_filters_are_what_they_say(client, world):
    all_of_them = await everything(client, "/customers", "customers")
    counts = sorted(c["transactions"] for c in all_of_them)
    middle = counts[len(counts) // 2]
    found = await everything(client, "/customers", "customers", min_transactions=middle)
    assert len(found) == sum(count >= middle for count in counts)
    for decision in ("allow", "review", "block"):
        found = await everything(client, "/customers", "customers", decision=decision)
        assert all(c["last_decision"] == decision for c in found)
    newest = max(c["last_event"] for c in all_of_them)
    active = await everything(client, "/customers", "customers", active_since=newest)
    silent = await everything(client, "/customers", "customers", silent_since=newest)
    assert {c["customer_id"] for c in [*active, *silent]} == set(world.transactions)
    assert not {c["customer_id"] for c in active} & {c["customer_id"] for c in silent}
    assert await everything(client, "/customers", "customers", churn_band="high", country="FR") == []


@pytest.mark.parametrize(
    "cursor", ["x", "bm90LWpzb24", "W10", "WyJhIiwgImIiXQ", "é", "W1swLDBdXQ==", "IjEi", "NQ"]
)
async def test_a_cursor_that_was_not_given_out_is_refused(client, cursor):
    assert_problem(await client.get("/customers", params={"cursor": cursor}), 422, "invalid-cursor")


async def test_a_cursor_of_another_question_is_refused(client):
    cursor = (await client.get("/customers?limit=1")).json()["next_cursor"]
    response = await client.get("/customers", params={"cursor": cursor, "sort": "transactions"})
    assert_problem(response, 422, "invalid-cursor")


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63) - 1, 2**64])
async def test_a_cursor_with_a_number_that_nothing_holds_is_refused(client, customer, number):
    asked = {"limit": 1, "sort": "transactions"}
    for path, params, place in (
        ("/customers", asked, 1),
        *((f"/customers/{customer}/transactions", {"limit": 1}, place) for place in (1, 2, 3)),
    ):
        given = (await client.get(path, params=params)).json()["next_cursor"]
        position = json.loads(base64.urlsafe_b64decode(given + "=" * (-len(given) % 4)))
        position[place] = number
        cursor = base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
        response = await client.get(path, params=params | {"cursor": cursor})
        assert_problem(response, 422, "invalid-cursor", str(number))


async def test_a_customer_is_what_index_and_state_know(client, world):
    for customer, transactions in world.transactions.items():
        found = (await client.get(f"/customers/{customer}")).json() if "/" not in customer else None
        if found is None or "customer_id" not in found or found["customer_id"] != customer:
            continue
        assert found["transactions"] == len(transactions)
        assert found["last_event"] == to_rfc3339(max(t.event_time for t in transactions))
        assert found["degraded"] == []
    assert_problem(await client.get("/customers/nobody-home"), 404, "unknown-customer", "nobody")
    profile_only = (await client.get("/customers/only-a-profile")).json()
    assert (profile_only["transactions"], profile_only["last_event"]) == (0, None)


async def test_where_one_part_is_away_the_other_answers_and_says_so(world, eager, kept, customer):
    extras = kept()
    async with serving(Broken(AWAY), eager, extras=extras) as client:
        found = (await client.get(f"/customers/{customer}")).json()
        assert (found["degraded"], found["transactions"]) == (["state"], len(world.transactions[customer]))
        assert_problem(await client.get("/customers/nobody-home"), 503, "dependency-away", "nobody")
    async with serving(world.store, eager, extras={"index": Broken(AWAY)}) as client:
        found = (await client.get(f"/customers/{customer}")).json()
        assert (found["degraded"], found["transactions"]) == (["index"], len(world.transactions[customer]))
        assert found["last_score"] == world.published[customer][-1]["score"]
        assert_problem(await client.get("/customers"), 503, "dependency-away")
        assert_problem(await client.get("/customers/nobody-home"), 503, "dependency-away", "nobody")
    async with serving(Broken(AWAY), eager, extras={"index": Broken(AWAY)}) as client:
        assert_problem(await client.get(f"/customers/{customer}"), 503, "dependency-away", customer)


async def test_a_tenant_without_a_sink_answers_from_the_state_and_knows_nobody_else(world, eager, customer):
    async with serving(world.store, eager) as client:
        found = (await client.get(f"/customers/{customer}")).json()
        assert (found["degraded"], found["transactions"]) == ([], len(world.transactions[customer]))
        assert_problem(await client.get("/customers/nobody-home"), 404, "unknown-customer", "nobody")
    async with serving(Broken(AWAY), eager) as client:
        assert_problem(await client.get(f"/customers/{customer}"), 503, "dependency-away", customer)


async def test_a_store_that_is_empty_leaves_the_index_to_answer(world, eager, kept, customer):
    empty = Broken(HistoryError("the store is empty: no worker has run against it yet"))
    async with serving(empty, eager, extras=kept()) as client:
        found = (await client.get(f"/customers/{customer}")).json()
        assert (found["degraded"], found["transactions"]) == (["state"], len(world.transactions[customer]))
        assert_problem(await client.get("/customers/nobody-home"), 503, "history-unreadable", "nobody")


async def test_transactions_are_those_of_the_customer_newest_first_with_their_scores(client, world, customer):
    path = f"/customers/{customer}/transactions"
    scores = {s["transaction_id"]: s["score"] for s in world.published[customer]}
    for limit in (1, 7, 200):
        found = await everything(client, path, "transactions", limit=limit)
        assert {t["transaction_id"]: t["score"] for t in found} == scores
        assert len(found) == len(scores)
        times = [t["event_time"] for t in found]
        assert times == sorted(times, reverse=True)
    since, until = (to_rfc3339(START + timedelta(days=d)) for d in (40, 60))
    within = await everything(client, path, "transactions", since=since, until=until)
    assert [t["event_time"] for t in within] == [t for t in times if since <= t < until]
    flagged = await everything(client, path, "transactions", decision="block")
    blocked = [s for s in world.published[customer] if s["decision"] == "block"]
    assert len(flagged) == len(blocked)
    assert_problem(await client.get("/customers/nobody-home/transactions"), 404, "unknown-customer", "nobody")


async def test_figures_add_up_to_what_was_scored(client, world):
    scores = list(itertools.chain(*world.published.values()))
    figures = (
        await client.get(
            "/analytics/transactions",
            params={"by": "decision", "since": to_rfc3339(START - timedelta(days=1))},
        )
    ).json()
    counted = Counter()
    for group in figures["groups"]:
        counted[group["keys"]["decision"]] += group["transactions"]
    assert counted == Counter(s["decision"] for s in scores)
    minor = sum(t.amount_minor for mine in world.transactions.values() for t in mine)
    assert sum(g["amount_minor"] for g in figures["groups"]) == minor
    by_day = (await client.get("/analytics/transactions?by=day&by=channel")).json()
    assert figures["by"] == ["decision"]
    assert by_day["until"] == to_rfc3339(NOW.replace(hour=0) + timedelta(days=1))
    assert all(set(g["keys"]) == {"day", "channel"} for g in by_day["groups"])
    customers = (await client.get("/analytics/customers?by=last_decision")).json()
    assert sum(g["customers"] for g in customers["groups"]) == len(world.transactions)
    assert sum(g["transactions"] for g in customers["groups"]) == len(scores)


async def test_figures_until_shortly_after_the_earliest_moment_begin_with_it(client):
    figures = (await client.get("/analytics/transactions?until=1980-01-02T00:00:00Z")).json()
    assert (figures["since"], figures["groups"]) == ("1980-01-01T00:00:00.000Z", [])


async def test_figures_and_health_say_up_to_when_transactions_are_stored(client, world):
    scores = itertools.chain(*world.published.values())
    transactions = itertools.chain(*world.transactions.values())
    newest = {
        "newest_event": to_rfc3339(max(t.event_time for t in transactions)),
        "newest_score": max(s["scored_at"] for s in scores),
    }
    for path in ("/analytics/transactions", "/analytics/customers"):
        figures = (await client.get(path)).json()
        assert {name: figures[name] for name in newest} == newest
    facts = (await client.get("/health/detailed")).json()["parts"]["event_log"]["facts"]
    assert {name: facts[name] for name in newest} == newest


async def test_figures_with_too_many_groups_say_what_to_ask_instead(client, monkeypatch):
    monkeypatch.setattr(event_totals, "MOST_GROUPS", 5)
    response = await client.get("/analytics/transactions?by=hour")
    problem = assert_problem(response, 422, "too-much-asked")
    assert "ask by fewer properties or for fewer days" in problem["detail"]


async def test_the_document_describes_figures_and_their_groups(client):
    document = (await client.get("/openapi.json")).json()
    answers = document["paths"]["/analytics/transactions"]["get"]["responses"]
    found = answers["200"]["content"]["application/json"]["schema"]["$ref"]
    assert found == "#/components/schemas/EventFigures"
    figures = (await client.get("/analytics/transactions?by=day&by=channel")).json()
    assert EventFigures.model_validate(figures).model_dump(mode="json") == figures


async def test_before_the_first_run_of_the_sink_it_is_said_what_to_do(world, eager, tmp_path, customer):
    from api.ports import Page
    from infra.customer_index import SqlCustomerIndex
    from infra.database import Database
    from infra.event_queries import EventQueries

    database = Database(f"sqlite:///{tmp_path}/none.db")
    extras = {
        "index": SqlCustomerIndex(database, Page),
        "events": EventQueries(database, tmp_path / "events", Page),
    }
    with pytest.raises(DependencyError, match="tidegate sink"):
        await extras["index"].get("c")
    async with serving(world.store, eager, extras=extras) as client:
        for path in ("/customers", f"/customers/{customer}/transactions", "/analytics/transactions"):
            assert_problem(await client.get(path), 503, "dependency-away")
        health = (await client.get("/health/detailed")).json()
        assert (health["status"], health["parts"]["event_log"]["status"]) == ("degraded", "down")


async def test_health_in_detail_names_what_there_is(client, world, eager):
    health = (await client.get("/health/detailed")).json()
    assert health["status"] == "up"
    assert health["parts"]["event_log"]["facts"]["rows"] == sum(map(len, world.transactions.values()))
    assert health["parts"]["model_fraud"]["facts"]["version"] == "v1"
    assert health["parts"]["live_feed"]["status"] == "absent"
    async with serving(Broken(AWAY), eager) as away:
        response = await away.get("/health/detailed")
        assert (response.status_code, response.json()["status"]) == (503, "down")
        assert "127.0.0.1" not in response.text
