"""One suite of checks for every history store."""

import asyncio

import pytest

from features.ports import Commit, EntityChange, HistoryStore, Lease, LeaseLost, Outcome, StoreRolledBack
from infra.memory_store import MemoryHistoryStore
from infra.partitioning import partition_for
from schemas.erasure import erased_name
from schemas.errors import HistoryError
from tests.histories import (
    AWKWARD,
    HERE,
    KEPT,
    PARTITIONS,
    A,
    B,
    C,
    as_lists,
    change,
    commit,
    contents,
    header,
)

pytestmark = pytest.mark.integration


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> HistoryStore:
    if request.param == "memory":
        return MemoryHistoryStore(recent_scores=KEPT)
    found: HistoryStore = request.getfixturevalue("redis_store")
    return found


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


# Histories


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


async def test_history_of_another_length_in_one_of_several_commits_is_an_error_that_names_nobody(store):
    leases = [await store.acquire(HERE + n) for n in range(2)]
    wrong = [(lease, commit(None, 1, change(A, header() * n, b"a"))) for n, lease in enumerate(leases)]
    with pytest.raises(HistoryError, match="its length differs") as refused:
        await store.apply_all(wrong)
    assert A not in str(refused.value)
    assert await store.load(leases[1].partition, [A]) == [None]
    assert await store.apply_all(wrong[:1]) == [Outcome.ALREADY_APPLIED]


@pytest.mark.parametrize("shorter", [True, False])
async def test_a_history_of_another_length_is_an_error_and_nothing_is_written(store, shorter):
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
            change(B, b + b"x" if shorter < 0 else b[:-1], b"more"),
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
    assert await contents(store) == ([], {c: None for c in (A, B, C, AWKWARD)})
    # Others have taken leases since, but fewer than it remembers.
    await store.acquire(HERE)
    assert await store.apply(made_up, commit(None, 1)) is Outcome.ROLLED_BACK
    for _ in range(3):
        await store.acquire(HERE)
    # As many: only the owner tells them apart.
    assert await store.apply(made_up, commit(None, 1)) is Outcome.FENCED


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


# Progress and silence


async def test_watermark_and_sweep_never_go_back(store):
    lease = await store.acquire(HERE)
    seen = []
    for offset, (watermark, swept) in enumerate([(5, 3), (2, 1), (0, -1), (9, 4), (9, 3)]):
        await store.apply(lease, commit(offset or None, offset + 1, watermark_ms=watermark, swept_day=swept))
        # A lease taken to look would fence off the other: take the next one.
        lease = await store.acquire(HERE)
        seen.append((lease.watermark_ms, lease.swept_day))
    assert seen == [(5, 3), (5, 3), (5, 3), (9, 4), (9, 4)]


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


async def test_commits_of_two_partitions_do_not_wait_for_each_other(store):
    leases = await asyncio.gather(*(store.acquire(p) for p in range(PARTITIONS)))
    outcomes = await asyncio.gather(
        *(store.apply(lease, commit(None, 1)) for lease in leases for _ in range(2))
    )
    assert sorted(outcomes) == [Outcome.ALREADY_APPLIED] * 4 + [Outcome.APPLIED] * 4


# Merchants and devices


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


# Erasures


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
