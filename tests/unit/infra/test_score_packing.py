import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.score_packing import ScorePacker
from schemas.errors import HistoryError
from schemas.parse import dump

PACKER = ScorePacker()
SCORE = {
    "schema_version": 1,
    "transaction_id": "t-7f3a90",
    "customer_id": "c0000917",
    "event_time": "2026-05-11T17:02:41.120Z",
    "scored_at": "2026-05-11T17:02:41.500Z",
    "score": 0.0031847,
    "decision": "allow",
    "reasons": [],
    "model": {"name": "fraud", "version": "v1", "role": "champion"},
    "flags": [],
    "source": {"topic": "transactions", "partition": 3, "offset": 90211},
}


@given(st.binary(max_size=2000))
def test_what_was_packed_is_unpacked(raw):
    assert PACKER.unpack(PACKER.pack(raw)) == raw
    assert PACKER.pack(raw) == ScorePacker().pack(raw)


def test_a_usual_score_takes_a_third():
    raw = dump(SCORE)
    assert len(PACKER.pack(raw)) < len(raw) / 3


@pytest.mark.parametrize("stored", [b"", b"{}", PACKER.pack(dump(SCORE))[:-1], PACKER.pack(b"x") + b"y"])
def test_what_is_no_stored_score_is_refused(stored):
    with pytest.raises(HistoryError, match="cannot be read: run"):
        PACKER.unpack(stored)
