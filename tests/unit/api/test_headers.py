import re

import pytest

from api.settings import ApiSettings
from tests.serving import assert_problem, serving

ORIGIN = "https://desk.bank.example"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "GET"}


@pytest.mark.parametrize(("path", "status"), [("/live", 200), ("/nowhere", 404), ("/customers//scores", 422)])
async def test_every_answer_tells_browsers_to_be_careful(client, path, status):
    response = await client.get(path)
    assert response.status_code == status
    headers = response.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers
    assert "server" not in headers


async def test_where_tls_ends_here_or_at_a_proxy_browsers_are_told_to_stay_with_it(world, eager):
    settings = ApiSettings(trusted_proxies="10.0.0.2")
    async with serving(world.store, eager, settings=settings) as api:
        assert (await api.get("/live")).headers["strict-transport-security"].startswith("max-age=31536000")


async def test_no_web_page_may_read_answers_unless_it_is_named(client, world, eager):
    assert (await client.options("/live", headers=PREFLIGHT)).status_code == 405
    assert (
        "access-control-allow-origin" not in (await client.get("/live", headers={"origin": ORIGIN})).headers
    )
    async with serving(world.store, eager, settings=ApiSettings(cors_origins=[ORIGIN])) as api:
        allowed = await api.options("/live", headers=PREFLIGHT)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in allowed.headers
        other = {**PREFLIGHT, "origin": "https://forger.example"}
        refused = await api.options("/live", headers=other)
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_loads_nothing_from_elsewhere(client, path):
    page = await client.get(path)
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "http" not in page.text
    assert re.search(r"<script>|<script [^>]*>[^<]", page.text) is None
    linked = re.findall(r'(?:src|href|spec-url|data-document)="([^"]+)"', page.text)
    assert len(linked) >= 3
    for target in linked:
        found = await client.get("/" + target.lstrip("/"))
        assert found.status_code == 200, target
        assert len(found.content) > 50


async def test_documentation_can_be_left_out(world, eager):
    async with serving(world.store, eager, settings=ApiSettings(http_docs=False)) as api:
        for path in ("/docs", "/redoc", "/openapi.json", "/docs/assets/swagger-ui.css"):
            assert_problem(await api.get(path), 404, "http-not-found")


async def test_nothing_of_requests_goes_to_telemetry(client, monkeypatch):
    from opentelemetry import trace

    def never(*args, **kwargs):
        raise AssertionError("a span was started")

    monkeypatch.setattr(trace.NoOpTracer, "start_span", never)
    monkeypatch.setattr(trace.ProxyTracer, "start_span", never)
    monkeypatch.setattr(trace.NoOpTracer, "start_as_current_span", never)
    monkeypatch.setattr(trace.ProxyTracer, "start_as_current_span", never)
    assert (await client.get("/live")).status_code == 200
    assert client._transport.app._native_telemetry.enabled() is False
