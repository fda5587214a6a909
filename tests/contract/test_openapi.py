"""The API keeps to its OpenAPI document, whatever is asked: schemathesis, shortened.

The long run is `TIDEGATE_SCHEMATHESIS_EXAMPLES=180 pytest tests/contract/test_openapi.py`.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from api.application import create_app
from api.connections import Http, Socket
from api.deps import Loaded, Services
from api.live import parse_event_id
from api.ports import Dropped, LiveScore
from models.segments import SegmentModel, train_segments
from tests.scoring import CREATED_AT, transactions_of
from tests.serving import NOW, MemoryReplies, World, sunk

pytestmark = pytest.mark.integration
EXAMPLES = int(os.environ.get("TIDEGATE_SCHEMATHESIS_EXAMPLES", "4"))


class EndingFeed:
    """A live feed that gives every client one score and ends."""

    def __init__(self, score):
        self.score = score

    async def subscribe(self, which, after):
        if after is not None:
            parse_event_id(after, 2)
        return EndingSubscription(self.score)

    async def run(self):
        return None

    def status(self):
        return {"up": True, "clients": 0}


class EndingSubscription:
    position = "0:7,1:9"

    def __init__(self, score):
        self.waiting = [LiveScore("0:8,1:9", score)]
        self.dropped = asyncio.Event()

    async def next(self, timeout_s):
        if self.waiting:
            return [self.waiting.pop()]
        raise Dropped("the end")

    def close(self):
        self.dropped.set()


@pytest.fixture
def address(bank_messages, eager, training_data, engine, tmp_path):
    """A server in a thread, over a store in memory and an event log on disk."""
    world = World()
    asyncio.run(world.score(transactions_of(bank_messages, 8), eager))
    X = training_data.churn_X.astype(np.float64)
    trained = train_segments(X, training_data.churn_as_of_ms, engine, created_at=CREATED_AT, resamples=3)
    segments = SegmentModel(*trained)

    async def ping() -> None:
        return None

    services = Services(
        world.store,
        eager,
        ping,
        lambda: NOW,
        segments=segments,
        reload=lambda: Loaded(eager, segments),
        replies=MemoryReplies(),
        feed=EndingFeed(json.dumps(next(iter(world.published.values()))[-1]).encode()),
        **sunk(world, tmp_path),
    )
    config = uvicorn.Config(
        create_app(services), port=0, http=Http, ws=Socket, log_level="critical", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def test_no_request_breaks_the_document(address, tmp_path):
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            program,
            "run",
            f"{address}/openapi.json",
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--max-examples",
            str(EXAMPLES),
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_headers_conformance,response_schema_conformance,unsupported_method",
            "--seed",
            "7",
            "--no-color",
            "--generation-database",
            "none",
            "--warnings",
            "off",
            "--suppress-health-check",
            "all",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    Path(os.environ.get("TIDEGATE_SCHEMATHESIS_LOG", tmp_path / "schemathesis.txt")).write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d[\d,]*) generated", done.stdout).group(1).replace(",", "")) > 100
