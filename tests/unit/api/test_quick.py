"""The quick way of a lookup and the documented one: one answer, one gate."""

import asyncio
from dataclasses import replace

import pytest

from api.access import ACCESS
from api.audit import Auditor
from api.limits import Limits, LocalLimiter, Quota
from api.quick import QuickLookup, QuickScore
from api.routes.customers import LOOKUPS
from api.routes.inference import EXAMPLE_TRANSACTION, SCORES
from api.settings import ApiSettings
from schemas.errors import DependencyError
from schemas.fields import to_epoch_ms, to_rfc3339
from tests.closing import Login
from tests.serving import NOW, Broken, assert_problem, serving, sunk
from tests.unit.api.test_audit import Trail

FORMAT = "/customers/{customer_id}/features"
SCORE = "/inference/fraud-detection"
PAYMENT = EXAMPLE_TRANSACTION | {"event_time": to_rfc3339(NOW)}


def scope(path, method="GET", query=b"", kind="http"):
    return {"type": kind, "method": method, "path": path, "query_string": query}


def taken(**request):
    match, found = QuickLookup(FORMAT, lambda given, customer_id: None).matches(scope(**request))
    return found.get("path_params", {}).get("customer_id") if match.value else None


@pytest.mark.parametrize("path", LOOKUPS)
def test_it_has_the_name_that_scopes_limits_and_metrics_go_by(path):
    assert ("GET", QuickLookup(path, lambda given, customer_id: None).path_format) in ACCESS


@pytest.mark.parametrize("path", SCORES)
def test_a_score_has_that_name_too(path):
    assert ("POST", QuickScore(path, lambda given, body: None).path_format) in ACCESS


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


@pytest.mark.parametrize(
    ("method", "path", "headers", "is_taken"),
    [
        ("POST", SCORE, [(b"content-length", b"300")], True),
        ("GET", SCORE, [(b"content-length", b"300")], False),
        ("POST", "/inference/churn-score", [(b"content-length", b"300")], False),
        ("POST", SCORE, [(b"transfer-encoding", b"chunked")], False),
        ("POST", SCORE, [(b"content-length", b"300"), (b"content-length", b"301")], False),
        ("POST", SCORE, [(b"content-length", b"-1")], False),
        ("POST", SCORE, [(b"content-length", str((1 << 20) + 1).encode())], False),
    ],
)
def test_a_score_is_taken_where_its_body_has_a_length_that_it_may_have(method, path, headers, is_taken):
    route = QuickScore(SCORE, lambda given, body: None)
    match, _ = route.matches(scope(path, method) | {"headers": headers})
    assert bool(match.value) is is_taken


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


@pytest.mark.parametrize("path", LOOKUPS)
async def test_parameters_lead_to_the_documented_route_and_the_same_answer(
    world, eager, customer, tmp_path, path
):
    async with serving(world.store, eager, extras=sunk(world, tmp_path)) as client:
        for name in (customer, "nobody-home"):
            asked = path.format(customer_id=name)
            quick, documented = await client.get(asked), await client.get(f"{asked}?nothing=known")
            assert quick.status_code == documented.status_code == (200 if name == customer else 404)
            if quick.status_code == 200:
                assert quick.content == documented.content
                assert quick.headers["etag"] == documented.headers["etag"]


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


async def test_the_answer_before_the_middleware_has_every_header_of_the_one_behind_it(world, eager, customer):
    quotas = {kind: Quota(50, 10) for kind in ("auth", "read", "score", "bulk", "change")}
    login = Login(limits=Limits(quotas, LocalLimiter(), LocalLimiter(), lambda event: None))
    https = ApiSettings(tls_cert="cert.pem", cors_origins=["https://desk.example"])
    async with serving(world.store, eager, security=login.security(), settings=https) as client:
        path, sent = f"/customers/{customer}/features", login.bearer() | {"x-request-id": "a-1"}
        quick = await client.get(path, headers=sent)
        documented = await client.get(path, params={"as_of": to_epoch_ms(NOW)}, headers=sent)
        assert quick.headers["x-request-id"] == "a-1"
        assert set(quick.headers) == set(documented.headers) >= {"ratelimit", "strict-transport-security"}
        # A page of another origin is answered by the middleware that knows which may read.
        page = await client.get(path, headers=sent | {"origin": "https://desk.example"})
        assert page.headers["access-control-allow-origin"] == "https://desk.example"


async def test_a_failed_lookup_is_let_in_counted_and_written_down_once(world, eager, customer):
    login, trail = Login(), Trail()
    security = replace(login.security(), auditor=Auditor(trail, lambda event: None))
    async with serving(world.store, eager, security=security) as client:
        for name, status in ((customer, 200), ("nobody-home", 404)):
            answer = await client.get(f"/customers/{name}/features", headers=login.bearer())
            assert answer.status_code == status
        refused = await client.get(f"/customers/{customer}/features", headers={"authorization": "Bearer x"})
        assert_problem(refused, 401, "unauthorised")
        text = (await client.get("/metrics", headers=login.bearer())).text
    asked = [(r["route"], r["subjects"], r["status"]) for r in trail.records if r["event"] == "answered"]
    route = f"GET {FORMAT}"
    assert asked == [(route, [f"<default {customer}>"], 200), (route, ["<default nobody-home>"], 404)]
    for line in (
        'tidegate_auth_total{outcome="accepted"} 3.0',
        'tidegate_auth_total{outcome="refused"} 1.0',
        f'tidegate_http_requests_total{{method="GET",route="{FORMAT}",status="200"}} 1.0',
        f'tidegate_http_requests_total{{method="GET",route="{FORMAT}",status="404"}} 1.0',
        "tidegate_http_requests_in_progress 1.0",
    ):
        assert line in text.splitlines()


async def test_a_lookup_that_takes_too_long_is_ended(eager):
    class Silent:
        async def read(self, customer_id, *, scores=True):
            await asyncio.Event().wait()

    async with serving(Silent(), eager, settings=ApiSettings(http_timeout_s=0.05)) as client:
        assert_problem(await client.get("/customers/c-1/features"), 503, "timeout")


async def test_what_nobody_foresaw_is_answered_without_its_words(eager):
    broken = Broken(RuntimeError("c-1 and a password"))
    async with serving(broken, eager, raise_app_exceptions=False) as client:
        assert_problem(await client.get("/customers/c-1/features"), 500, "unforeseen", "password")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (PAYMENT, 200),
        (PAYMENT | {"amount": "-1"}, 422),
        (PAYMENT | {"event_time": "2999-01-01T00:00:00Z"}, 422),
        ("no transaction", 422),
    ],
)
async def test_both_ways_score_alike(world, eager, body, status):
    async with serving(world.store, eager) as client:
        quick = await client.post(SCORE, json=body)
        documented = await client.post(f"{SCORE}?nothing=known", json=body)
    assert quick.status_code == documented.status_code == status, quick.text
    assert set(quick.headers) == set(documented.headers)
    if status == 200:
        assert quick.content == documented.content
        return
    one, other = quick.json(), documented.json()
    assert {k: v for k, v in one.items() if k != "request_id"} == {
        k: v for k, v in other.items() if k != "request_id"
    }


async def test_a_score_asks_for_its_scope_and_is_counted_and_written_down_once(world, eager, customer):
    login, trail = Login(), Trail()
    security = replace(login.security(), auditor=Auditor(trail, lambda event: None))
    body = PAYMENT | {"customer_id": customer}
    async with serving(world.store, eager, security=security) as client:
        assert_problem(await client.post(SCORE, json=body), 401, "unauthorised")
        wrong = await client.post(SCORE, json=body, headers=login.bearer(["customers:read"]))
        assert_problem(wrong, 403, "forbidden")
        assert (await client.post(SCORE, json=body, headers=login.bearer())).status_code == 200
        refused = await client.post(SCORE, json=body | {"amount": "x"}, headers=login.bearer())
        assert refused.status_code == 422
        text = (await client.get("/metrics", headers=login.bearer())).text
    asked = [(r["route"], r["subjects"], r["status"]) for r in trail.records if r["event"] == "answered"]
    route = f"POST {SCORE}"
    assert asked == [
        (route, [], 403),
        (route, [f"<default {customer}>"], 200),
        (route, [], 422),
    ]
    for status in (200, 401, 403, 422):
        line = f'tidegate_http_requests_total{{method="POST",route="{SCORE}",status="{status}"}} 1.0'
        assert line in text.splitlines()


async def test_a_body_longer_than_any_is_refused_and_a_long_one_is_read_whole(world, eager):
    async with serving(world.store, eager) as client:
        long = b'{"transaction_id": "' + b"x" * (1 << 19) + b'"}'
        assert (await client.post(SCORE, content=long)).status_code == 422
        assert_problem(
            await client.post(SCORE, content=b"x" * ((1 << 20) + 1)), 413, "http-request-entity-too-large"
        )
