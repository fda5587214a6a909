"""The compiled pieces, and the same text run as plain Python."""

import math
from datetime import UTC, datetime

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import kernels
from features.codec import empty_headers
from features.columns import PACKED
from features.definitions import MAX_EVENTS
from features.record import RECORD
from schemas.money import MAX_AMOUNT_MINOR

BOTH = pytest.mark.parametrize("plain", [False, True], ids=["compiled", "plain"])
EVENT, LABEL, REPLACED = 0, 1, 2
INSTANTS = st.integers(315_532_800_000, 4_102_444_799_999)


def kernel(name, plain):
    found = getattr(kernels, name)
    return found.py_func if plain else found


def pool_of(*times, kinds=None, plain=False):
    """Records of these times; each has its position as its transaction."""
    pool = np.zeros(len(times) + 4, dtype=RECORD)
    pool["time_ms"][: len(times)] = times
    pool["transaction"][: len(times)] = range(1, len(times) + 1)
    if kinds is not None:
        pool["kind"][: len(times)] = kinds
    return pool.view(np.recarray) if plain else pool


@BOTH
def test_packed_codes_stand_where_columns_look_for_them(plain):
    codes = {
        "currency": 978,
        "category": 7,
        "transaction_type": 3,
        "channel": 2,
        "credit": 1,
        "card_present": 2,
    }
    pool = pool_of(1, plain=plain)
    for name, code in codes.items():
        pool[name][0] = code
    pool["kind"][0] = REPLACED

    packed = int(kernel("packed_codes", plain)(pool[0]))

    assert {name: packed >> lowest & mask for name, (lowest, mask) in PACKED.items()} == codes
    assert packed >> 56 == REPLACED


@numba.njit
def fetched(pool, index):
    kernels.prefetch(pool, index)
    return pool[0].time_ms


@pytest.mark.parametrize("index", [0, 1, -5, 10**9])
def test_asking_for_any_record_changes_nothing(index):
    assert fetched(pool_of(17), index) == 17


@BOTH
@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((48.8566, 2.3522), (51.5074, -0.1278), 343.55653),
        ((0.0, 0.0), (0.0, 0.0), 0.0),
        ((0.0, 0.0), (0.0, 90.0), math.pi / 2 * 6371.0088),
        ((0.0, 0.0), (0.0, 180.0), math.pi * 6371.0088),
        ((90.0, 17.0), (-90.0, -120.0), math.pi * 6371.0088),
        # Over the date line the short way.
        ((0.0, 179.5), (0.0, -179.5), math.radians(1) * 6371.0088),
        ((89.0, 0.0), (89.0, 180.0), math.radians(2) * 6371.0088),
    ],
)
def test_distance_is_along_the_great_circle(plain, a, b, km):
    assert kernel("haversine_km", plain)(*a, *b) == pytest.approx(km, rel=1e-6, abs=1e-9)


@given(*[st.floats(-90, 90), st.floats(-180, 180)] * 2)
def test_distance_is_symmetric_and_at_most_half_around(lat_a, lon_a, lat_b, lon_b):
    there = kernels.haversine_km(lat_a, lon_a, lat_b, lon_b)

    assert 0 <= there <= math.pi * 6371.0088 * (1 + 1e-12)
    assert there == pytest.approx(kernels.haversine_km(lat_b, lon_b, lat_a, lon_a), rel=1e-9, abs=1e-9)


@BOTH
@given(time_ms=INSTANTS)
def test_hour_and_weekday_are_those_of_utc(plain, time_ms):
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)

    assert kernel("hour_utc", plain)(time_ms) == moment.hour
    assert kernel("weekday_utc", plain)(time_ms) == moment.weekday()


@BOTH
@given(hours=st.integers(87_648, 70_389_527))
def test_an_hour_begins_with_its_first_millisecond_up_to_the_year_9999(plain, hours):
    assert kernel("hours_utc", plain)(hours * kernels.HOUR_MS) == hours
    assert kernel("hours_utc", plain)(hours * kernels.HOUR_MS - 1) == hours - 1


@BOTH
@given(
    times=st.lists(st.integers(0, 20), max_size=30).map(sorted), start=st.integers(0, 5), t=st.integers(0, 21)
)
def test_position_is_the_first_not_before_a_time(plain, times, start, t):
    start = min(start, len(times))
    pool = pool_of(*times, plain=plain)
    expected = next((i for i in range(start, len(times)) if times[i] >= t), len(times))

    assert kernel("position_before", plain)(pool, start, len(times), t) == expected


@BOTH
def test_transaction_is_found_by_its_hash_and_not_by_a_label_about_it(plain):
    pool = pool_of(5, 6, 7, 8, kinds=[EVENT, LABEL, EVENT, REPLACED], plain=plain)
    find = kernel("find_transaction", plain)

    assert [find(pool, 0, 4, number) for number in (1, 2, 3, 4, 5)] == [0, -1, 2, 3, -1]
    assert find(pool, 1, 4, 1) == 0


@BOTH
def test_correction_hides_all_versions_and_notes_the_newest_in_them(plain):
    pool = pool_of(5, 6, 7, 8, 9, kinds=[REPLACED, LABEL, EVENT, EVENT, EVENT], plain=plain)
    pool["transaction"][:5] = [1, 1, 1, 2, 1]
    pool["amount_minor"][:5] = [10, 0, 20, 30, 40]
    new = np.zeros(2, dtype=RECORD)
    new["transaction"], new["revision"], new["amount_minor"], new["credit"] = 1, 3, 99, 1
    replaced = np.zeros(2, dtype=RECORD)
    new, replaced = (a.view(np.recarray) if plain else a for a in (new, replaced))

    kernel("replace_transaction", plain)(pool, 0, 4, new, 1, replaced)

    assert (replaced["time_ms"][1], replaced["amount_minor"][1], replaced["kind"][1]) == (7, 20, EVENT)
    assert pool["kind"][:5].tolist() == [REPLACED, LABEL, REPLACED, EVENT, EVENT]
    assert pool["amount_minor"][:5].tolist() == [99, 0, 99, 30, 40]
    assert pool["revision"][:5].tolist() == [3, 0, 3, 0, 0]
    assert pool["credit"][:5].tolist() == [1, 0, 1, 0, 0]


@BOTH
@pytest.mark.parametrize(
    ("kinds", "newest"), [([], -1), ([LABEL], -1), ([EVENT, REPLACED, LABEL], 1), ([REPLACED, EVENT], 1)]
)
def test_newest_arrival_may_have_been_replaced(plain, kinds, newest):
    pool = pool_of(*range(len(kinds)), kinds=kinds, plain=plain)

    assert kernel("newest_arrival", plain)(pool, 0, len(kinds)) == newest


@BOTH
def test_record_goes_behind_others_of_its_time(plain):
    pool = pool_of(0, 5, 5, 9, plain=plain)
    new = np.zeros(2, dtype=RECORD)
    new["time_ms"], new["transaction"] = [99, 5], [98, 99]

    kernel("insert_record", plain)(pool, 1, 3, new.view(np.recarray) if plain else new, 1)

    assert pool["transaction"][:6].tolist() == [1, 2, 3, 99, 4, 0]


@BOTH
@pytest.mark.parametrize(
    ("kinds", "newest"), [([], -1), ([LABEL], -1), ([EVENT, LABEL, LABEL], 0), ([LABEL, EVENT], 1)]
)
def test_newest_transaction_is_found_behind_labels(plain, kinds, newest):
    pool = pool_of(*range(len(kinds)), kinds=kinds, plain=plain)

    assert kernel("newest_transaction", plain)(pool, 0, len(kinds)) == newest


@BOTH
@pytest.mark.parametrize(
    ("kinds", "count", "first"),
    [
        ([EVENT] * 3, 5, 0),
        ([EVENT] * 5, 3, 2),
        ([EVENT, EVENT, LABEL, EVENT, LABEL], 2, 1),
        ([EVENT, REPLACED, LABEL, EVENT, LABEL], 2, 1),
        ([LABEL] * 4, 2, 0),
        ([EVENT] * 2, 0, 2),
    ],
)
def test_newest_events_are_counted_without_labels(plain, kinds, count, first):
    pool = pool_of(*range(len(kinds)), kinds=kinds, plain=plain)

    assert kernel("newest_from", plain)(pool, 0, len(kinds), count) == first


@BOTH
@pytest.mark.parametrize(
    ("kinds", "count", "holds"),
    [
        ([EVENT] * 2, 3, False),
        ([EVENT] * 3, 3, True),
        ([EVENT, LABEL, EVENT], 3, False),
        ([EVENT, REPLACED, EVENT], 3, True),
        ([EVENT] * 4, 3, True),
    ],
)
def test_full_history_is_full_of_transactions(plain, kinds, count, holds):
    pool = pool_of(*range(len(kinds)), kinds=kinds, plain=plain)

    assert kernel("holds_transactions", plain)(pool, 0, len(kinds), count) is holds


@BOTH
@pytest.mark.parametrize(
    ("times", "newest", "max_events", "first"),
    [
        #    newest - 10      newest
        # .. [----------------] kept, both ends
        ([1, 10, 11, 20], 20, 9, 1),
        ([1, 9, 11, 20], 20, 9, 2),
        ([1, 2, 3], 20, 9, 3),
        ([11, 12, 13], 20, 2, 1),
        ([1, 2, 13], 20, 2, 2),
        ([], 20, 2, 0),
    ],
)
def test_kept_is_what_is_neither_too_old_nor_too_many(plain, times, newest, max_events, first):
    pool = pool_of(*times, plain=plain)

    assert kernel("retained_from", plain)(pool, 0, len(times), newest, 10, max_events) == first


@BOTH
@given(bits=st.integers(0, 2**64 - 1))
def test_bits_are_counted(plain, bits):
    assert kernel("count_bits", plain)(np.uint64(bits)) == bits.bit_count()


@BOTH
@given(values=st.lists(st.integers(1, 2**32 - 1), max_size=32), rounds=st.integers(1, 3))
def test_set_counts_each_value_once_and_is_empty_for_the_next_stamp(plain, values, rounds):
    slots = np.zeros(64, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for stamp in range(1, rounds + 1):
            add = kernel("add_distinct", plain)
            added = sum(add(slots, np.uint64(stamp << 32), np.uint32(value)) for value in values)
            assert added == len(set(values))


def halves(differences):
    """Sums of squares as a kernel keeps them: of the lower bits, of both, of the higher ones."""
    low_bits = (1 << kernels.SQUARE_BITS) - 1
    parts = [(abs(d) & low_bits, abs(d) >> kernels.SQUARE_BITS) for d in differences]
    sums = (sum(a * a for a, _ in parts), sum(a * b for a, b in parts), sum(b * b for _, b in parts))
    return tuple(map(np.uint64, sums))


@BOTH
@given(amounts=st.lists(st.integers(1, MAX_AMOUNT_MINOR), min_size=2, max_size=20))
def test_deviation_from_halves_of_squares_is_that_of_exact_arithmetic(plain, amounts):
    shift, n = amounts[-1], len(amounts)
    differences = [amount - shift for amount in amounts]

    deviations = kernel("deviation_sum", plain)(n, np.uint64(sum(amounts)), shift)
    found = kernel("sample_std", plain)(n, deviations, *halves(differences))

    assert deviations == float(sum(differences))
    squares = n * sum(d * d for d in differences)
    variance = (squares - sum(differences) ** 2) / (n * (n - 1))
    # What is lost where the newest amount is far from all others: digits of the squares, not of the result.
    assert found**2 == pytest.approx(variance, rel=1e-12, abs=1e-14 * squares / n)


def test_sums_of_the_largest_amounts_that_are_kept_fit_into_64_bits():
    low_bits = 2**kernels.SQUARE_BITS - 1

    assert MAX_EVENTS * MAX_AMOUNT_MINOR < 2**64
    assert MAX_EVENTS * low_bits**2 < 2**64
    assert low_bits >= MAX_AMOUNT_MINOR >> kernels.SQUARE_BITS


DAY = 1000
ARRIVALS = st.lists(st.tuples(st.integers(0, 5 * DAY), st.integers(0, 2)), min_size=1, max_size=30)


@BOTH
@given(st.lists(st.one_of(st.integers(0, 20), st.integers(0, 2**31 - 1)), max_size=200))
def test_slots_are_numbered_as_they_come(plain, slots):
    known, number = kernel("numbered", plain)(np.array(slots, dtype=np.int64))
    assert known.tolist() == list(dict.fromkeys(slots))
    assert known[number].tolist() == slots


@BOTH
@given(ARRIVALS, st.lists(st.integers(-1, 5), min_size=3, max_size=3))
def test_first_of_a_day_is_later_than_all_days_before(plain, arrivals, last_day):
    times, slots = (np.array(column) for column in zip(*arrivals, strict=True))
    first, mixed = kernel("first_of_day", plain)(times, slots, np.array(last_day), DAY)
    days = list(last_day)
    for i, (time, slot) in enumerate(arrivals):
        assert first[i] == (time // DAY > days[slot])
        days[slot] = max(days[slot], time // DAY)
        assert mixed[i] == any(who == slot and other <= time for other, who in arrivals[i + 1 :])


@BOTH
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**12), st.sampled_from([1, 250, 2**63 - 1]), st.booleans(), st.integers(0, 1)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_totals_are_those_of_all_and_stop_at_the_largest_number(plain, accepted):
    records, slots = pool_of(*(a[0] for a in accepted))[: len(accepted)], np.array([a[3] for a in accepted])
    records["amount_minor"] = [a[1] for a in accepted]
    records["credit"] = [a[2] for a in accepted]
    headers, behind = empty_headers(2), empty_headers(len(accepted))
    seen = [a.view(np.recarray) if plain else a for a in (headers, records, behind)]
    kernel("add_totals", plain)(seen[0], seen[1], slots, seen[2])
    for slot in set(slots.tolist()):
        mine = [a for a in accepted if a[3] == slot]
        assert headers["count"][slot] == len(mine)
        assert headers["first_ms"][slot] == min(a[0] for a in mine)
        for name, credit in (("credit_minor", True), ("debit_minor", False)):
            assert headers[name][slot] == min(2**63 - 1, sum(a[1] for a in mine if a[2] is credit))
        latest, days = 0, 0
        for time_ms in (a[0] for a in mine):
            days += time_ms // 86_400_000 > latest
            latest = max(latest, time_ms // 86_400_000)
        assert (headers["last_day"][slot], headers["active_days"][slot]) == (latest, days)
    assert behind[-1] == headers[slots[-1]]
