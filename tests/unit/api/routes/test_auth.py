import base64

import pytest

from api.limits import Limits, LocalLimiter, Quota
from tests.closing import SECRET, Login
from tests.serving import AWAY, Broken, assert_problem, serving

FORM = {"grant_type": "client_credentials"}
IN_FORM = {**FORM, "client_id": "teller", "client_secret": SECRET}
LOOKUP = "/customers/nobody-home/features"


@pytest.fixture
def login() -> Login:
    return Login()


@pytest.fixture
async def closed(world, eager, login):
    async with serving(world.store, eager, security=login.security()) as api:
        yield api


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def assert_refused(response, error: str, status: int = 400) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"] == error
    assert SECRET not in response.text
    assert response.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in response.headers) == (status == 401)


@pytest.mark.parametrize(
    "asked",
    [{"data": IN_FORM}, {"data": FORM, "headers": basic(f"teller:{SECRET}")}],
    ids=["in the form", "by HTTP Basic"],
)
async def test_a_token_that_was_given_out_opens_what_the_client_may_do(closed, asked):
    answer = await closed.post("/auth/token", **asked)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 600)
    headers = {"authorization": f"Bearer {body['access_token']}"}
    assert_problem(await closed.get(LOOKUP, headers=headers), 404, "unknown-customer")


async def test_a_token_may_be_asked_for_fewer_scopes(closed):
    answer = (await closed.post("/auth/token", data={**IN_FORM, "scope": "inference models:read"})).json()
    assert answer["scope"] == "inference models:read"
    headers = {"authorization": f"Bearer {answer['access_token']}"}
    assert_problem(await closed.get(LOOKUP, headers=headers), 403, "forbidden")


async def test_more_scopes_than_the_client_has_are_refused(closed, login):
    teller = login.clients.known["teller"]
    login.clients.known["teller"] = teller.model_copy(update={"scopes": frozenset({"inference"})})
    answer = await closed.post("/auth/token", data={**IN_FORM, "scope": "inference customers:erase"})
    assert_refused(answer, "invalid_scope")


@pytest.mark.parametrize(
    ("asked", "error", "status"),
    [
        ({"data": {**IN_FORM, "client_secret": "wrong"}}, "invalid_client", 401),
        ({"data": {**IN_FORM, "client_id": "nobody"}}, "invalid_client", 401),
        ({"data": FORM}, "invalid_client", 401),
        ({"data": FORM, "headers": basic("teller:wrong")}, "invalid_client", 401),
        ({"data": FORM, "headers": basic("teller")}, "invalid_client", 401),
        ({"data": FORM, "headers": {"authorization": "Basic ???"}}, "invalid_client", 401),
        ({"data": FORM, "headers": {"authorization": "Bearer a.b.c"}}, "invalid_client", 401),
        ({"data": IN_FORM, "headers": basic(f"teller:{SECRET}")}, "invalid_request", 400),
        ({"data": {**IN_FORM, "grant_type": "password"}}, "unsupported_grant_type", 400),
        ({"data": {k: v for k, v in IN_FORM.items() if k != "grant_type"}}, "invalid_request", 400),
        ({"json": IN_FORM}, "invalid_request", 400),
        ({"data": {**IN_FORM, "client_id": ["teller", "teller"]}}, "invalid_request", 400),
        ({"data": {**IN_FORM, "more": "x" * 9000}}, "invalid_request", 400),
        ({"params": IN_FORM}, "invalid_request", 400),
    ],
)
async def test_what_is_no_right_request_gets_no_token(closed, asked, error, status):
    assert_refused(await closed.post("/auth/token", **asked), error, status)


async def test_the_key_set_has_no_private_part(closed, login):
    answer = await closed.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=30"
    (key,) = answer.json()["keys"]
    assert key["kid"] == "k1"
    assert "d" not in key


@pytest.mark.parametrize(("method", "path"), [("POST", "/auth/token"), ("GET", "/.well-known/jwks.json")])
async def test_without_login_there_is_nothing_to_get_a_token_for(client, method, path):
    assert_problem(await client.request(method, path, data=IN_FORM), 404, "http-not-found")


def limits(shared) -> Limits:
    quota = Quota(3, 60)
    kinds = ("auth", "read", "score", "bulk", "change")
    return Limits(dict.fromkeys(kinds, quota), shared, LocalLimiter(lambda: 0.0), lambda event: None)


async def test_who_guesses_secrets_is_stopped_and_others_are_not(world, eager, login):
    login.limits = limits(LocalLimiter(lambda: 0.0))
    login.clients.known["other"] = login.clients.known["teller"]
    async with serving(world.store, eager, security=login.security()) as api:
        wrong = {**IN_FORM, "client_secret": "wrong"}
        answers = [(await api.post("/auth/token", data=wrong)).status_code for _ in range(5)]
        assert answers == [401, 401, 401, 429, 429]
        refused = await api.post("/auth/token", data=IN_FORM)
        assert_problem(refused, 429, "too-many-requests")
        assert refused.headers["retry-after"] == "20"
        assert refused.headers["ratelimit"] == '"auth";r=0;t=20'
        assert refused.headers["ratelimit-policy"] == '"auth";q=3;w=60'
        other = {**IN_FORM, "client_id": "other"}
        assert (await api.post("/auth/token", data=other)).status_code == 200


async def test_names_that_nobody_has_share_one_allowance(world, eager, login):
    login.limits = limits(LocalLimiter(lambda: 0.0))
    async with serving(world.store, eager, security=login.security()) as api:
        answers = [
            (await api.post("/auth/token", data={**IN_FORM, "client_id": f"guess-{n}"})).status_code
            for n in range(5)
        ]
    assert answers == [401, 401, 401, 429, 429]


async def test_no_token_is_given_out_while_tries_cannot_be_counted(world, eager, login):
    login.limits = limits(Broken(AWAY))
    async with serving(world.store, eager, security=login.security()) as api:
        answer = await api.post("/auth/token", data=IN_FORM)
        assert_problem(answer, 503, "dependency-away", "127.0.0.1")
        # Lookups go on, counted by this process.
        answers = [(await api.get(LOOKUP, headers=login.bearer())).status_code for _ in range(4)]
        assert answers == [404, 404, 404, 429]
