"""Leases, and what becomes of a commit: applied, already applied, fenced off or rolled back."""

import asyncio

import pytest

from features.ports import Lease, LeaseLost, Outcome, StoreRolledBack
from tests.histories import HERE, PARTITIONS, A, B, as_lists, change, commit, contents, header

pytestmark = pytest.mark.integration


# Leases


async def test_a_new_lease_starts_before_everything(store):
    lease = await store.acquire(HERE)
    assert (lease.partition, lease.epoch) == (HERE, 1)
    assert (lease.next_offsets, lease.watermark_ms, lease.swept_day) == ({}, 0, -1)
    assert lease.owner


async def test_the_epoch_grows_with_every_lease_of_a_partition(store):
    leases = [await store.acquire(HERE) for _ in range(5)]
    assert [lease.epoch for lease in leases] == [1, 2, 3, 4, 5]
    assert len({lease.owner for lease in leases}) == 5
    assert (await store.acquire(HERE + 1)).epoch == 1


async def test_a_lease_says_how_far_its_partition_is(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 7, watermark_ms=500))
    await store.apply(lease, commit(None, 3, source="labels"))
    await store.apply(lease, commit(7, 7, swept_day=20_000))
    again = await store.acquire(HERE)
    assert again.next_offsets == {"transactions": 7, "labels": 3}
    assert (again.watermark_ms, again.swept_day) == (500, 20_000)
    other = await store.acquire(HERE + 1)
    assert (other.next_offsets, other.watermark_ms, other.swept_day) == ({}, 0, -1)


async def test_watermark_and_sweep_never_go_back(store):
    lease = await store.acquire(HERE)
    seen = []
    for offset, (watermark, swept) in enumerate([(5, 3), (2, 1), (0, -1), (9, 4), (9, 3)]):
        await store.apply(lease, commit(offset or None, offset + 1, watermark_ms=watermark, swept_day=swept))
        # A lease taken to look would fence off the other: take the next one.
        lease = await store.acquire(HERE)
        seen.append((lease.watermark_ms, lease.swept_day))
    assert seen == [(5, 3), (5, 3), (5, 3), (9, 4), (9, 4)]


# Outcomes


async def test_the_same_commit_again_is_already_applied(store):
    lease = await store.acquire(HERE)
    one = commit(None, 5, change(A, b"", b"a"), scores={A: [b"1"]})
    assert await store.apply(lease, one) is Outcome.APPLIED
    before = await contents(store)
    for _ in range(3):
        assert await store.apply(lease, one) is Outcome.ALREADY_APPLIED
    assert await contents(store) == before
    (stored,) = await store.load(HERE, [A])
    two = commit(5, 9, change(A, stored, b"b"))
    assert await store.apply(lease, two) is Outcome.APPLIED
    assert await store.apply(lease, two) is Outcome.ALREADY_APPLIED
    assert await store.load(HERE, [A]) == [header() + b"ab"]


async def test_a_commit_that_moves_no_offset_is_applied_again(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"a")))
    (stored,) = await store.load(HERE, [A])
    swept = commit(1, 1, change(A, stored, b"", mark=b"s"), churn={A: b"churn"}, swept_day=3)
    assert await store.apply(lease, swept) is Outcome.APPLIED
    assert await store.apply(lease, swept) is Outcome.APPLIED
    assert as_lists(await store.read(A)) == (header(b"s") + b"a", [], b"churn", None)
    assert (await store.acquire(HERE)).next_offsets == {"transactions": 1}


async def test_a_commit_of_nothing_moves_the_offset(store):
    """A chunk of dead letters."""
    lease = await store.acquire(HERE)
    assert await store.apply(lease, commit(None, 0)) is Outcome.APPLIED
    assert await store.apply(lease, commit(0, 10)) is Outcome.APPLIED
    assert await store.apply(lease, commit(10, 10)) is Outcome.APPLIED
    assert (await store.acquire(HERE)).next_offsets == {"transactions": 10}


async def test_an_earlier_lease_is_fenced_off_and_writes_nothing(store):
    old = await store.acquire(HERE)
    assert await store.apply(old, commit(None, 1, change(A, b"", b"a"))) is Outcome.APPLIED
    new = await store.acquire(HERE)
    (stored,) = await store.load(HERE, [A])
    before = await contents(store)
    late = commit(1, 2, change(A, stored, b"b"), scores={A: [b"s"]}, watermark_ms=99, swept_day=99)
    assert await store.apply(old, late) is Outcome.FENCED
    assert await store.apply(old, commit(None, 1, change(A, b"", b"a"))) is Outcome.FENCED
    assert await store.apply(old, commit(1, 1, swept_day=99)) is Outcome.FENCED
    assert await contents(store) == before
    assert await store.apply(new, late) is Outcome.APPLIED
    assert await store.apply(old, late) is Outcome.FENCED
    assert await store.load(HERE, [A]) == [header() + b"ab"]


async def test_histories_are_not_given_to_an_earlier_lease(store):
    """A worker that was paused would take what came after its chunk for what came before."""
    old = await store.acquire(HERE)
    await store.apply(old, commit(None, 1, change(A, b"", b"a")))
    old.next_offsets = {"transactions": 1}
    assert await store.load(HERE, [A], old) == [header() + b"a"]
    new = await store.acquire(HERE)
    with pytest.raises(LeaseLost):
        await store.load(HERE, [A], old)
    assert await store.load(HERE, [A, B], new) == [header() + b"a", None]


async def test_histories_are_not_given_where_the_store_is_not_at_the_lease(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"a")))
    lease.next_offsets = {"transactions": 2}
    with pytest.raises(StoreRolledBack):
        await store.load(HERE, [A], lease)
    lease.next_offsets = {"transactions": 1, "labels": 4}
    with pytest.raises(StoreRolledBack):
        await store.load(HERE, [B], lease)
    with pytest.raises(StoreRolledBack):
        await store.load(HERE, [A], Lease(HERE, 9, "somebody", {"transactions": 1}))
    with pytest.raises(StoreRolledBack):
        await store.load(HERE + 1, [A], Lease(HERE + 1, 1, "somebody"))


async def test_a_sweep_of_a_store_that_went_back_is_a_rollback(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 5, change(A, b"", b"a")))
    before = await contents(store)
    assert await store.apply(lease, commit(9, 9, churn={A: b"churn"}, swept_day=3)) is Outcome.ROLLED_BACK
    assert await contents(store) == before


async def test_an_owner_of_another_partition_is_no_owner_of_this_one(store):
    other = await store.acquire(HERE + 1)
    await store.acquire(HERE)
    other.partition = HERE
    assert await store.apply(other, commit(None, 1)) is Outcome.FENCED


@pytest.mark.parametrize(("expected", "after"), [(None, 9), (4, 9), (6, 9), (0, 9), (9, 12)])
async def test_an_offset_that_the_store_is_not_at_is_a_rollback(store, expected, after):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 5, change(A, b"", b"a")))
    before = await contents(store)
    assert await store.apply(lease, commit(expected, after, change(B, b"", b"b"))) is Outcome.ROLLED_BACK
    assert await contents(store) == before
    assert (await store.acquire(HERE)).next_offsets == {"transactions": 5}


async def test_sources_have_offsets_of_their_own(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 5))
    assert await store.apply(lease, commit(5, 6, source="labels")) is Outcome.ROLLED_BACK
    assert await store.apply(lease, commit(None, 5, source="labels")) is Outcome.APPLIED
    assert await store.apply(lease, commit(5, 6)) is Outcome.APPLIED


async def test_a_lease_that_the_store_never_gave_is_a_rollback(store):
    """The store is emptier than the worker remembers: it lost writes."""
    made_up = Lease(HERE, 4, "somebody")
    assert await store.apply(made_up, commit(None, 1, change(A, b"", b"a"))) is Outcome.ROLLED_BACK
    assert await store.load(HERE, [A]) == [None]
    # Others have taken leases since, but fewer than it remembers.
    await store.acquire(HERE)
    assert await store.apply(made_up, commit(None, 1)) is Outcome.ROLLED_BACK
    for _ in range(3):
        await store.acquire(HERE)
    # As many: only the owner tells them apart.
    assert await store.apply(made_up, commit(None, 1)) is Outcome.FENCED


async def test_commits_of_several_partitions_each_stand_for_themselves(store):
    mine, lost, behind = [await store.acquire(HERE + n) for n in range(3)]
    await store.acquire(lost.partition)
    commits = [(lease, commit(None, 5, change(A, b"", b"aa"), watermark_ms=7)) for lease in (mine, lost)]
    commits.append((behind, commit(3, 5)))
    outcomes = [Outcome.APPLIED, Outcome.FENCED, Outcome.ROLLED_BACK]
    assert await store.apply_all(commits) == outcomes
    assert await store.load(mine.partition, [A]) == [header() + b"aa"]
    assert await store.load(lost.partition, [A]) == [None]
    assert await store.apply_all(commits) == [Outcome.ALREADY_APPLIED, *outcomes[1:]]
    assert await store.apply_all([]) == []


async def test_commits_of_two_partitions_do_not_wait_for_each_other(store):
    leases = await asyncio.gather(*(store.acquire(p) for p in range(PARTITIONS)))
    outcomes = await asyncio.gather(
        *(store.apply(lease, commit(None, 1)) for lease in leases for _ in range(2))
    )
    assert sorted(outcomes) == [Outcome.ALREADY_APPLIED] * 4 + [Outcome.APPLIED] * 4
