"""The compiled loops over tiles, and the same text run as plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import tile_kernels
from features.entities import TILE_MS
from features.entity_counts import Entities, SaidOf
from features.entity_features import ENTITY_FEATURES
from features.labels import Word
from features.record import RECORD
from tests.examples import examples

DAY = 24
FIRST_HOUR = 490_000

EVENTS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 3), st.integers(0, 60 * DAY)),  # hours since the first
        st.integers(0, 2),  # merchant, 0 for none
        st.integers(0, 2),  # device
        st.integers(1, 3),  # customer
        st.booleans(),  # whether it is counted
        st.one_of(st.none(), st.integers(0, 40 * DAY)),  # hours until it is known to be fraud
        st.one_of(st.integers(0, 3), st.integers(0, 10**12)),  # amount in minor units
    ),
    min_size=1,
    max_size=40,
)


def run(events):
    """Vectors of events one after the other, and the tiles they leave behind."""
    entities, rows = Entities(ENTITY_FEATURES), []
    for hours, merchant, device, customer, counted, known, minor in events:
        record = np.zeros(1, dtype=RECORD)
        record["time_ms"] = (FIRST_HOUR + hours) * TILE_MS + 1000
        record["merchant"], record["device"], record["amount_minor"] = merchant, device, minor
        for key in entities.missing(entities.keys(record)):
            entities.put(key)
        who = np.array([customer], dtype=np.uint32)
        rows.append(entities.compute(record, who, np.arange(1), count=counted)[0])
        if known is not None:
            known_ms = int(record["time_ms"][0]) + known * TILE_MS
            fraud = entities.frauds([SaidOf(record, Word(known_ms, count)) for count in (1, 1, -1)])
            if not entities.missing(list(fraud)):
                entities.add(fraud)
    return np.array(rows)


def interpret(patch):
    """Put plain functions in the place of the compiled ones; returns the names of those called."""
    calls = []

    def plain(name):
        function = getattr(tile_kernels, name).py_func

        def called(first, *others):
            calls.append(name)
            if not isinstance(first, np.ndarray):
                return function(first, *others)
            # In Python the fields of plain records are no attributes; numbers of 64 bits are to run over.
            with np.errstate(over="ignore"):
                return function(first.view(np.recarray) if first.dtype.names else first, *others)

        return called

    for name in ("compute_tiles", "add_tile", "_is_new", "_amount", "_close", "_look", "log_amounts"):
        patch.setattr(tile_kernels, name, plain(name))
    return calls


@examples(40)
@given(EVENTS)
def test_compiled_loops_do_what_their_text_says(events):
    compiled = run(events)
    with pytest.MonkeyPatch.context() as patch:
        calls = interpret(patch)
        plain = run(events)
    assert calls.count("compute_tiles") == len(events) * len({f.entity for f in ENTITY_FEATURES})
    np.testing.assert_array_equal(plain, compiled)
