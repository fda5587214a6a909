from collections.abc import AsyncIterator

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from api.application import create_app
from api.deps import Services
from api.middleware import MAX_BODY_BYTES
from tests.serving import Broken, assert_problem, serving

FRAUD, CHURN = "/inference/fraud-detection", "/inference/churn-score"
JSON = {"content-type": "application/json"}


async def requests(api) -> dict[tuple[str, str, str], float]:
    text = (await api.get("/metrics")).text
    (family,) = (f for f in text_string_to_metric_families(text) if f.name == "tidegate_http_requests")
    return {
        (s.labels["method"], s.labels["route"], s.labels["status"]): s.value
        for s in family.samples
        if s.name == "tidegate_http_requests_total"
    }


async def test_requests_are_counted_by_the_pattern_of_their_route(client, customer):
    for _ in range(3):
        await client.get(f"/customers/{customer}/features")
    await client.get("/customers/c%2F2/scores")
    await client.get("/customers/nobody-home/scores")
    await client.get("/nothing/nobody-home")
    await client.post("/live")
    await client.post(FRAUD, content=b"{}")
    assert await requests(client) == {
        ("GET", "/customers/{customer_id}/features", "200"): 3,
        ("GET", "/customers/{customer_id}/scores", "200"): 1,
        ("GET", "/customers/{customer_id}/scores", "404"): 1,
        ("GET", "unmatched", "404"): 1,
        ("POST", "/live", "405"): 1,
        ("POST", FRAUD, "422"): 1,
    }


async def test_no_customer_is_named_in_the_metrics(client, world):
    for customer in world.transactions:
        await client.get("/customers/x/features", params={"as_of": customer})
        await client.post(CHURN, json={"customer_id": customer})
    await client.get("/nothing/c0000002")
    await client.get("/c0000002")
    text = (await client.get("/metrics")).text
    assert not [customer for customer in world.transactions if customer in text]


async def test_methods_are_the_senders_words_and_not_repeated(client):
    for method in ("BREW", "C0000002", "GETGET"):
        await client.request(method, "/live")
    counted = await requests(client)
    assert counted == {("other", "/live", "405"): 3}


async def test_an_error_that_nobody_foresaw_is_counted(eager):
    async with serving(Broken(KeyError("secret")), eager, raise_app_exceptions=False) as api:
        await api.get("/customers/c-1/scores")
        assert await requests(api) == {("GET", "/customers/{customer_id}/scores", "500"): 1}


async def test_latency_of_a_sampled_trace_is_an_exemplar_for_who_accepts_openmetrics(client):
    trace = "0af7651916cd43dd8448eb211c80319c"
    await client.get("/live", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    await client.get("/ready", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-00"})
    answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = {f.name: f for f in openmetrics.text_string_to_metric_families(answer.text)}
    shown = [s for s in families["tidegate_http_request_seconds"].samples if s.exemplar]
    assert [(s.labels["route"], s.exemplar.labels) for s in shown] == [("/live", {"trace_id": trace})]
    assert trace not in (await client.get("/metrics")).text


async def test_time_to_answer_is_measured(client):
    await client.get("/live")
    text = (await client.get("/metrics")).text
    assert 'tidegate_http_request_seconds_count{route="/live"} 1.0' in text


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    """A body whose length no header tells."""
    for start in range(0, size, 10_000):
        yield b" " * min(10_000, size - start)


@pytest.mark.parametrize("route", [FRAUD, CHURN])
@pytest.mark.parametrize("told", [True, False], ids=["length told", "length not told"])
async def test_a_body_too_long_is_refused(client, route, told):
    size = MAX_BODY_BYTES + 1
    response = await client.post(route, content=b" " * size if told else in_pieces(size), headers=JSON)
    assert_problem(response, 413, "http-request-entity-too-large")
    assert response.headers["connection"] == "close"


async def test_a_body_too_long_is_not_read_to_its_end(client):
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * MAX_BODY_BYTES:
            sent += 65_536
            yield b" " * 65_536

    assert (await client.post(FRAUD, content=endless())).status_code == 413
    assert sent <= MAX_BODY_BYTES + 2 * 65_536


@pytest.mark.parametrize("told", [True, False], ids=["length told", "length not told"])
async def test_the_longest_body_is_read(client, told):
    body = b" " * MAX_BODY_BYTES
    response = await client.post(FRAUD, content=body if told else in_pieces(len(body)))
    # Read, and then refused as every message over 64 KiB is.
    assert assert_problem(response, 422, "refused-message")["reason"] == "too_large"


@pytest.mark.parametrize("length", ["-1", "many", "", "9" * 30])
async def test_a_length_that_is_none_is_not_believed(client, length):
    response = await client.post(FRAUD, content=b"{}", headers={"content-length": length})
    assert response.status_code == (413 if length.isdigit() else 422)


async def test_what_is_no_request_passes_through(eager):
    """A server begins and ends an application through the same door."""
    sent = []
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(received)

    async def send(message):
        sent.append(message["type"])

    app = create_app(Services(Broken(ValueError()), eager, None, None))
    await app({"type": "lifespan", "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
