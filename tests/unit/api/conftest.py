import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from httpx import AsyncClient
from pytest_socket import disable_socket, enable_socket

from features.engine import Engine
from features.ports import Commit
from models.model_set import Models
from models.segments import SegmentModel, train_segments
from schemas.transaction import Transaction
from tests.scoring import CREATED_AT, TrainingData, transactions_of
from tests.serving import AWAY, Broken, World, serving

AWKWARD = ("c 1", "c/2", "kundé-3", "日本-4", "a?b#c%20", "../5", "{6}", "x" * 64)
"""Ids that a path, a log or a template may trip over."""


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture(scope="session")
def past(bank_messages) -> list[Transaction]:
    """All transactions of eight customers, in order."""
    return transactions_of(bank_messages, len(AWKWARD))


@pytest.fixture(scope="session")
def world(past: list[Transaction], eager: Models) -> World:
    """The eight under their own and under awkward names; only to be read."""
    filled = World()
    names = dict(zip(dict.fromkeys(t.customer_id for t in past), AWKWARD, strict=True))
    renamed = [
        t.model_copy(
            update={"customer_id": names[t.customer_id], "transaction_id": f"again-{t.transaction_id}"}
        )
        for t in past
    ]

    async def run() -> None:
        await filled.score(past, eager)
        await filled.score(renamed, eager)
        assert filled.lease is not None
        await filled.store.apply(
            filled.lease, Commit("customers", None, 1, profiles={"only-a-profile": b"{}"})
        )

    asyncio.run(run())
    return filled


@pytest.fixture
def customer(world: World) -> str:
    return next(iter(world.transactions))


@pytest.fixture
async def client(world: World, eager: Models) -> AsyncIterator[AsyncClient]:
    async with serving(world.store, eager) as found:
        yield found


@pytest.fixture
async def away(eager: Models) -> AsyncIterator[AsyncClient]:
    """The API while the store is away."""
    async with serving(Broken(AWAY), eager) as found:
        yield found


@pytest.fixture(scope="session")
def segments(training_data: TrainingData, engine: Engine) -> SegmentModel:
    X = training_data.churn_X.astype(np.float64)
    card, artefact = train_segments(X, training_data.churn_as_of_ms, engine, created_at=CREATED_AT)
    return SegmentModel(card, artefact)
