"""What is kept of a customer beside the history, and in what order customers are found."""

import pytest

from features.ports import Outcome
from infra.partitioning import partition_for
from tests.histories import HERE, KEPT, PARTITIONS, A, B, C, as_lists, change, commit, header

pytestmark = pytest.mark.integration


# Scores, churn, profiles


async def test_only_the_newest_scores_are_kept(store):
    lease = await store.acquire(HERE)
    batches = [[b"1"], [b"2", b"3"], [], [b"4", b"5", b"6", b"7"], [b"8"]]
    for offset, batch in enumerate(batches):
        changes = [change(A, b"", b"")] if offset == 0 else []
        await store.apply(lease, commit(offset or None, offset + 1, *changes, scores={A: batch}))
        written = [score for written in batches[: offset + 1] for score in written]
        state = await store.read(A)
        assert list(state.scores) == written[-KEPT:]


async def test_the_newest_churn_score_is_kept(store):
    lease = await store.acquire(HERE)
    for offset, churn in enumerate((b"one", b"two")):
        changes = [change(A, b"", b"")] if offset == 0 else []
        await store.apply(lease, commit(offset or None, offset + 1, *changes, churn={A: churn}))
        assert (await store.read(A)).churn == churn


async def test_profiles_are_set_and_removed(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, source="customers", profiles={A: b"{}", B: b"{1}"}))
    assert as_lists(await store.read(A)) == (None, [], None, b"{}")
    await store.apply(lease, commit(1, 2, source="customers", profiles={A: None, B: b"{2}", C: None}))
    assert await store.read(A) is None
    assert (await store.read(B)).profile == b"{2}"
    assert await store.read(C) is None


async def test_a_profile_alone_is_no_customer_of_the_sweep(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, source="customers", profiles={A: b"{}"}))
    assert await store.customers(HERE) == []


async def test_read_finds_a_customer_wherever_it_is(store):
    everywhere = {
        p: next(c for n in range(99) if partition_for(c := f"p-{n}", PARTITIONS) == p) for p in range(4)
    }
    for partition, customer in everywhere.items():
        lease = await store.acquire(partition)
        await store.apply(lease, commit(None, 1, change(customer, b"", b"%d" % partition)))
    for partition, customer in everywhere.items():
        assert as_lists(await store.read(customer)) == (header() + b"%d" % partition, [], None, None)
    assert await store.read("nobody") is None


# Order and silence


#        1000      2000      3000
#  A      |
#  B                |
#  C                          |
@pytest.mark.parametrize(
    ("after", "before", "found"),
    [
        (1000, 3000, [A, B]),
        (1000, 3001, [A, B, C]),
        (1001, 3000, [B]),
        (0, 1000, []),
        (0, 1001, [A]),
        (2000, 2000, []),
        (3000, 2000, []),
        (-(10**13), 10**13, [A, B, C]),
    ],
)
async def test_silent_since_is_closed_on_the_left_and_open_on_the_right(store, after, before, found):
    lease = await store.acquire(HERE)
    changes = [change(c, b"", b"", last_ms=ms) for c, ms in ((C, 3000), (A, 1000), (B, 2000))]
    await store.apply(lease, commit(None, 1, *changes))
    assert await store.silent_since(HERE, after, before) == found
    assert await store.silent_since(HERE + 1, after, before) == []


async def test_a_newer_event_moves_a_customer_in_the_index(store):
    lease = await store.acquire(HERE)
    await store.apply(
        lease, commit(None, 1, change(A, b"", b"", last_ms=1000), change(B, b"", b"", last_ms=1500))
    )
    assert await store.customers(HERE) == [A, B]
    (stored,) = await store.load(HERE, [A])
    await store.apply(lease, commit(1, 2, change(A, stored, b"x", last_ms=1_767_225_600_123)))
    assert await store.customers(HERE) == [B, A]
    assert await store.silent_since(HERE, 0, 2000) == [B]
    assert await store.silent_since(HERE, 1_767_225_600_123, 1_767_225_600_124) == [A]


async def test_a_thousand_customers_in_one_commit(store):
    lease = await store.acquire(HERE)
    many = [f"m-{n:04d}" for n in range(1000)]
    changes = [change(c, b"", b"r" * 56, last_ms=n) for n, c in enumerate(many)]
    scores = {c: [b"{}"] * 5 for c in many}
    assert await store.apply(lease, commit(None, 1000, *changes, scores=scores)) is Outcome.APPLIED
    assert await store.customers(HERE) == many
    assert await store.load(HERE, many) == [header() + b"r" * 56] * 1000
