"""Live scores end with the right to see them."""

import asyncio
from datetime import timedelta

import pytest

from api.application import create_app
from api.deps import Services
from api.live import LiveHub
from tests.closing import Login
from tests.serving import NOW
from tests.unit.api.test_live import Log


@pytest.fixture
def login():
    return Login()


@pytest.fixture
def log():
    return Log()


@pytest.fixture
async def app(world, eager, login, log, monkeypatch):
    monkeypatch.setattr("api.routes.stream._LOOK_S", 0.0)
    given = Services(world.store, eager, None, lambda: NOW, feed=LiveHub(log))
    made = create_app(given, security=login.security())
    async with made.router.lifespan_context(made):
        await until(lambda: given.feed.status()["up"])
        yield made


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


class Listening:
    """A request to `/stream/scores` under way."""

    def __init__(self, app, login, kind, method="GET"):
        name, value = next(iter(login.bearer().items()))
        scope = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": "/stream/scores",
            "raw_path": b"/stream/scores",
            "query_string": b"",
            "headers": [(name.encode(), value.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("tidegate", 80),
            "scheme": "http",
            "subprotocols": [],
        }
        if kind == "websocket":
            del scope["method"]
        self.told = asyncio.Queue()
        self.told.put_nowait(
            {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request"}
        )
        self.sent = []
        self.task = asyncio.ensure_future(app(scope, self.told.get, self.send))

    async def send(self, message):
        self.sent.append(message)

    @property
    def text(self):
        return "".join(m.get("text") or m.get("body", b"").decode() for m in self.sent)


def revoked(login):
    del login.clients.known["teller"]


def expired(login):
    login.now += timedelta(hours=1)


def narrowed(login):
    client = login.clients.known["teller"]
    login.clients.known["teller"] = client.model_copy(update={"scopes": frozenset({"inference"})})


def moved(login):
    client = login.clients.known["teller"]
    login.clients.known["teller"] = client.model_copy(update={"tenant": "another"})


@pytest.mark.parametrize("change", [revoked, expired, narrowed, moved])
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_who_may_not_see_scores_any_more_gets_none(app, login, log, kind, change):
    listening = Listening(app, login, kind)
    await until(lambda: "0:0" in listening.text)
    log.put(0, "before")
    await until(lambda: "before" in listening.text)
    change(login)
    log.put(0, "behind")
    async with asyncio.timeout(10):
        await listening.task
    assert "behind" not in listening.text
    if kind == "http":
        assert "event: dropped" in listening.text
        assert "the access token is not valid any more" in listening.text
    else:
        assert listening.sent[-1]["type"] == "websocket.close"
        assert listening.sent[-1]["code"] == 1008
        assert "not valid any more" in listening.sent[-1]["reason"]


async def test_while_the_keys_of_another_issuer_are_away_scores_go_on(app, login, log):
    listening = Listening(app, login, "http")
    await until(lambda: "0:0" in listening.text)
    login.keys.away = True
    log.put(0, "during")
    await until(lambda: "during" in listening.text)
    listening.task.cancel()
    await asyncio.gather(listening.task, return_exceptions=True)


async def test_a_question_for_the_headers_alone_leaves_no_listener(app, login):
    listening = Listening(app, login, "http", "HEAD")
    async with asyncio.timeout(10):
        await listening.task
    assert listening.sent[0]["status"] == 200
    feed = app.state.tenants["default"].feed
    assert feed.status()["clients"] == 0


async def test_whoever_goes_leaves_no_listener(app, login, log):
    listening = Listening(app, login, "http")
    await until(lambda: "0:0" in listening.text)
    listening.told.put_nowait({"type": "http.disconnect"})
    async with asyncio.timeout(10):
        await listening.task
    assert app.state.tenants["default"].feed.status()["clients"] == 0
