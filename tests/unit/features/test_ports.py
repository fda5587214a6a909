import pytest

from features.ports import Commit, CustomerState, Lease, LeaseLost, Outcome, StoreRolledBack


def test_new_lease_has_nothing_processed_and_shares_nothing_with_another():
    one, other = Lease(0, 1, "a"), Lease(1, 1, "b")
    one.next_offsets["transactions"] = 5

    assert other.next_offsets == {}
    assert (other.watermark_ms, other.swept_day) == (0, -1)


def test_commit_of_offsets_alone_changes_no_history():
    commit = Commit(source="transactions", expected_next=None, next_offset=1)

    assert not commit.histories
    assert not commit.scores


def test_customer_never_seen_has_no_state():
    assert CustomerState().history is None


def test_lease_tells_another_owner_from_a_store_that_went_back():
    lease = Lease(0, 3, "me", {"transactions": 5})
    lease.require_same(3, "me", {"transactions": 5})
    for epoch, owner in ((4, "you"), (4, "me"), (3, "you")):
        with pytest.raises(LeaseLost):
            lease.require_same(epoch, owner, {"transactions": 5})
    with pytest.raises(StoreRolledBack, match="epoch 2 behind 3"):
        lease.require_same(2, "me", {"transactions": 5})
    for offsets in ({}, {"transactions": 4}, {"transactions": 5, "labels": 1}):
        with pytest.raises(StoreRolledBack, match="the store is at"):
            lease.require_same(3, "me", offsets)


def test_outcomes_are_four():
    assert {outcome.value for outcome in Outcome} == {"applied", "already_applied", "fenced", "rolled_back"}
