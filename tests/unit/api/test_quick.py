"""The quick way of a lookup and the documented one: one answer, one gate."""

import pytest

from api.access import ACCESS
from api.quick import QuickLookup
from schemas.errors import DependencyError
from schemas.fields import to_epoch_ms
from tests.closing import Login
from tests.serving import NOW, Broken, assert_problem, serving

FORMAT = "/customers/{customer_id}/features"


def scope(path, method="GET", query=b"", kind="http"):
    return {"type": kind, "method": method, "path": path, "query_string": query}


def taken(**request):
    match, found = QuickLookup(FORMAT, lambda given, customer_id: None).matches(scope(**request))
    return found.get("path_params", {}).get("customer_id") if match.value else None


def test_it_has_the_name_that_scopes_limits_and_metrics_go_by():
    assert ("GET", QuickLookup(FORMAT, lambda given, customer_id: None).path_format) in ACCESS


@pytest.mark.parametrize("customer_id", ["c0000042", "a.b_c:d-e", "x" * 64])
def test_a_plain_lookup_is_taken(customer_id):
    assert taken(path=f"/customers/{customer_id}/features") == customer_id


CARD = "4" + "1" * 15


@pytest.mark.parametrize(
    "request_",
    [
        {"path": "/customers/c-1/features", "method": "POST"},
        {"path": "/customers/c-1/features", "query": b"as_of=0"},
        {"path": "/customers/c-1/features", "kind": "websocket"},
        {"path": "/customers/c-1/scores"},
        {"path": "/customers/a/b/features"},
        {"path": "/customers//features"},
        {"path": "/customers/é/features"},
        {"path": "/customers/c-1/features\n"},
        {"path": "/customers/c-1/features/"},
        {"path": "/customers/" + "x" * 65 + "/features"},
        {"path": f"/customers/{CARD}/features"},
        {"path": f"/customers/{CARD[:4]}-{CARD[4:8]}-{CARD[8:12]}-{CARD[12:]}/features"},
    ],
)
def test_every_other_form_is_left_to_the_documented_route(request_):
    assert taken(**request_) is None


async def test_both_ways_give_the_same_answer(world, eager, customer):
    async with serving(world.store, eager) as client:
        path = f"/customers/{customer}/features"
        quick = await client.get(path)
        documented = await client.get(path, params={"as_of": to_epoch_ms(NOW)})
        assert quick.status_code == documented.status_code == 200
        assert quick.content == documented.content
        same = {"content-type", "content-length", "etag", "cache-control"}
        assert {n: quick.headers[n] for n in same} == {n: documented.headers[n] for n in same}
        again = await client.get(path, headers={"if-none-match": quick.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = await client.head(path)
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", quick.headers["etag"])
        assert_problem(await client.get("/customers/nobody-home/features"), 404, "unknown-customer")


async def test_an_unknown_value_is_null(world, eager, customer):
    async with serving(world.store, eager) as client:
        found = (await client.get(f"/customers/{customer}/features")).json()["features"]
    assert list(found) == list(eager.engine.names)
    assert None in found.values()


async def test_errors_are_answered_as_everywhere(eager):
    async with serving(Broken(DependencyError("away")), eager) as client:
        assert_problem(await client.get("/customers/c-1/features"), 503, "dependency-away")


async def test_it_asks_for_the_scope_of_its_route(world, eager, customer):
    login = Login()
    async with serving(world.store, eager, security=login.security()) as client:
        path = f"/customers/{customer}/features"
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers=login.bearer(["inference"]))).status_code == 403
        assert (await client.get(path, headers=login.bearer(["customers:read"]))).status_code == 200


async def test_it_is_counted_under_its_route(world, eager, customer):
    async with serving(world.store, eager) as client:
        await client.get(f"/customers/{customer}/features")
        text = (await client.get("/metrics")).text
    assert f'tidegate_http_requests_total{{method="GET",route="{FORMAT}",status="200"}} 1.0' in text
