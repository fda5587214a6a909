"""What only a store in another process has to stand."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from features.ports import Commit, Outcome
from infra.embedded import EmbeddedRedis
from infra.history_reset import HistoryReset
from infra.history_store import RedisHistoryStore
from infra.partitioning import partition_for
from schemas.errors import DependencyError, HistoryError, HistoryIncomplete
from tests.histories import HERE, PARTITIONS, A, B, C, begin, change, commit, header

pytestmark = pytest.mark.integration


async def test_an_emptied_server_is_a_rollback(redis_store, direct):
    lease = await redis_store.acquire(HERE)
    one = commit(None, 1, change(A, b"", b"a"))
    assert await redis_store.apply(lease, one) is Outcome.APPLIED
    direct.flushall()
    two = commit(1, 2, change(A, header() + b"a", b"b"))
    assert await redis_store.apply(lease, two) is Outcome.ROLLED_BACK
    assert direct.keys() == []
    lease = await redis_store.acquire(HERE)
    assert (lease.epoch, lease.next_offsets) == (1, {})
    assert await redis_store.apply(lease, one) is Outcome.APPLIED


async def test_an_epoch_given_out_twice_serves_its_last_owner_only(redis_store, direct):
    before = await redis_store.acquire(HERE)
    direct.flushall()
    after = await redis_store.acquire(HERE)
    assert before.epoch == after.epoch
    assert await redis_store.apply(before, commit(None, 1, change(A, b"", b"a"))) is Outcome.FENCED
    assert await redis_store.apply(after, commit(None, 2, change(A, b"", b"b"))) is Outcome.APPLIED


@pytest.mark.parametrize("lost", [Redis.function_flush, Redis.flushall], ids=["functions", "data"])
async def test_functions_that_are_gone_are_loaded_again(redis_store, direct, lost):
    lease = await redis_store.acquire(HERE)
    lost(direct)
    assert await redis_store.apply(lease, commit(None, 1)) in {Outcome.APPLIED, Outcome.ROLLED_BACK}
    direct.function_flush()
    assert (await redis_store.acquire(HERE)).epoch >= 1


async def test_functions_that_are_gone_are_loaded_again_for_several_commits(redis_store, direct):
    leases = [await redis_store.acquire(HERE + n) for n in range(3)]
    direct.function_flush()
    commits = [(lease, commit(None, 1, change(A, b"", b"a"))) for lease in leases]
    assert await redis_store.apply_all(commits) == [Outcome.APPLIED] * 3


async def test_many_who_miss_the_functions_at_once_all_succeed(redis_store, direct):
    leases = await asyncio.gather(*(redis_store.acquire(p) for p in range(20)))
    assert [lease.epoch for lease in leases] == [1] * 20
    assert len(direct.function_list()) == 1


async def test_functions_of_another_version_are_left_alone(redis_store, direct):
    """While workers are replaced one by one, the old ones still call theirs."""
    direct.function_load(
        "#!lua name=tidegate_old\nredis.register_function('tidegate_apply_old', function() return 'OLD' end)"
    )
    lease = await redis_store.acquire(HERE)
    assert await redis_store.apply(lease, commit(None, 1)) is Outcome.APPLIED
    assert direct.fcall("tidegate_apply_old", 0) == b"OLD"


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "not loaded"])
async def test_a_store_of_another_format_is_refused(redis_store, direct, loaded):
    await redis_store.acquire(HERE)
    direct.hset(f"{{tg:{HERE}}}:meta", "version", "99")
    if not loaded:
        direct.function_flush()
    with pytest.raises(HistoryError, match="have format 99, this program reads 3"):
        await redis_store.acquire(HERE)
    assert direct.hget(f"{{tg:{HERE}}}:meta", "epoch") == b"1"


async def test_a_changed_history_is_told_also_where_the_functions_are_gone(redis_store, direct):
    lease = await redis_store.acquire(HERE)
    direct.function_flush()
    with pytest.raises(HistoryError, match="its length differs"):
        await redis_store.apply(lease, commit(None, 1, change(A, b"xx", b"a")))


async def test_a_history_that_was_evicted_is_not_one_of_a_customer_never_seen(redis_store, direct):
    lease = await redis_store.acquire(HERE)
    await redis_store.apply(lease, commit(None, 1, change(A, b"", b"a"), change(B, b"", b"b")))
    direct.delete(f"{{tg:{HERE}}}:h:{A}")
    here = replace(lease, next_offsets={"transactions": 1})
    with pytest.raises(
        HistoryError, match=r"1 of 3 stored histories are gone.*noeviction.*'tidegate rebuild'"
    ):
        await redis_store.load(HERE, [A, B, C], here)
    # Nor is it after a restart, which does not bring it back.
    again = await redis_store.acquire(HERE)
    with pytest.raises(HistoryError, match="are gone"):
        await redis_store.load(HERE, [A], again)
    assert await redis_store.load(HERE, [B, C], again) == [header() + b"b", None]


async def test_keys_of_a_partition_are_in_one_slot(redis_store, direct):
    lease = await redis_store.acquire(HERE)
    full = Commit(
        "transactions", None, 1, [change(A, b"", b"a")], {A: [b"s"]}, {A: b"c"}, {A: b"p"}, watermark_ms=1
    )
    await redis_store.apply(lease, full)
    keys = direct.keys()
    assert {key.split(b"}")[0] for key in keys} == {b"{tg:%d" % HERE}
    assert len(keys) == 6
    assert len({direct.execute_command("CLUSTER KEYSLOT", key) for key in keys}) == 1


async def test_namespaces_do_not_see_each_other(valkey, redis_store, direct):
    other = RedisHistoryStore(valkey.url, PARTITIONS, namespace="other")
    lease = await redis_store.acquire(HERE)
    await redis_store.apply(lease, commit(None, 1, change(A, b"", b"a")))
    assert (await other.acquire(HERE)).epoch == 1
    assert await other.load(HERE, [A]) == [None]
    assert await other.customers(HERE) == []
    assert await redis_store.apply(lease, commit(1, 2)) is Outcome.APPLIED
    await redis_store.claim_topology(PARTITIONS, "one")
    await other.claim_topology(8, "another")
    await other.close()


async def test_the_first_claim_of_a_topology_holds(valkey, redis_store, direct):
    await redis_store.claim_topology(PARTITIONS, "kafka-1")
    await redis_store.claim_topology(PARTITIONS, "kafka-1")
    with pytest.raises(HistoryError, match="from 4 partitions, the topic now has 8: build histories"):
        await redis_store.claim_topology(8, "kafka-1")
    with pytest.raises(HistoryError, match="from the log of Kafka cluster kafka-1, this is kafka-2"):
        await redis_store.claim_topology(PARTITIONS, "kafka-2")
    await redis_store.claim_topology(PARTITIONS, "kafka-1")


async def test_the_number_of_partitions_is_read_where_none_is_given(valkey, redis_store, direct):
    reader = RedisHistoryStore(valkey.url)
    for ask in (reader.partitions(), reader.read(A)):
        with pytest.raises(HistoryIncomplete, match="no worker has run against it yet"):
            await ask
    await redis_store.claim_topology(PARTITIONS, "kafka-1")
    assert await reader.partitions() == PARTITIONS
    lease = await begin(redis_store)
    await redis_store.apply(lease, commit(None, 1, change(A, b"", b"a")))
    assert (await reader.read(A)).history == header() + b"a"
    await reader.close()


async def test_a_killed_server_is_away_at_once_and_works_again_after_a_restart(valkey, redis_store, direct):
    lease = await redis_store.acquire(HERE)
    valkey.kill()
    calls = {
        "ping": redis_store.ping,
        "acquire": lambda: redis_store.acquire(HERE),
        "load": lambda: redis_store.load(HERE, [A]),
        "apply": lambda: redis_store.apply(lease, commit(None, 1)),
        "silent_since": lambda: redis_store.silent_since(HERE, 0, 1),
        "customers": lambda: redis_store.customers(HERE),
        "read": lambda: redis_store.read(A),
        "claim_topology": lambda: redis_store.claim_topology(PARTITIONS, "kafka-1"),
    }
    started = time.monotonic()
    for call in calls.values():
        with pytest.raises(
            DependencyError, match=rf"Redis at 127\.0\.0\.1:{valkey.port}/0 does not answer: "
        ):
            await call()
    assert time.monotonic() - started < 2
    valkey.start()
    for name in ("ping", "load", "silent_since", "customers"):
        await calls[name]()
    with pytest.raises(HistoryIncomplete, match="the store was emptied"):
        await calls["read"]()
    assert await redis_store.apply(lease, commit(None, 1)) is Outcome.ROLLED_BACK
    assert (await redis_store.acquire(HERE)).epoch == 1


async def test_connections_that_a_restart_has_closed_are_opened_again(valkey, redis_store, direct):
    await asyncio.gather(*(redis_store.ping() for _ in range(5)))
    valkey.kill()
    valkey.start()
    # Nobody was told: every pooled connection finds out at its next use.
    await asyncio.gather(*(redis_store.ping() for _ in range(5)))


async def test_a_server_that_hangs_is_away_after_the_time_limit(valkey, direct):
    store = RedisHistoryStore(valkey.url, PARTITIONS, timeout_s=0.3)
    await store.ping()
    valkey.pause()
    try:
        started = time.monotonic()
        with pytest.raises(DependencyError, match="does not answer"):
            await store.load(HERE, [A])
        assert 0.2 < time.monotonic() - started < 2
    finally:
        valkey.resume()
    await store.ping()
    await store.close()


async def test_behind_a_server_that_hangs_nobody_waits_longer_than_for_one_call(valkey, redis_store, direct):
    await begin(redis_store)
    store = RedisHistoryStore(valkey.url, PARTITIONS, timeout_s=0.5)
    await store.read(A, scores=False)

    async def seconds(number: int) -> float:
        await asyncio.sleep(number / 1000)
        started = time.monotonic()
        with pytest.raises(DependencyError, match="does not answer"):
            await store.read(f"c-{number}", scores=False)
        return time.monotonic() - started

    valkey.pause()
    try:
        waited = await asyncio.gather(*(seconds(number) for number in range(1000)))
    finally:
        valkey.resume()
    assert max(waited) < 1.5
    await store.close()


async def test_a_reply_that_was_lost_is_already_applied(valkey, redis_store, direct):
    """Applied while nobody listened any more: the second try must not apply it again."""
    impatient = RedisHistoryStore(valkey.url, PARTITIONS, timeout_s=0.3)
    lease = await impatient.acquire(HERE)
    one = commit(None, 1, change(A, b"", b"a"))
    valkey.pause()
    try:
        with pytest.raises(DependencyError):
            await impatient.apply(lease, one)
    finally:
        valkey.resume()
    # The server finds the commit in its buffer as soon as it runs again.
    assert await impatient.apply(lease, one) in {Outcome.APPLIED, Outcome.ALREADY_APPLIED}
    assert await impatient.apply(lease, one) is Outcome.ALREADY_APPLIED
    assert await redis_store.load(HERE, [A]) == [header() + b"a"]
    await impatient.close()


@pytest.mark.parametrize(
    ("setting", "off", "on"),
    [("maxmemory", "1", "0"), ("min-replicas-to-write", "1", "0")],
    ids=["full", "no replica"],
)
async def test_a_server_that_takes_no_writes_is_away_for_writers_only(redis_store, direct, setting, off, on):
    lease = await redis_store.acquire(HERE)
    direct.config_set(setting, off)
    try:
        with pytest.raises(DependencyError, match="takes no writes"):
            await redis_store.apply(lease, commit(None, 1))
        with pytest.raises(DependencyError, match="takes no writes"):
            await redis_store.claim_topology(PARTITIONS, "kafka-1")
        assert await redis_store.load(HERE, [A]) == [None]
    finally:
        direct.config_set(setting, on)
    assert await redis_store.apply(lease, commit(None, 1)) is Outcome.APPLIED


async def test_an_answer_that_is_no_state_of_the_server_is_not_hidden(redis_store, direct):
    """A key of another kind is somebody's mistake: retrying would never end."""
    direct.set(f"{{tg:{HERE}}}:index", "text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await redis_store.customers(HERE)
    lease = await redis_store.acquire(HERE)
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await redis_store.apply(lease, commit(None, 1, change(A, b"", b"a")))


async def test_the_servers_settings_can_be_checked(redis_store):
    assert (await redis_store.info())["maxmemory_policy"] == "noeviction"


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=s3cret",
        "redis://:s3cret@127.0.0.1:1",
    ],
)
async def test_a_password_is_never_shown(url):
    store = RedisHistoryStore(url, PARTITIONS, timeout_s=0.5)
    with pytest.raises(DependencyError, match=r"Redis at 127\.0\.0\.1:1") as away:
        await store.ping()
    assert "s3cret" not in str(away.value)
    await store.close()


async def test_data_outlives_a_killed_server_that_writes_a_log(tmp_path: Path):
    with EmbeddedRedis(tmp_path) as valkey:
        store = RedisHistoryStore(valkey.url, PARTITIONS)
        lease = await store.acquire(HERE)
        await store.apply(lease, commit(None, 1, change(A, b"", b"a")))
        valkey.stop()
        valkey.start()
        assert await store.load(HERE, [A]) == [header() + b"a"]
        assert await store.apply(lease, commit(1, 2, change(A, header() + b"a", b"b"))) is Outcome.APPLIED
        await store.close()


async def test_state_that_counts_other_entities_is_refused(redis_store):
    for _ in range(2):
        await redis_store.claim_entities(["merchant", "device"])
        await redis_store.claim_topology(PARTITIONS, "kafka-1")
    with pytest.raises(
        HistoryError, match="counts entities 'device,merchant', TIDEGATE_ENTITIES says 'none'"
    ):
        await redis_store.claim_entities([])


async def test_state_from_before_entities_were_counted_is_refused(redis_store):
    await redis_store.claim_topology(PARTITIONS, "kafka-1")
    await redis_store.claim_entities([])
    with pytest.raises(HistoryError, match="counts entities 'none', TIDEGATE_ENTITIES says 'device'"):
        await redis_store.claim_entities(["device"])


async def test_entities_in_another_format_are_refused_before_anything_is_changed(redis_store, direct):
    await redis_store.claim_entities(["device", "merchant"])
    await redis_store.claim_topology(PARTITIONS, "kafka-1")
    direct.set(f"{redis_store.namespace}:entities", "device,merchant")  # as the first format had it
    with pytest.raises(HistoryError, match=r"format 1, this program reads 2: .*'tidegate rebuild'"):
        await redis_store.claim_entities(["merchant", "device"])
    assert direct.get(f"{redis_store.namespace}:entities") == b"device,merchant"


async def test_rebuilt_state_counts_what_the_next_worker_says(valkey, redis_store, direct):
    await redis_store.claim_entities([])
    await redis_store.claim_topology(PARTITIONS, "kafka-1")
    reset = HistoryReset(valkey.url)
    await reset.run(PARTITIONS, "kafka-1", {})
    await reset.close()
    await redis_store.claim_entities(["device"])
    with pytest.raises(HistoryError, match="counts entities 'device'"):
        await redis_store.claim_entities([])


# Histories that are being built


async def test_a_customer_of_an_emptied_store_is_not_one_that_was_never_seen(redis_store, direct):
    lease = await begin(redis_store)
    await redis_store.apply(lease, commit(None, 1, change(A, b"", b"a")))
    direct.flushall()
    for lookup in (redis_store.read(A), redis_store.read(A, scores=False), redis_store.histories([B])):
        with pytest.raises(HistoryIncomplete, match="the store was emptied: run 'tidegate rebuild'"):
            await lookup


async def test_customers_of_other_partitions_are_found_while_one_is_built(redis_store, direct):
    there = next(c for n in range(99) if partition_for(c := f"p-{n}", PARTITIONS) == 0)
    await begin(redis_store, 0)
    await redis_store.acquire(HERE)
    assert await redis_store.read(there) is None
    with pytest.raises(HistoryIncomplete, match=f"partition {HERE} are being built"):
        await redis_store.histories([there, A])
    # Also of those who are asked for at the same time, with one call.
    asked = [redis_store.read(c, scores=False) for c in (there, A, there)]
    first, built, last = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, last) == (None, None)
    assert isinstance(built, HistoryIncomplete)


async def test_lookups_follow_a_store_that_was_built_from_more_partitions(valkey, redis_store, direct):
    await begin(redis_store)
    lookups = RedisHistoryStore(valkey.url)
    assert await lookups.read(A) is None
    moved = partition_for(A, 16)
    direct.set("tg:topology", 16)
    lease = await redis_store.acquire(moved)
    await redis_store.complete(lease)
    await redis_store.apply(lease, commit(None, 1, change(A, b"", b"a")))
    assert moved != HERE
    assert (await lookups.read(A)).history == header() + b"a"
    assert await lookups.partitions() == 16
    await lookups.close()


async def test_a_worker_that_was_taken_over_does_not_say_that_histories_are_complete(redis_store, direct):
    before = await redis_store.acquire(HERE)
    assert before.building
    assert (await redis_store.acquire(HERE)).building
    await redis_store.complete(before)
    after = await redis_store.acquire(HERE)
    assert after.building
    await redis_store.complete(after)
    assert not (await redis_store.acquire(HERE)).building
