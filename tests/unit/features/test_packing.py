from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import packing
from features.packing import pack, unpack
from features.record import RECORD, Records
from schemas.errors import HistoryError


def records_of(times, amounts=0, credit=0) -> Records:
    records = np.zeros(len(times), dtype=RECORD)
    records["time_ms"], records["transaction"] = times, range(len(times))
    records["amount_minor"], records["credit"] = amounts, credit
    return records


def any_records(draw, most=60) -> Records:
    """Every bit free; some of them repeated, as customers do."""
    distinct = draw(st.lists(st.binary(min_size=56, max_size=56), min_size=1, max_size=8))
    chosen = draw(st.lists(st.sampled_from(distinct), max_size=most))
    return np.frombuffer(b"".join(chosen), dtype=RECORD)


@given(st.composite(any_records)())
def test_packed_records_are_the_same_bit_for_bit(records):
    again = unpack(pack(records))

    assert again.tobytes() == records.tobytes()
    assert again.dtype == RECORD
    assert pack(again) == pack(records)


@given(st.data())
def test_a_damaged_block_is_read_or_refused_and_breaks_nothing_else(data):
    packed = bytearray(pack(records_of(range(40))))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    damaged = bytes(packed[: data.draw(st.integers(0, len(packed)))])
    found = None
    with suppress(HistoryError):
        found = unpack(damaged)
    assert found is None or found.dtype == RECORD


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**62), st.integers(0, 1)), max_size=20))
def test_compiled_packing_does_what_its_text_says(rows):
    rows = sorted(rows)
    records = records_of([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])
    packed = pack(records)
    with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore"):
        patch.setattr(packing, "_fill", packing._fill.py_func)
        patch.setattr(packing, "_take_apart", packing._take_apart.py_func)
        plain, packed_plainly = unpack(packed), pack(records)
    assert plain.tobytes() == unpack(packed).tobytes() == records.tobytes()
    assert packed_plainly == packed
