"""Waiting for a sink that has not made its tables yet."""

import asyncio

from harness.bench_api import _until_sunk
from infra.database import Database
from infra.event_files import EventFile
from infra.sink_commit import SinkCommit
from infra.sink_store import SinkStore


async def test_a_sink_that_has_no_tables_yet_is_waited_for(tmp_path):
    url = f"sqlite:///{tmp_path}/index.db"
    (tmp_path / "index.db").touch()
    waiting = asyncio.Event()
    load = asyncio.create_task(_until_sunk(url, 3, lambda text: waiting.set()))
    async with asyncio.timeout(60):
        await waiting.wait()
        assert not load.done()
        database = Database(url)
        database.migrate()
        SinkStore(database).commit(
            SinkCommit({}, {("transactions", 0): 3}, [EventFile("day=x/1.parquet", 100, 3, 1000, 1, 2, 3)])
        )
        database.close()
        assert await load >= 0
