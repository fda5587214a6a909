"""Customers who are erased are gone, and remembered by a digest."""

import pytest

from features.ports import Outcome
from schemas.erasure import erased_name
from tests.histories import HERE, A, B, C, change, commit, contents, header

pytestmark = pytest.mark.integration


async def test_an_erased_customer_is_gone_and_remembered_by_a_digest(store):
    lease = await store.acquire(HERE)
    full = commit(
        None,
        5,
        change(A, b"", b"one"),
        change(B, b"", b"two"),
        scores={A: [b"s"], B: [b"s"]},
        churn={A: b"c", B: b"c"},
        profiles={A: b"p", B: b"p"},
    )
    await store.apply(lease, full)
    _, before = await contents(store)
    erased = commit(None, 1, source="erasures", erased={A: 7000, C: 500})
    assert await store.apply(lease, erased) is Outcome.APPLIED
    assert await store.apply(lease, erased) is Outcome.ALREADY_APPLIED
    customers, after = await contents(store)
    assert customers == [B]
    assert after[A] is None
    assert after[B] == before[B]
    again = await store.acquire(HERE)
    assert again.erased == {erased_name(A): 7000, erased_name(C): 500}
    assert again.is_erased(A, 7000)
    assert not again.is_erased(A, 7001)
    assert not again.is_erased(B, 0)
    assert (await store.acquire(HERE + 1)).erased == {}


async def test_a_packed_block_is_erased_too(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"", replaced=True, packed=b"block")))
    assert await store.load(HERE, [A]) == [header() + b"block"]
    await store.apply(lease, commit(None, 1, source="erasures", erased={A: 7000}))
    await store.apply(lease, commit(1, 2, change(A, b"", b"new")))
    assert await store.load(HERE, [A]) == [header() + b"new"]


async def test_an_older_erasure_does_not_take_a_newer_one_back(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, source="erasures", erased={A: 7000}))
    await store.apply(lease, commit(1, 2, source="erasures", erased={A: 3000}))
    assert (await store.acquire(HERE)).erased == {erased_name(A): 7000}


async def test_a_fenced_worker_erases_nobody(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 5, change(A, b"", b"one")))
    await store.acquire(HERE)
    fenced = commit(None, 1, source="erasures", erased={A: 7000})
    assert await store.apply(lease, fenced) is Outcome.FENCED
    customers, _ = await contents(store)
    assert customers == [A]


async def test_an_erased_customer_can_begin_anew(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 5, change(A, b"", b"one")))
    await store.apply(lease, commit(None, 1, source="erasures", erased={A: 7000}))
    assert await store.apply(lease, commit(5, 6, change(A, b"", b"new"))) is Outcome.APPLIED
    customers, state = await contents(store)
    assert customers == [A]
    assert state[A][0].endswith(b"new")
