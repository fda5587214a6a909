import asyncio
import json

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.responses import StreamingResponse

from api.exchange import Conditional, Deadline, RequestIds
from schemas.fields import to_epoch_ms
from tests.serving import NOW


@pytest.mark.parametrize("sent", ["abc-1", "A.b_c:9", "x" * 64])
async def test_a_request_keeps_the_id_it_came_with(client, sent):
    response = await client.get("/live", headers={"X-Request-ID": sent})
    assert response.headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "with space", "x" * 65, "a\tb", "<script>"])
async def test_an_id_that_is_none_is_replaced_also_in_problems(client, sent):
    responses = [
        await client.get(path, headers={"X-Request-ID": sent}) for path in ("/live", "/nowhere", "/customers")
    ]
    ids = [r.headers.get_list("x-request-id") for r in responses]
    assert all(len(found) == 1 and len(found[0]) == 32 for found in ids)
    assert len({found[0] for found in ids}) == 3
    assert [r.json().get("request_id") for r in responses] == [None, *(found[0] for found in ids[1:])]


async def test_a_lookup_has_an_etag_and_is_not_sent_again(client, customer):
    path = f"/customers/{customer}/features?as_of={to_epoch_ms(NOW)}"
    first = await client.get(path)
    tag = first.headers["etag"]
    for wanted in (tag, f'"other", W/{tag}', "*"):
        again = await client.get(path, headers={"If-None-Match": wanted})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert "x-request-id" in again.headers
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    later = await client.get(f"/customers/{customer}/features?as_of={to_epoch_ms(NOW) + 86_400_000 * 40}")
    assert later.headers["etag"] != tag


@pytest.mark.parametrize(
    "path", ["/live", "/", "/openapi.json", "/metrics", "/customers/nobody-home", "/nowhere"]
)
async def test_head_is_get_without_its_body(client, path):
    get, head = await client.get(path), await client.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers.get("content-type") == get.headers.get("content-type")
    if path != "/metrics":
        assert head.headers.get("content-length") == get.headers.get("content-length")


async def test_what_is_not_a_lookup_has_no_etag(client):
    assert "etag" not in (await client.post("/inference/fraud-detection", content=b"{}")).headers
    assert "etag" not in (await client.get("/metrics")).headers
    assert (await client.head("/inference/fraud-detection")).status_code == 405


def small_app(seconds):
    app = FastAPI()
    cancelled = []

    @app.get("/slow")
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts():
            for part in range(3):
                await asyncio.sleep(seconds)
                yield f"{part}\n"

        return StreamingResponse(parts(), media_type="text/event-stream")

    app.add_middleware(Deadline, seconds=seconds)
    app.add_middleware(Conditional)
    app.add_middleware(RequestIds)
    return app, cancelled


async def test_a_request_that_takes_too_long_is_cancelled_and_said_so():
    app, cancelled = small_app(0.05)
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://x") as client:
        response = await client.get("/slow")
        assert response.status_code == 503
        assert json.loads(response.content)["type"] == "timeout"
        assert response.headers["retry-after"] == "1"
        assert cancelled == [True]
        # A stream that has begun may last.
        assert (await client.get("/stream")).text == "0\n1\n2\n"
        head = await client.head("/stream")
        assert (head.status_code, head.content) == (200, b"")
