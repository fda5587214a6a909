import pytest
from fastapi.routing import iter_route_contexts
from httpx import ASGITransport, AsyncClient

from api.access import ACCESS, SCOPES
from api.application import create_app
from api.deps import Services
from api.gate import Security
from api.idempotency import idempotent
from tests.closing import Login, forged, later
from tests.serving import NOW, World, assert_problem, serving

FORGED = sorted(forged(Login()))
UNLISTED = {"/docs", "/docs/assets/{path}", "/docs/start.js", "/redoc", "/openapi.json"}
BODIES = {
    "/inference/fraud-detection": {"json": {}},
    "/inference/churn-score": {"json": {"customer_id": "nobody-home"}},
}
PATH = "/customers/nobody-home/features"


@pytest.fixture
def login() -> Login:
    return Login()


@pytest.fixture
async def closed(world, eager, login):
    async with serving(world.store, eager, security=login.security()) as api:
        yield api


def application(eager, login=None, store=None):
    async def ping():
        return None

    security = login.security() if login else Security()
    return create_app(Services(store, eager, ping, lambda: NOW), security=security)


def routes(app) -> list[tuple[str, str]]:
    """Every method and path of an application."""
    found = []
    for context in iter_route_contexts(app.routes):
        methods = getattr(context, "methods", None) or {"WEBSOCKET"}
        path = getattr(context, "path_format", None) or context.path
        if path not in UNLISTED:
            found += [(method, path) for method in methods if method != "HEAD"]
    return found


def over_http(app) -> list[tuple[str, str]]:
    return [(method, path) for method, path in routes(app) if method != "WEBSOCKET"]


def test_every_route_says_what_it_asks_for(eager):
    found = routes(application(eager))
    assert ("POST", "/inference/fraud-detection") in found
    assert [route for route in found if route not in ACCESS] == []


def test_every_write_takes_an_idempotency_key(eager):
    taking = set()
    for context in iter_route_contexts(application(eager).routes):
        dependencies = getattr(context, "dependencies", None) or []
        if any(d.dependency is idempotent for d in dependencies):
            taking |= {(method, context.path_format) for method in context.methods}
    writes = {r for r, access in ACCESS.items() if access.kind == "change" and r[0] not in ("GET", "HEAD")}
    assert ("DELETE", "/customers/{customer_id}") in writes
    assert writes <= taking


def test_every_scope_that_a_route_asks_for_is_described():
    asked = {access.scope for access in ACCESS.values()} - {None}
    assert asked <= SCOPES.keys()


def test_only_these_routes_are_open():
    assert {route for route, access in ACCESS.items() if access.scope is None} == {
        ("GET", "/"),
        ("GET", "/live"),
        ("GET", "/ready"),
        ("POST", "/auth/token"),
        ("GET", "/.well-known/jwks.json"),
    }


def request_of(path: str) -> dict:
    return {"url": path.replace("{customer_id}", "nobody-home"), **BODIES.get(path, {})}


@pytest.mark.parametrize("scope", sorted(SCOPES))
async def test_every_route_takes_its_own_scope_and_no_other(eager, login, world, scope):
    app = application(eager, login, world.store)
    headers = login.bearer([scope])
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://tidegate") as api:
        for method, path in over_http(app):
            wanted = ACCESS[method, path].scope
            if wanted == scope and path.startswith("/stream"):
                continue  # never ends
            response = await api.request(method, **request_of(path), headers=headers)
            if wanted is None:
                continue
            if wanted == scope:
                assert response.status_code not in {401, 403}, (method, path, response.text)
            else:
                assert_problem(response, 403, "forbidden", "nobody-home")
                assert f'scope="{wanted}"' in response.headers["www-authenticate"]


async def test_every_closed_route_refuses_who_sends_no_token(eager, login, world):
    app = application(eager, login, world.store)
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://tidegate") as api:
        for method, path in over_http(app):
            if ACCESS[method, path].scope is not None:
                response = await api.request(method, **request_of(path))
                assert_problem(response, 401, "unauthorised", "nobody-home")
                assert response.headers["www-authenticate"] == 'Bearer realm="tidegate"'


async def test_a_route_that_is_not_listed_is_closed_to_everybody(eager, login, world):
    app = application(eager, login, world.store)

    @app.get("/new")
    async def new() -> str:
        return "open"

    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://tidegate") as api:
        assert_problem(await api.get("/new"), 401, "unauthorised")
        assert_problem(await api.get("/new", headers=login.bearer()), 403, "forbidden")


async def test_a_right_token_opens(closed, login):
    assert_problem(await closed.get(PATH, headers=login.bearer()), 404, "unknown-customer")


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused(closed, login, name):
    token = forged(login)[name]
    response = await closed.get(PATH, headers={"authorization": f"Bearer {token}"})
    problem = assert_problem(response, 401, "unauthorised")
    # The same words for all: who forges must not learn how far a token came.
    assert problem["detail"] == "send 'Authorization: Bearer TOKEN' with a valid access token"
    assert response.headers["www-authenticate"] == 'Bearer realm="tidegate", error="invalid_token"'


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused_where_none_is_needed_too(closed, login, name):
    token = forged(login)[name]
    response = await closed.post("/inference/churn-score", headers={"authorization": f"Bearer {token}"})
    assert response.status_code == 401


@pytest.mark.parametrize(
    "header", ["Basic dGVsbGVyOnJpZ2h0LXNlY3JldA==", "Token abc", "", "Bearer", "Bearer \x00", "Bearer a b"]
)
async def test_another_way_to_say_who_one_is_is_refused(closed, header):
    response = await closed.get(PATH, headers={"authorization": header})
    assert_problem(response, 401, "unauthorised")


async def test_two_tokens_are_refused(closed, login):
    token = login.bearer()["authorization"]
    headers = [("authorization", token), ("authorization", token)]
    assert_problem(await closed.get(PATH, headers=headers), 401, "unauthorised")


async def test_a_token_in_the_path_is_no_token(closed, login):
    response = await closed.get(PATH, params={"access_token": login.token()})
    assert_problem(response, 401, "unauthorised", login.token())


async def test_a_body_is_not_read_from_who_sends_no_token(closed):
    asked = 0

    async def body():
        nonlocal asked
        asked += 1
        yield b"{}"

    assert (await closed.post("/inference/churn-score", content=body())).status_code == 401
    assert asked == 0


async def test_a_token_is_believed_until_it_expires_and_no_longer(closed, login):
    headers = login.bearer()
    assert (await closed.get(PATH, headers=headers)).status_code == 404
    later(login, 600 + 29)
    assert (await closed.get(PATH, headers=headers)).status_code == 404
    later(login, 2)
    assert (await closed.get(PATH, headers=headers)).status_code == 401


async def test_a_token_is_not_believed_after_its_key_is_gone(closed, login):
    headers = login.bearer()
    assert (await closed.get(PATH, headers=headers)).status_code == 404
    login.keys.known.clear()
    assert (await closed.get(PATH, headers=headers)).status_code == 401


async def test_a_revoked_client_is_refused_with_the_token_it_has(closed, login):
    headers = login.bearer()
    assert (await closed.get(PATH, headers=headers)).status_code == 404
    del login.clients.known["teller"]
    assert (await closed.get(PATH, headers=headers)).status_code == 401


async def test_a_scope_taken_away_counts_at_once(closed, login):
    headers = login.bearer()
    teller = login.clients.known["teller"]
    login.clients.known["teller"] = teller.model_copy(update={"scopes": frozenset({"inference"})})
    assert_problem(await closed.get(PATH, headers=headers), 403, "forbidden")


async def test_a_tenant_sees_its_own_customers_and_not_that_others_exist(eager, login, customer, world):
    """Object-level: the same id is found in one tenant and is nobody in another."""
    login.clients.known["other"] = login.clients.known["teller"].model_copy(
        update={"client_id": "other", "tenant": "corporate"}
    )
    corporate = World()
    await corporate.score([t for t in world.transactions[customer]][:3], eager)
    mine = await world.store.read(customer)
    theirs = await corporate.store.read(customer)
    assert mine is not None
    assert theirs is not None
    only_retail = next(c for c in world.transactions if c != customer)
    async with serving(
        world.store, eager, security=login.security(), others={"corporate": corporate.store}
    ) as api:
        retail_token = login.bearer()
        corporate_token = login.bearer(client_id="other", sub="other", tenant="corporate")
        for what in ("features", "scores"):
            path = f"/customers/{only_retail}/{what}"
            assert (await api.get(path, headers=retail_token)).status_code == 200
            answer = await api.get(path, headers=corporate_token)
            nobody = await api.get(f"/customers/nobody-home/{what}", headers=corporate_token)
            assert_problem(answer, 404, "unknown-customer", only_retail)
            # But for the request's own id, byte for byte.
            ids = [a.headers["x-request-id"].encode() for a in (answer, nobody)]
            assert answer.content.replace(ids[0], b"") == nobody.content.replace(ids[1], b"")
        path = "/inference/churn-score"
        body = {"customer_id": only_retail}
        assert (await api.post(path, json=body, headers=corporate_token)).status_code == 404
        # Where both have the id, each sees its own.
        path = f"/customers/{customer}/features"
        counts = [
            (await api.get(path, headers=h)).json()["transactions"] for h in (retail_token, corporate_token)
        ]
        assert counts == [len(world.transactions[customer]), 3]


async def test_a_token_of_a_tenant_that_is_not_served_is_refused(closed, login):
    login.clients.known["teller"] = login.clients.known["teller"].model_copy(update={"tenant": "elsewhere"})
    response = await closed.get(PATH, headers=login.bearer(tenant="elsewhere"))
    assert_problem(response, 403, "forbidden", "elsewhere")


async def test_a_token_cannot_choose_another_tenant_than_its_clients(closed, login):
    response = await closed.get(PATH, headers=login.bearer(tenant="elsewhere"))
    assert_problem(response, 401, "unauthorised")


async def test_without_login_everything_is_open(client):
    for method, path in over_http(client._transport.app):
        if path.startswith("/stream"):
            continue  # never ends
        response = await client.request(method, **request_of(path))
        assert response.status_code not in {401, 403}


async def test_what_becomes_of_tokens_is_counted(closed, login):
    await closed.get(PATH, headers=login.bearer())
    for token in ("a.b.c", "none"):
        await closed.get(PATH, headers={"authorization": f"Bearer {token}"})
    text = (await closed.get("/metrics", headers=login.bearer())).text
    assert 'tidegate_auth_total{outcome="refused"} 2.0' in text
    assert 'tidegate_auth_total{outcome="accepted"} 2.0' in text
