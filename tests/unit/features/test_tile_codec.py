import numpy as np
import pytest

from features.tile_codec import HEADER, TILE, Kept, decode, encode, merge
from schemas.errors import HistoryError


def tiles(*rows):
    """Of hour, known, customer and count, as if each event's logarithm were 3."""
    return np.array([(*row, 3 * row[3], 9 * row[3]) for row in rows], dtype=TILE)


def rows(merged):
    assert (merged["log_sum"] == 3 * merged["count"]).all()
    assert (merged["log_squares"] == 9 * merged["count"]).all()
    return [row[:4] for row in merged.tolist()]


def test_tiles_come_back_as_they_were_added_also_behind_others():
    first, second = tiles((5, 0, 1, 2)), tiles((4, 9, 0, 1), (5, 0, 1, 1))
    assert decode(encode(first) + second.tobytes()).tolist() == [*first.tolist(), *second.tolist()]
    assert len(decode(None)) == 0


@pytest.mark.parametrize(
    ("stored", "reason"),
    [(b"", "start with"), (b"TE\x01\x10" + bytes(4), "start with 54450110"), (HEADER + bytes(15), "cut off")],
)
def test_what_is_not_tiles_of_this_version_is_refused(stored, reason):
    with pytest.raises(HistoryError, match=reason):
        decode(stored)


def test_merging_adds_up_the_same_tile_and_keeps_others_apart():
    merged = merge(
        [tiles((5, 0, 1, 2), (4, 0, 1, 1)), tiles((5, 0, 1, 3), (5, 0, 2, 1), (5, 7, 0, 1))],
        Kept(100, 100, 100),
    )
    assert rows(merged) == [(4, 0, 1, 1), (5, 0, 1, 5), (5, 0, 2, 1), (5, 7, 0, 1)]


def test_merging_lets_go_of_what_is_older_than_the_retention_or_beyond_the_most():
    old = tiles((10, 0, 0, 1), (89, 0, 0, 1), (90, 0, 0, 1), (100, 0, 0, 1))
    assert merge([old], Kept(10, 10, 100))["hour"].tolist() == [90, 100]
    assert merge([old], Kept(1000, 1000, 3))["hour"].tolist() == [89, 90, 100]
    assert len(merge([], Kept(10, 10, 100))) == 0


def test_frauds_are_kept_longer_than_transactions():
    old = tiles((10, 0, 0, 1), (10, 12, 0, 1), (40, 0, 0, 1), (40, 50, 0, 1), (100, 0, 0, 1))
    assert rows(merge([old], Kept(10, 60, 100))) == [(40, 50, 0, 1), (100, 0, 0, 1)]
