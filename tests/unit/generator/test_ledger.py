import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator.ledger import Ledger, arrivals
from generator.profiles import Profiles
from generator.rows import FIELDS, Kind, make_rows
from generator.settings import DAY_MS, BankSettings


def small_ledger() -> Ledger:
    settings = BankSettings(customers=10)
    ledger = Ledger(settings, Profiles.draw(settings))
    ledger.balance[:] = 1_000
    ledger.overdraft[:] = 200
    return ledger


@pytest.fixture
def ledger() -> Ledger:
    return small_ledger()


def test_spending_stops_at_the_overdraft(ledger):
    booked, balance = ledger.book(make_rows(0, np.array([1, 2, 3]), np.array([900, 300, 1]), Kind.POS))
    assert balance.tolist() == [100, -200]
    assert ledger.balance[0] == -200
    assert booked["amount_minor"].tolist() == [900, 300]


def test_what_is_too_much_is_declined_and_what_fits_afterwards_is_not(ledger):
    booked, balance = ledger.book(make_rows(0, np.array([1, 2, 3]), np.array([900, 301, 250]), Kind.POS))
    assert booked["amount_minor"].tolist() == [900, 250]
    assert balance.tolist() == [100, -150]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 2_000), st.sampled_from(list(Kind))),
        min_size=1,
        max_size=40,
    )
)
def test_the_ledger_equals_booking_one_row_after_the_other(entries):
    ledger = small_ledger()
    customer, time, amount, kind = (np.array(column) for column in zip(*entries, strict=True))
    booked, after = ledger.book(make_rows(customer, time, amount, kind))
    left, expected = [1_000] * 4, []
    for who, moment, minor, what in sorted(entries, key=lambda entry: entry[1]):
        if FIELDS[what].direction == "credit":
            left[who] += minor
        elif what == Kind.FEE or left[who] - minor >= -200:
            left[who] -= minor
        else:
            continue
        expected.append((moment, who, left[who]))
    got = zip(booked["time_ms"].tolist(), booked["customer"].tolist(), after.tolist(), strict=True)
    assert sorted(got) == sorted(expected)
    assert ledger.balance[:4].tolist() == left


def test_one_short_account_declines_nothing_for_its_neighbours(ledger):
    rows = make_rows(np.array([0, 1, 2]), np.array([5, 6, 7]), np.array([100, 9_999, 100]), Kind.POS)
    booked, _ = ledger.book(rows)
    assert booked["customer"].tolist() == [0, 2]


def test_a_fee_is_booked_even_where_there_is_nothing(ledger):
    ledger.balance[0] = -200
    _, balance = ledger.book(make_rows(0, np.array([1]), 50, Kind.FEE))
    assert balance.tolist() == [-250]


def test_a_credit_after_a_refusal_still_arrives(ledger):
    rows = make_rows(0, np.array([1, 2]), np.array([5_000, 70]), np.array([Kind.POS, Kind.SALARY]))
    _, balance = ledger.book(rows)
    assert balance.tolist() == [1_070]


def test_a_declined_transfer_does_not_arrive_and_cannot_be_spent(ledger):
    # 0 sends to 1 what it has not; 1 would pass it on to 2.
    sent = make_rows(
        np.array([0, 1]),
        np.array([100, 9_000]),
        np.array([5_000, 5_500]),
        Kind.MOBILE_TRANSFER,
        counterparty=np.array([1, 2]),
    )
    booked, _ = ledger.book(np.concatenate([sent, arrivals(sent, 10)]))
    assert booked.size == 0
    assert ledger.balance[:3].tolist() == [1_000, 1_000, 1_000]


def test_a_transfer_inside_the_bank_arrives_in_full_on_the_same_day():
    late = 3 * DAY_MS - 10
    sent = make_rows(4, np.array([late]), 700, Kind.MOBILE_TRANSFER, counterparty=6, device=9, lookalike=1)
    came = arrivals(sent, 10)
    assert (came["customer"][0], came["counterparty"][0], came["amount_minor"][0]) == (6, 4, 700)
    assert late <= came["time_ms"][0] < 3 * DAY_MS
    assert came["device"][0] == -1
    assert came["lookalike"][0] == 0


def test_transfers_elsewhere_arrive_nowhere_here():
    assert (
        arrivals(make_rows(4, np.array([5]), 700, Kind.MOBILE_TRANSFER, counterparty=1 << 31), 10).size == 0
    )
    assert arrivals(make_rows(4, np.array([5]), 700, Kind.POS, merchant=3), 10).size == 0


def test_nothing_to_book_is_nothing(ledger):
    booked, balance = ledger.book(make_rows(np.zeros(0, np.int64), 0, 0, Kind.POS))
    assert booked.size == balance.size == 0
