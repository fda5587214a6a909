"""Merchants and devices as they are stored, by partition."""

import pytest

from features.ports import EntityChange, Outcome
from tests.histories import HERE, commit

pytestmark = pytest.mark.integration


async def test_entities_are_stored_by_partition_with_the_offset_that_made_them(store):
    here, there = await store.acquire(HERE), await store.acquire(HERE + 1)
    shop, phone = ("merchant", 7), ("device", 0xFFFFFFFF)
    first = [EntityChange(*shop, b"head-a", replaced=True), EntityChange(*phone, b"p", replaced=True)]
    assert await store.apply(here, commit(None, 1, entities=first)) is Outcome.APPLIED
    more = [EntityChange(*shop, b"b", replaced=False)]
    assert await store.apply(here, commit(1, 2, entities=more)) is Outcome.APPLIED
    assert await store.apply(here, commit(1, 2, entities=more)) is Outcome.ALREADY_APPLIED
    here.next_offsets["transactions"] = 2
    assert await store.apply(there, commit(None, 1, entities=more)) is Outcome.APPLIED

    assert await store.entities([phone, shop], [HERE, HERE + 1]) == [[b"p", None], [b"head-ab", b"b"]]
    assert await store.entities([shop], [HERE + 1]) == [[b"b"]]
    assert await store.entities([]) == []
    (parts,) = await store.entities([shop])
    assert [part for part in parts if part is not None] == [b"head-ab", b"b"]

    whole = [EntityChange(*shop, b"whole", replaced=True)]
    assert await store.apply(here, commit(2, 3, entities=whole)) is Outcome.APPLIED
    assert await store.entities([shop], [HERE]) == [[b"whole"]]


async def test_a_fenced_worker_counts_nothing_at_entities(store):
    stale = await store.acquire(HERE)
    await store.acquire(HERE)
    change = [EntityChange("merchant", 7, b"x", replaced=True)]
    assert await store.apply(stale, commit(None, 1, entities=change)) is Outcome.FENCED
    assert await store.entities([("merchant", 7)], [HERE]) == [[None]]
