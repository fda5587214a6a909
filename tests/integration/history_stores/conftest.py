import pytest

from features.ports import HistoryStore
from infra.memory_store import MemoryHistoryStore
from tests.histories import KEPT


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> HistoryStore:
    """Each store in turn: what is promised of one, all keep."""
    if request.param == "memory":
        return MemoryHistoryStore(recent_scores=KEPT)
    found: HistoryStore = request.getfixturevalue("redis_store")
    return found
