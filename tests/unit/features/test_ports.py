from features.ports import Commit, CustomerState, Lease, Outcome


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


def test_outcomes_are_four():
    assert {outcome.value for outcome in Outcome} == {"applied", "already_applied", "fenced", "rolled_back"}
