import asyncio
import shutil
from datetime import UTC, datetime

import pytest
import trustme
from httpx import ASGITransport, AsyncClient

from api import main
from api.main import build
from api.settings import ApiSettings
from schemas.errors import ConfigError, ModelError


def test_without_models_the_application_is_not_built(tmp_path):
    with pytest.raises(ModelError, match="there is no fraud model"):
        build(ApiSettings(models=tmp_path))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"redis_url": "redis://h/0?unknown=s3cret"}, "TIDEGATE_REDIS_URL is redis://"),
        (
            {"rate_limits_redis_url": "redis://h/0?unknown=s3cret"},
            "TIDEGATE_RATE_LIMITS_REDIS_URL is redis://",
        ),
        ({"redis_url": "rediss://[::s3cret"}, "TIDEGATE_REDIS_URL is redis://"),
        ({"auth": "issuer", "auth_jwks_url": "ftp://login.bank.example/s3cret"}, "TIDEGATE_AUTH_JWKS_URL"),
    ],
)
def test_addresses_that_cannot_be_are_refused_before_anything_is_asked(changed, said, tmp_path, registry):
    with pytest.raises(ConfigError, match=said) as refused:
        build(ApiSettings(models=registry._root, rate_limits="on", security_dir=tmp_path, **changed))
    assert "s3cret" not in str(refused.value)


def test_the_application_is_built_against_redis_that_need_not_answer_yet(registry):
    async def run():
        app = build(ApiSettings(models=registry._root, redis_url="unix:///nowhere/redis.sock", bootstrap=""))
        transport = ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=transport, base_url="http://tidegate") as client,
        ):
            return await client.get("/live"), await client.get("/health")

    live, health = asyncio.run(run())
    assert live.status_code == 200
    assert health.status_code == 503
    assert "does not answer" in health.json()["parts"]["redis"]["detail"]


def test_a_damaged_index_is_one_that_is_away(registry, tmp_path):
    (tmp_path / "index.db").write_bytes(b"no database at all" * 1000)

    async def run():
        url = f"sqlite:///{tmp_path}/index.db"
        app = build(
            ApiSettings(
                models=registry._root,
                redis_url="unix:///nowhere",
                bootstrap="",
                database_url=url,
                events=tmp_path,
            )
        )
        transport = ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=transport, base_url="http://tidegate") as client,
        ):
            paths = ("/customers", "/analytics/customers", "/analytics/transactions", "/customers/c-1")
            return [await client.get(path) for path in paths]

    answers = asyncio.run(run())
    assert [(a.status_code, a.json()["type"]) for a in answers] == [(503, "dependency-away")] * 4


def test_the_application_is_built_beside_an_anomaly_model_that_is_damaged_and_shows_it(registry, tmp_path):
    shutil.copytree(registry._root, tmp_path / "models")
    (tmp_path / "models" / "anomaly" / "v1" / "tails.npz").write_bytes(b"")

    async def run():
        app = build(
            ApiSettings(models=tmp_path / "models", redis_url="unix:///nowhere/redis.sock", bootstrap="")
        )
        transport = ASGITransport(app=app)
        async with AsyncClient(transport=transport, base_url="http://tidegate") as client:
            return await client.get("/metrics")

    lines = asyncio.run(run()).text.splitlines()
    assert "tidegate_model_refused 1.0" in lines
    assert any(line.startswith("tidegate_model_info") and 'name="fraud"' in line for line in lines)


def test_metrics_say_when_the_certificate_that_clients_see_expires(registry, tmp_path):
    issued = trustme.CA().issue_cert("api.test", not_after=datetime(2031, 1, 2, tzinfo=UTC))
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)

    async def run():
        app = build(ApiSettings(models=registry._root, bootstrap="", tls_cert=chain, tls_key=key))
        transport = ASGITransport(app=app)
        async with AsyncClient(transport=transport, base_url="https://tidegate") as client:
            return await client.get("/metrics")

    (line,) = [s for s in asyncio.run(run()).text.splitlines() if "certificate_expiry" in s and s[0] != "#"]
    assert line.startswith('tidegate_certificate_expiry_timestamp_seconds{use="api server"}')
    assert float(line.rsplit(" ", 1)[1]) == datetime(2031, 1, 2, tzinfo=UTC).timestamp()


def test_serve_listens_where_it_is_told(registry, monkeypatch):
    given = []
    monkeypatch.setattr(main, "run", lambda app, listening, settings: given.append(listening.getsockname()))
    monkeypatch.setattr(main, "bound", lambda host, port: given.append((host, port)) or Listening())
    main.serve(ApiSettings(models=registry._root, http_host="127.0.0.9", http_port=8123))
    assert given == [("127.0.0.9", 8123), "there"]


class Listening:
    def getsockname(self):
        return "there"
