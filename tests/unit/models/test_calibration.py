import numpy as np
import pytest

from models.calibration import compare, reliability
from models.platt import Platt
from models.tree import to_proba


def drawn(n, seed, slope=1.0, intercept=0.0):
    """Margins, and labels whose log-odds are `slope * margin + intercept`."""
    random = np.random.default_rng(seed)
    margin = random.normal(-3, 2, n)
    return margin, random.random(n) < to_proba(slope * margin + intercept)


def test_platt_finds_how_far_margins_are_off():
    platt = Platt.fit(*drawn(40_000, 1, slope=0.5, intercept=-1.0))
    assert platt.slope == pytest.approx(0.5, abs=0.05)
    assert platt.intercept == pytest.approx(-1.0, abs=0.15)


def test_frauds_parted_perfectly_give_no_slope_without_end():
    platt = Platt.fit(np.array([-1.0] * 20 + [1.0] * 20), np.array([False] * 20 + [True] * 20))
    assert 1 < platt.slope < 20


def test_calibration_error_is_the_mean_distance_of_predicted_and_found():
    y = np.array([True] * 30 + [False] * 70)
    assert reliability(y, np.full(100, 0.3)).error == pytest.approx(0.0)
    assert reliability(y, np.full(100, 0.5)).error == pytest.approx(0.2)


def test_bins_part_all_rows_by_score():
    margin, y = drawn(5_000, 3)
    found = reliability(y, to_proba(margin))
    assert found.rows.sum() == 5_000
    assert (np.diff(found.predicted) > 0).all()
    assert found.predicted @ found.rows == pytest.approx(to_proba(margin).sum())
    assert found.found @ found.rows == pytest.approx(y.sum())
    # Frauds are few: bins of equally many rows would put them into the last.
    assert found.rows[0] > 10 * found.rows[-1]


def test_nothing_has_no_bins():
    assert len(reliability(np.empty(0, bool), np.empty(0)).rows) == 0


def test_both_ways_beat_none_on_later_days():
    fitted, later = drawn(20_000, 4, 0.5, -1.0), drawn(20_000, 5, 0.5, -1.0)
    found = compare(fitted, later, Platt.fit(*fitted))
    for way in ("platt", "isotonic"):
        assert found[way]["calibration_error"] < 0.2 * found["none"]["calibration_error"]
        assert found[way]["brier"] < found["none"]["brier"]
