import pytest

from features.ports import HistoryStore
from infra.memory_store import MemoryHistoryStore
from tests.histories import KEPT, begin


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> HistoryStore:
    """Each store in turn, with all of its log: what is promised of one, all keep."""
    found: HistoryStore
    if request.param == "memory":
        found = MemoryHistoryStore(recent_scores=KEPT)
    else:
        found = request.getfixturevalue("redis_store")
    acquire = found.acquire
    monkeypatch.setattr(found, "acquire", lambda partition: begin(found, partition, acquire))
    return found
