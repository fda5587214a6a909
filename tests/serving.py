"""The API over a store in memory that holds what a worker would have written."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from httpx import ASGITransport, AsyncClient, Response

from api.application import create_app
from api.deps import Services
from api.gate import Security
from api.ports import Kept, Page, Reply
from api.settings import ApiSettings
from features.ports import Lease
from infra.customer_index import SqlCustomerIndex
from infra.database import Database
from infra.event_files import EventFiles, event_row
from infra.event_queries import EventQueries
from infra.memory_store import MemoryHistoryStore
from infra.sink_commit import SinkCommit
from infra.sink_store import SinkStore
from models.model_set import Models
from schemas.errors import DependencyError
from schemas.transaction import Transaction
from sink.batch import Batch
from sink.join import Joined
from tests.scoring import START, fill

NOW = START + timedelta(days=111, hours=7)
AWAY = DependencyError("Redis at 127.0.0.1:6379/0 does not answer: Connection refused")


@dataclass
class World:
    """A store, and what was published while it was filled."""

    store: MemoryHistoryStore = field(default_factory=MemoryHistoryStore)
    lease: Lease | None = None
    published: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    transactions: dict[str, list[Transaction]] = field(default_factory=dict)

    async def begin(self) -> Lease:
        """The lease of a store that holds all of its log."""
        self.lease = await self.store.acquire(0)
        await self.store.complete(self.lease)
        return self.lease

    async def score(self, transactions: Sequence[Transaction], models: Models) -> list[dict[str, Any]]:
        """Score a chunk as the worker does; returns its fraud scores."""
        if self.lease is None:
            await self.begin()
        assert self.lease is not None
        scores = await fill(self.store, self.lease, transactions, models)
        for score in scores:
            self.published.setdefault(score["customer_id"], []).append(score)
        for transaction in transactions:
            self.transactions.setdefault(transaction.customer_id, []).append(transaction)
        return scores


@dataclass
class Broken:
    """A store that answers nothing but an error."""

    error: Exception

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def fail(*args: Any, **options: Any) -> Any:
            raise self.error

        return fail


@asynccontextmanager
async def serving(
    store: Any,
    models: Models,
    now: datetime = NOW,
    security: Security | None = None,
    others: Mapping[str, Any] = MappingProxyType({}),
    settings: ApiSettings | None = None,
    extras: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> AsyncIterator[AsyncClient]:
    """A client of the API over a store.

    Args:
        store: A `HistoryStore` or a `Broken` one.
        models: What to score with.
        now: The API's clock, standing still.
        security: How it is closed; open if left out.
        others: Stores of other tenants than `default`.
        extras: More of `Services`.
        settings: For documentation pages, browsers and HTTPS.
        options: Of `httpx.ASGITransport`.
    """

    async def ping() -> None:
        if isinstance(store, Broken):
            raise store.error

    tenants = {"default": store, **others}
    services = {
        tenant: Services(mine, models, ping, lambda: now, **extras) for tenant, mine in tenants.items()
    }
    app = create_app(services, security=security, settings=settings)
    transport = ASGITransport(app=app, **options)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://tidegate") as client,
    ):
        yield client


def assert_problem(response: Response, status: int, kind: str, *never: str) -> dict[str, Any]:
    """Check for an RFC 9457 document that repeats none of some values of the request."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["type"] == kind
    assert problem["title"]
    # A request's own id is random and may hold anything.
    said = response.text.replace(str(problem.get("request_id")), "")
    for value in never:
        assert value not in said
    return problem


class MemoryReplies:
    """A `ReplyStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}

    async def begin(self, key: str, request: str) -> Kept | None:
        known = self.kept.get(key)
        if known is None:
            self.kept[key] = Kept(request, None)
        return known

    async def finish(self, key: str, request: str, reply: Reply) -> None:
        self.kept[key] = Kept(request, reply)

    async def forget(self, key: str) -> None:
        self.kept.pop(key, None)


def sunk(world: World, folder: Path, url: str = "") -> dict[str, Any]:
    """Index and event log as the sink would have made them of a world's transactions; SQLite's by itself."""
    folder.mkdir(exist_ok=True)
    database = Database(url or f"sqlite:///{folder}/index.db")
    database.migrate()
    store, files = SinkStore(database), EventFiles(folder / "events")
    batch, offset = Batch(), 0
    for customer, transactions in world.transactions.items():
        for transaction, score in zip(transactions, world.published[customer], strict=True):
            batch.add(Joined(offset, transaction, json.loads(json.dumps(score))), 0, event_row)
            offset += 1
    store.commit(SinkCommit({}, {("transactions", 0): offset}, files.write(batch.rows), batch.activity))
    return {
        "index": SqlCustomerIndex(database, Page),
        "events": EventQueries(database, folder / "events", Page),
    }
