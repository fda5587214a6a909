"""Live scores from a real broker through a real API process, over WebSocket and Server-Sent Events."""

import asyncio
import json
import struct
from collections import defaultdict

import httpx
import pytest
import websockets

from harness.processes import ApiProcess
from infra.embedded import EmbeddedStack
from infra.partitioning import partition_for
from infra.topics_admin import TopicsAdmin
from tests.deployment import PARTITIONS, Deployment

pytestmark = pytest.mark.integration
# Made here, so that no file has a card number in it.
CARD = "4" + "1" * 15


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with EmbeddedStack(tmp_path_factory.mktemp("live"), durable=False) as running:
        asyncio.run(TopicsAdmin(running.bootstrap).create(PARTITIONS))
        yield running


@pytest.fixture(scope="module")
def api(stack, registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live-api")
    settings = {
        "bootstrap": stack.bootstrap,
        "redis_url": stack.redis_url,
        "models": registry._root,
        "database_url": f"sqlite:///{folder}/index.db",
        "events": folder / "events",
        "live_clients_wait": 200,
        "live_kept": 50,
    }
    running = ApiProcess(folder, settings)
    running.start(120)
    yield running
    running.stop()


class Topic(Deployment):
    """Only publishing, to a stack that others use too."""

    def __init__(self, stack):
        self.stack = stack

    async def scores(self, numbers, pad=""):
        sent = [(f"c-{n % 7}", ("allow", "review", "block")[n % 3], n) for n in numbers]
        batch = []
        for customer, decision, number in sent:
            value = {
                "transaction_id": f"t-{number}",
                "customer_id": customer,
                "decision": decision,
                "pad": pad,
            }
            batch.append(("scores.fraud", customer.encode(), json.dumps(value).encode()))
        await self.publish(batch)
        return sent


async def read(socket, count, timeout_s=30):
    scores, last = [], None
    async with asyncio.timeout(timeout_s):
        while len(scores) < count:
            message = json.loads(await socket.recv())
            last = message["id"]
            scores += message.get("scores", [])
    return scores, last


def in_order(found, sent):
    by_customer = defaultdict(list)
    for customer, _, number in sent:
        by_customer[customer].append(number)
    got = defaultdict(list)
    for score in found:
        got[score["customer_id"]].append(int(score["transaction_id"][2:]))
    return got == by_customer


async def connected(api, query=""):
    """A socket that has its first position: what is published from here on comes."""
    async with asyncio.timeout(30):
        while True:
            socket = await websockets.connect(f"ws://{api.address}/stream/scores{query}", compression=None)
            try:
                first = json.loads(await socket.recv())
            except websockets.ConnectionClosed:
                # The feed connects to Kafka after the API answers.
                continue
            assert first["type"] == "position"
            return socket, first["id"]


async def test_sockets_get_matching_scores_and_go_on_where_they_were(stack, api):
    topic = Topic(stack)
    every, start = await connected(api)
    mine, _ = await connected(api, "?decision=block&customer_id=c-2&customer_id=c-5")
    sent = await topic.scores(range(120))
    found, last = await read(every, len(sent))
    assert in_order(found, sent)
    wanted = [s for s in sent if s[1] == "block" and s[0] in ("c-2", "c-5")]
    filtered, _ = await read(mine, len(wanted))
    assert in_order(filtered, wanted)
    await every.close()
    await mine.close()
    more = await topic.scores(range(120, 150))
    # From memory, and from the log where memory does not reach back.
    for after, expected in ((last, more), (start, [*sent, *more])):
        again = await websockets.connect(f"ws://{api.address}/stream/scores?after={after}", compression=None)
        found, _ = await read(again, len(expected))
        assert in_order(found, expected)
        await again.close()


async def test_server_sent_events_have_ids_to_go_on_from(stack, api):
    topic = Topic(stack)
    socket, start = await connected(api)
    await socket.close()
    sent = await topic.scores(range(200, 230))
    url = f"{api.url}/stream/scores"

    async def events(count, headers):
        found = []
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            assert response.headers["content-type"].startswith("text/event-stream")
            event: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                    continue
                if event.get("event") == "score":
                    found.append((event["id"], json.loads(event["data"])))
                    if len(found) == count:
                        return found
                event = {}
        return found

    first = await events(12, {"Last-Event-ID": start})
    rest = await events(18, {"Last-Event-ID": first[-1][0]})
    assert in_order([score for _, score in [*first, *rest]], sent)
    async with httpx.AsyncClient(timeout=30) as client:
        refused = await client.get(url, headers={"Last-Event-ID": "0:1"})
        assert (refused.status_code, refused.json()["type"]) == (422, "invalid-event-id")
        assert (await client.head(url)).status_code == 200


@pytest.mark.slow
async def test_a_client_that_does_not_read_is_dropped_and_the_others_go_on(stack, api):
    topic = Topic(stack)
    quick, _ = await connected(api)
    host, port = api.address.split(":")
    # By hand: a client that says hello and then reads nothing at all.
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(
        b"GET /stream/scores HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    reader._transport.pause_reading()
    pad, found, sent = "x" * 4000, [], []
    async with asyncio.timeout(120):
        while True:
            sent += await topic.scores(range(1000 + len(sent), 1100 + len(sent)), pad)
            got, _ = await read(quick, len(sent) - len(found))
            found += got
            async with httpx.AsyncClient() as client:
                live = (await client.get(f"{api.url}/health/detailed")).json()["parts"]["live_feed"]
            if live["facts"]["dropped"] >= 1:
                break
    assert in_order(found, sent)
    await quick.close()
    reader._transport.resume_reading()
    rest = b""
    async with asyncio.timeout(60):
        while b"too slow" not in rest and (chunk := await reader.read(1 << 16)):
            rest = (rest + chunk)[-(1 << 17) :]
    # The last frame says why, unless nothing could be put through in time: then the connection is cut.
    if b"too slow" in rest:
        at = rest.index(b"too slow") - 2
        assert struct.unpack(">H", rest[at : at + 2])[0] == 1013
    writer.close()


@pytest.mark.parametrize("query", ["?after=0:1", "?after=x", "?decision=maybe", f"?customer_id={CARD}"])
async def test_a_socket_with_a_bad_question_is_closed(api, query):
    async def ask():
        socket = await websockets.connect(f"ws://{api.address}/stream/scores{query}")
        await socket.recv()

    with pytest.raises((websockets.ConnectionClosed, websockets.InvalidStatus)) as refused:
        await ask()
    assert CARD not in str(refused.value)


def test_customers_stay_in_their_partitions():
    assert len({partition_for(f"c-{n}", PARTITIONS) for n in range(7)}) > 1
