from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis

from infra.embedded import EmbeddedRedis
from infra.history_store import RedisHistoryStore
from tests.histories import KEPT, PARTITIONS


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), durable=False) as running:
        yield running


@pytest.fixture
def direct(valkey: EmbeddedRedis) -> Iterator[Redis]:
    """A client beside the store, on an empty valkey."""
    valkey.start()
    with Redis.from_url(valkey.url) as client:
        client.flushall()
        client.function_flush()
        yield client


@pytest.fixture
async def redis_store(valkey: EmbeddedRedis, direct: Redis) -> AsyncIterator[RedisHistoryStore]:
    store = RedisHistoryStore(valkey.url, PARTITIONS, timeout_s=2.0, recent_scores=KEPT)
    yield store
    await store.close()
