"""`tidegate rebuild` against a real broker and Valkey."""

import pytest
from redis import Redis

from features.ports import Commit, HistoryChange
from infra.embedded import EmbeddedStack
from infra.history_reset import HistoryReset
from infra.history_store import RedisHistoryStore
from infra.topics_admin import TopicsAdmin
from schemas.errors import ConfigError, DependencyError, HistoryError

pytestmark = pytest.mark.integration
STARTS = {(topic, p): 0 for topic in ("transactions", "labels", "customers") for p in range(2)}


@pytest.fixture
def stack(tmp_path):
    with EmbeddedStack(tmp_path, durable=False) as stack:
        yield stack


@pytest.fixture
async def store(stack):
    store = RedisHistoryStore(stack.redis_url, 2)
    yield store
    await store.close()


async def fill(store, partition=0):
    lease = await store.acquire(partition)
    change = HistoryChange("c-1", 0, b"h" * 48, b"", 7)
    await store.apply(lease, Commit("transactions", None, 10, [change], {"c-1": [b"{}"]}))
    return lease


async def reset(stack, partitions=2, namespace="tg"):
    resetting = HistoryReset(stack.redis_url, namespace=namespace)
    try:
        return await resetting.run(partitions, "this-log", STARTS)
    finally:
        await resetting.close()


async def test_everything_goes_and_partitions_start_at_the_log(stack, store):
    await fill(store)
    assert await reset(stack) > 0
    lease = await store.acquire(0)
    assert lease.next_offsets == {"transactions": 0, "labels": 0, "customers": 0}
    assert await store.load(0, ["c-1"]) == [None]
    assert await store.customers(0) == []


async def test_worker_that_still_runs_is_fenced_off(stack, store):
    old = await fill(store)
    await reset(stack)
    change = HistoryChange("c-1", 48, b"h" * 48, b"", 8)
    assert (await store.apply(old, Commit("transactions", 10, 20, [change]))).value == "fenced"
    assert await store.load(0, ["c-1"]) == [None]


async def test_other_namespaces_are_left_alone(stack, store):
    other = RedisHistoryStore(stack.redis_url, 2, namespace="t?")
    await fill(store)
    await fill(other)
    await reset(stack, namespace="t?")
    assert await store.load(0, ["c-1"]) == [b"h" * 48]
    assert await other.load(0, ["c-1"]) == [None]
    await other.close()


async def test_another_number_of_partitions_and_another_log_are_taken_over(stack, store):
    await store.claim_topology(4, "old-log")
    await fill(store, partition=3)
    await reset(stack)
    await store.claim_topology(2, "this-log")
    with Redis.from_url(stack.redis_url) as client:
        assert client.keys("{tg:3}*") == []


async def test_format_of_another_version_is_taken_over(stack, store):
    await fill(store)
    with Redis.from_url(stack.redis_url) as client:
        client.hset("{tg:0}:meta", "version", 99)
    with pytest.raises(HistoryError, match="tidegate rebuild"):
        await store.acquire(0)
    await reset(stack)
    assert (await store.acquire(0)).next_offsets["transactions"] == 0


async def test_worker_that_takes_a_partition_meanwhile_is_noticed(stack, store):
    await fill(store)
    resetting = HistoryReset(stack.redis_url)
    removing = resetting._remove

    async def remove_slowly():
        await store.acquire(1)
        return await removing()

    resetting._remove = remove_slowly
    with pytest.raises(HistoryError, match="took partition 1 meanwhile"):
        await resetting.run(2, "this-log", STARTS)
    await resetting.close()
    # Nothing says where it goes on: a worker refuses until it has been run again.
    assert (await store.acquire(1)).next_offsets == {}


async def test_command_refuses_without_yes_and_while_workers_run(stack, monkeypatch):
    from cli.rebuild import rebuild

    with pytest.raises(ConfigError, match="--yes"):
        rebuild(stack.bootstrap, stack.redis_url, "tg", "tidegate", yes=False)

    async def three(self, group):
        return 3

    monkeypatch.setattr(TopicsAdmin, "group_members", three)
    await TopicsAdmin(stack.bootstrap).create(2)
    from cli.rebuild import _rebuild

    with pytest.raises(ConfigError, match="3 workers of group 'tidegate' are running"):
        await _rebuild(stack.bootstrap, stack.redis_url, "tg", "tidegate")
    assert (await _rebuild(stack.bootstrap, stack.redis_url, "tg", ""))["partitions"] == 2


async def test_workers_of_the_group_that_keeps_the_state_are_looked_for_too(stack, store, monkeypatch):
    from cli.rebuild import _rebuild

    async def two_of_bank(self, group):
        return 2 if group == "bank" else 0

    monkeypatch.setattr(TopicsAdmin, "group_members", two_of_bank)
    await TopicsAdmin(stack.bootstrap).create(2)
    await store.set_group("bank")
    with pytest.raises(ConfigError, match="2 workers of group 'bank' are running"):
        await _rebuild(stack.bootstrap, stack.redis_url, "tg", "tidegate")
    assert (await _rebuild(stack.bootstrap, stack.redis_url, "tg", ""))["partitions"] == 2
    assert await store.group() == "", "whoever comes first keeps it"


async def test_user_without_rights_changes_nothing(stack, store):
    await fill(store)
    with Redis.from_url(stack.redis_url) as client:
        client.acl_setuser(
            "halfway", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-multi"]
        )
        before = client.hgetall("{tg:0}:meta")
        limited = stack.redis_url.replace("redis://", "redis://halfway:x@")
        resetting = HistoryReset(limited)
        with pytest.raises(DependencyError, match=r"does not let us: .*multi"):
            await resetting.run(2, "this-log", STARTS)
        await resetting.close()
        assert client.hgetall("{tg:0}:meta") == before
    assert await store.load(0, ["c-1"]) == [b"h" * 48]


async def test_namespace_with_braces_in_it_is_told_apart(stack, store):
    await fill(store)
    await reset(stack, namespace="t{g}x")
    assert await store.load(0, ["c-1"]) == [b"h" * 48]


async def test_what_was_begun_anew_is_being_built(stack, store):
    lease = await fill(store)
    await store.complete(lease)
    assert not (await store.acquire(0)).building
    await reset(stack)
    assert (await store.acquire(0)).building
