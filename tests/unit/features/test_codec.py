import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import codec
from features.codec import HEADER, History, Totals, decode, encode, encode_header, packed_length
from features.packing import pack
from features.record import RECORD, REPLACED_KIND, TRANSACTION_KIND, Records
from schemas.errors import HistoryError

I64 = st.integers(-(2**63), 2**63 - 1)
DAY = st.integers(0, 0xFFFF)
TOTALS = st.builds(Totals, I64, I64, I64, I64, st.integers(-1, 0xFFFE), st.integers(-1, 2), DAY, DAY)


def records_of(times, amounts=None, credit=None) -> Records:
    records = np.zeros(len(times), dtype=RECORD)
    records["time_ms"] = times
    records["transaction"] = range(len(times))
    if amounts is not None:
        records["amount_minor"], records["credit"] = amounts, credit
    return records


@given(TOTALS, st.lists(st.integers(0, 50)))
def test_history_decodes_to_what_was_encoded(totals, times):
    history = History(totals, records_of(sorted(times)))
    again = decode(encode(history))

    assert again.totals == totals
    assert again.records.tobytes() == history.records.tobytes()


@given(st.lists(st.integers(0, 10)))
def test_records_appended_as_they_arrive_decode_in_time_order(times):
    stored = encode_header(Totals())
    for record in records_of(times):
        stored += record.tobytes()

    found = decode(stored).records

    # Sorted by time; among equal times as they arrived.
    expected = sorted(range(len(times)), key=lambda i: times[i])
    assert found["transaction"].tolist() == expected


@given(st.binary(min_size=56, max_size=56))
def test_every_bit_of_a_record_is_kept(raw):
    assert decode(encode_header(Totals()) + raw).records.tobytes() == raw


def test_stored_corrections_hide_what_they_correct():
    records = records_of([10, 20, 30, 5], [100, 200, 300, 400], [0, 0, 0, 1])
    records["transaction"], records["revision"] = [1, 2, 1, 1], [0, 0, 1, 2]
    packed = pack(records[:1])
    for stored in (
        encode_header(Totals()) + records.tobytes(),
        encode_header(Totals(), len(packed)) + records[1:].tobytes() + packed,
    ):
        found = decode(stored).records
        assert found["time_ms"].tolist() == [5, 10, 20, 30]
        assert found["kind"].tolist() == [TRANSACTION_KIND, REPLACED_KIND, TRANSACTION_KIND, REPLACED_KIND]
        assert found["revision"].tolist() == [2, 2, 0, 2]
        assert found["amount_minor"].tolist() == [400, 400, 200, 400]
        assert found["credit"].tolist() == [1, 1, 0, 1]
        again = decode(encode(History(Totals(), found))).records
        assert again.tobytes() == found.tobytes()


@given(TOTALS, st.lists(st.integers(0, 20)), st.integers(0, 30))
def test_how_much_of_a_history_is_packed_makes_no_difference(totals, times, cut):
    records = records_of(times)
    packed = pack(records[:cut])
    stored = encode_header(totals, len(packed)) + records[cut:].tobytes() + packed

    assert packed_length(stored) == len(packed)
    found = decode(stored)
    assert found.totals == totals
    assert found.records.tobytes() == decode(encode(History(totals, records))).records.tobytes()


def test_a_header_whose_block_is_gone_is_refused():
    records = records_of(range(40))
    packed = pack(records)
    for kept in (b"", records[:2].tobytes(), records.tobytes()):
        with pytest.raises(HistoryError, match=r"cut off|cannot be read"):
            decode(encode_header(Totals(), len(packed)) + kept)


def test_customer_never_stored_has_an_empty_history():
    assert decode(None).totals == Totals()
    assert len(decode(None).records) == 0
    assert len(decode(encode(History.empty())).records) == 0


def test_decoded_records_can_be_written_to():
    records = decode(encode(History(Totals(), records_of([1, 2])))).records
    records["time_ms"][0] = 7

    assert records.flags.writeable


def test_header_is_48_bytes():
    assert len(encode_header(Totals())) == HEADER.itemsize == 48


@pytest.mark.parametrize("length", [0, 1, 47, 49, 48 + 55, 48 + 57])
def test_cut_off_bytes_are_refused(length):
    whole = encode(History(Totals(), records_of([1, 2, 3])))
    with pytest.raises(HistoryError, match=f"a stored history of {length} bytes is cut off"):
        decode(whole[:length])


@pytest.mark.parametrize(("field", "value"), [("magic", 1), ("version", 1), ("record_bytes", 40)])
def test_another_format_is_refused(field, value):
    stored = np.frombuffer(encode_header(Totals()), dtype=HEADER).copy()
    stored[field] = value
    with pytest.raises(HistoryError, match=r"this program reads 3: run the version .*'tidegate rebuild'"):
        decode(stored.tobytes())


@given(
    st.lists(
        st.tuples(st.integers(1, 10**15), st.integers(1, 10**15), st.booleans()), min_size=1, max_size=20
    ),
    st.integers(0, 20),
)
def test_totals_are_those_of_all_events_however_they_are_split(events, cut):
    times, amounts, credit = zip(*events, strict=True)
    records = records_of(times, amounts, credit)

    totals = Totals().plus(records[:cut]).plus(records[cut:])

    assert (totals.first_ms, totals.count) == (min(times), len(times))
    assert totals.debit_minor == sum(a for _, a, c in events if not c)
    assert totals.credit_minor == sum(a for _, a, c in events if c)
    assert (totals.churn_day, totals.churn_band) == (-1, -1)


def test_no_events_change_no_totals():
    totals = Totals(first_ms=5, count=2, debit_minor=7)

    assert totals.plus(records_of([])) == totals


def test_absurd_sums_stop_at_the_largest_number_that_can_be_stored():
    most = records_of([1] * 10_000, [10**15] * 10_000, [0] * 5_000 + [1] * 5_000)
    totals = Totals()
    for _ in range(3):
        totals = totals.plus(most)

    assert (totals.debit_minor, totals.credit_minor) == (2**63 - 1, 2**63 - 1)
    assert decode(encode_header(totals)).totals == totals


@pytest.mark.parametrize("look", [codec._look_through, codec._look_through.py_func])
@pytest.mark.parametrize(
    ("times", "revisions", "found"),
    [
        ((), (), (False, False)),
        ((1, 1, 2), (0, 0, 0), (False, False)),
        ((1, 3, 2), (0, 0, 0), (False, True)),
        ((1, 2, 3), (0, 1, 0), (True, False)),
        ((3, 2), (2, 0), (True, True)),
    ],
)
def test_corrections_and_disorder_are_seen_in_one_pass(look, times, revisions, found):
    records = np.zeros(len(times), dtype=RECORD)
    records["time_ms"], records["revision"] = times, revisions
    assert look(records.view(np.recarray) if look is not codec._look_through else records) == found
