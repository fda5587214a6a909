"""Containers as the fault tests use them, on an engine of ours: it speaks Docker's protocol, runs processes.

What only a real engine shows (images that can be fetched, their entry points, their networks) is not tested.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as Gone
from redis.exceptions import TimeoutError as Late

from infra.embedded import EmbeddedBroker, EmbeddedRedis
from infra.topics_admin import TopicsAdmin
from tests.faults.containers import ContainerKafka, ContainerRedis, engine_answers, image

pytestmark = pytest.mark.integration
PARTS = {"apache/kafka": EmbeddedBroker, "valkey/valkey": EmbeddedRedis}


class Engine(ThreadingHTTPServer):
    """As much of a container engine as one container needs."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Answers)
        self.folder = folder
        self.created = []
        self.parts = {}
        self.paused = set()
        self.asked = []

    def create(self, wanted):
        name = f"{len(self.parts):064x}"
        ((port, (bound,)),) = wanted["HostConfig"]["PortBindings"].items()
        assert port == f"{bound['HostPort']}/tcp"
        part = PARTS[wanted["Image"].split(":")[0]]
        self.parts[name] = part(self.folder / name, int(bound["HostPort"]))
        self.created.append(wanted)
        return {"Id": name, "Warnings": []}

    def do(self, name, what):
        part = self.parts[name]
        {
            "start": part.start,
            "kill": part.kill,
            "stop": part.stop,
            "pause": part.pause,
            "unpause": part.resume,
        }[what]()
        (self.paused.add if what == "pause" else self.paused.discard)(name)

    def state(self, name):
        status = "paused" if name in self.paused else "running" if self.parts[name].running else "exited"
        wanted = self.created[int(name, 16)]
        return {"Id": name, "State": {"Status": status}, "Config": wanted, "Name": "/one"}


class Answers(BaseHTTPRequestHandler):
    server: Engine

    def log_message(self, *_):
        """Nothing on the console."""

    def answer(self, status, body=b""):
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}") if length else {}
        path = urlsplit(self.path).path.split("/")[1:]
        path = path[1:] if path[0].startswith("v1.") else path
        self.server.asked.append((self.command, *path))
        match self.command, path:
            case "GET", ["_ping"]:
                self.answer(200, b"OK")
            case "GET", ["version"]:
                self.answer(200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24"})
            case "GET", ["images", *_, "json"]:
                self.answer(200, {"Id": "sha256:0"})
            case "POST", ["containers", "create"]:
                self.answer(201, self.server.create(body))
            case "GET", ["containers", name, "json"]:
                self.answer(200, self.server.state(name))
            case "POST", ["containers", name, what]:
                self.server.do(name, what)
                self.answer(204)
            case "DELETE", ["containers", name]:
                self.server.parts[name].kill()
                self.answer(204)
            case _:
                self.answer(404, {"message": f"not here: {self.command} {self.path}"})

    do_GET = do_POST = do_DELETE = handle_any


@pytest.fixture
def engine(tmp_path, monkeypatch):
    server = Engine(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    for part in server.parts.values():
        part.kill()
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_an_engine_that_answers_is_found(engine):
    assert engine_answers()


def test_no_engine_is_said_and_no_error(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert not engine_answers()


def test_redis_keeps_its_port_and_its_data_over_a_kill(engine):
    redis = ContainerRedis()
    redis.start()
    try:
        (wanted,) = engine.created
        assert wanted["Image"] == image("redis")
        assert wanted["Cmd"][:3] == ["valkey-server", "--port", str(redis.port)]
        with Redis.from_url(redis.url, socket_timeout=1, retry=None) as client:
            client.set("kept", "yes")
            client.config_set("appendfsync", "always")
            redis.pause()
            assert redis.running
            with pytest.raises(Late):
                client.get("kept")
            redis.resume()
            redis.kill()
            assert not redis.running
            with pytest.raises(Gone):
                client.get("kept")
            redis.start()
            assert client.get("kept") == b"yes"
            redis.stop()
            assert not redis.running
    finally:
        redis.remove()
    assert engine.asked[-1][0] == "DELETE"


async def test_kafka_is_told_the_address_that_clients_use(engine):
    kafka = ContainerKafka()
    kafka.start()
    try:
        (wanted,) = engine.created
        assert wanted["Image"] == image("kafka")
        environment = dict(line.split("=", 1) for line in wanted["Env"])
        assert environment["KAFKA_ADVERTISED_LISTENERS"] == f"CLIENT://{kafka.address}"
        assert f"CLIENT://0.0.0.0:{kafka.port}" in environment["KAFKA_LISTENERS"]
        assert await TopicsAdmin(kafka.address).partitions() == {}
    finally:
        kafka.remove()
