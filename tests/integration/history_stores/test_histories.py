"""Histories as they are stored: loaded, appended to, replaced, and as long as a commit says."""

import pytest

from features.ports import Commit, Outcome
from schemas.errors import HistoryError
from tests.histories import AWKWARD, HERE, A, B, C, as_lists, change, commit, contents, header

pytestmark = pytest.mark.integration


async def test_histories_are_loaded_in_the_order_asked_for(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 2, change(A, b"", b"a"), change(B, b"", b"bb")))
    a, b = header() + b"a", header() + b"bb"
    assert await store.load(HERE, [A, B]) == [a, b]
    assert await store.load(HERE, [C, B, A, B]) == [None, b, a, b]
    assert await store.load(HERE, []) == []
    assert await store.load(HERE + 1, [A]) == [None]


async def test_records_are_appended_behind_a_new_header(store):
    lease = await store.acquire(HERE)
    assert await store.apply(lease, commit(None, 1, change(A, b"", b"11"))) is Outcome.APPLIED
    (stored,) = await store.load(HERE, [A])
    assert await store.apply(lease, commit(1, 2, change(A, stored, b"22", mark=b"i"))) is Outcome.APPLIED
    (stored,) = await store.load(HERE, [A])
    assert stored == header(b"i") + b"1122"
    # Nothing new but the header: a churn score changes only that.
    assert await store.apply(lease, commit(2, 3, change(A, stored, b"", mark=b"j"))) is Outcome.APPLIED
    assert await store.load(HERE, [A]) == [header(b"j") + b"1122"]


async def test_a_replaced_history_is_only_what_was_given(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"x" * 1000)))
    (stored,) = await store.load(HERE, [A])
    await store.apply(lease, commit(1, 2, change(A, stored, b"new", mark=b"k", replaced=True)))
    assert await store.load(HERE, [A]) == [header(b"k") + b"new"]
    await store.apply(lease, commit(2, 3, change(B, b"", b"first", replaced=True)))
    assert await store.load(HERE, [B]) == [header() + b"first"]


async def test_a_packed_block_stands_behind_what_is_appended_until_it_is_replaced(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"1"), change(B, b"", b"b")))
    two = change(A, header() + b"1", b"", mark=b"i", replaced=True, packed=b"PACKED")
    await store.apply(lease, commit(1, 2, two))
    assert await store.load(HERE, [A, B]) == [header(b"i") + b"PACKED", header() + b"b"]
    await store.apply(lease, commit(2, 3, change(A, header(b"i"), b"22", mark=b"j")))
    assert await store.load(HERE, [B, A]) == [header() + b"b", header(b"j") + b"22PACKED"]
    assert (await store.read(A)).history == header(b"j") + b"22PACKED"
    await store.apply(lease, commit(3, 4, change(A, header(b"j") + b"22", b"3", replaced=True)))
    assert await store.load(HERE, [A]) == [header() + b"3"]


async def test_a_replacement_made_from_another_length_is_an_error_and_nothing_is_written(store):
    """The cache is ahead of the store at the same offset: somebody wrote beside the protocol."""
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"a"), change(B, b"", b"b")))
    before = await contents(store)
    a, b = await store.load(HERE, [A, B])
    good, ahead = change(A, a, b"compact", replaced=True), change(B, b + b"more", b"bm", replaced=True)
    with pytest.raises(HistoryError, match="its length differs"):
        await store.apply(lease, commit(1, 1, good, ahead))
    assert await contents(store) == before


async def test_a_replacement_whose_reply_was_lost_can_be_tried_again(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"x" * 1000)))
    (stored,) = await store.load(HERE, [A])
    swept = commit(1, 1, change(A, stored, b"compact", replaced=True))
    for _ in range(2):
        assert await store.apply(lease, swept) is Outcome.APPLIED
        assert await store.load(HERE, [A]) == [header() + b"compact"]


async def test_bytes_of_every_value_are_kept(store):
    lease = await store.acquire(HERE)
    every = bytes(range(256)) * 4
    one = Commit(
        "transactions",
        None,
        1,
        [change(AWKWARD, b"", every)],
        {AWKWARD: [every]},
        {AWKWARD: every},
        {AWKWARD: every},
    )
    assert await store.apply(lease, one) is Outcome.APPLIED
    assert as_lists(await store.read(AWKWARD)) == (header() + every, [every], every, every)
    assert await store.customers(HERE) == [AWKWARD]


async def test_history_of_another_length_in_one_of_several_commits_is_an_error_that_names_nobody(store):
    leases = [await store.acquire(HERE + n) for n in range(2)]
    wrong = [(lease, commit(None, 1, change(A, header() * n, b"a"))) for n, lease in enumerate(leases)]
    with pytest.raises(HistoryError, match="its length differs") as refused:
        await store.apply_all(wrong)
    assert A not in str(refused.value)
    assert await store.load(leases[1].partition, [A]) == [None]
    assert await store.apply_all(wrong[:1]) == [Outcome.ALREADY_APPLIED]


@pytest.mark.parametrize("longer", [True, False])
async def test_a_history_of_another_length_is_an_error_and_nothing_is_written(store, longer):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"a"), change(B, b"", b"bb")))
    before = await contents(store)
    a, b = await store.load(HERE, [A, B])
    wrong = Commit(
        "transactions",
        1,
        2,
        # The good one first: it must not be written either.
        [
            change(A, a, b"more"),
            change(B, b + b"x" if longer else b[:-1], b"more"),
            change(C, b"", b"c"),
        ],
        {A: [b"score"]},
        {A: b"churn"},
        {A: b"profile"},
        watermark_ms=9,
        swept_day=9,
    )
    with pytest.raises(HistoryError, match="its length differs"):
        await store.apply(lease, wrong)
    assert await contents(store) == before
    again = await store.acquire(HERE)
    assert (again.next_offsets, again.watermark_ms, again.swept_day) == ({"transactions": 1}, 0, -1)


async def test_a_history_that_should_not_be_there_is_an_error(store):
    lease = await store.acquire(HERE)
    await store.apply(lease, commit(None, 1, change(A, b"", b"a")))
    with pytest.raises(HistoryError):
        await store.apply(lease, commit(1, 2, change(A, b"", b"b")))
