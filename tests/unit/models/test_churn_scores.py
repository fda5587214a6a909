from dataclasses import replace

import numpy as np
import pytest

from models.churn import customers_as_of
from models.churn_scores import ACTIONS, BANDS, score_churn, yearly_spend
from models.log_rows import rows_of_messages
from models.pipeline import score_chunk
from tests.scoring import DAY_MS, START_DAY, arena_of, at, events, score_in_chunks


def test_churn_bands_follow_thresholds_and_remember_the_band_before(whole, eager):
    thresholds = eager.churn.card.thresholds
    for results in whole.churn.values():
        before = -1
        for r in results:
            band = (r.proba >= thresholds["medium"]) + (r.proba >= thresholds["high"])
            assert (r.band, r.band_before) == (band, before)
            assert bool(r.drivers) == (r.band > 0)
            assert r.value_at_risk >= 0
            before = r.band
    assert len(BANDS) == len(ACTIONS) == 3


def test_value_at_risk_is_the_probability_of_a_year_of_debits(eager):
    chunk = [at(d, amount="90.00") for d in range(10)]
    (*_, last) = score_in_chunks(chunk, [], eager).churn["c-1"]
    # As of just after the last event, so all ten are in the window: nine days confirm the pace.
    a_year = 2 * 900 + 9 / 13 * (900 * 365 / 90 - 2 * 900)
    assert last.value_at_risk == pytest.approx(last.proba * a_year)


def spend(engine, *, as_of_day, days, amount="100.00"):
    rows = rows_of_messages([at(day, amount=amount) for day in days], engine)
    (found,) = customers_as_of(rows, engine, [(START_DAY + as_of_day) * DAY_MS], horizon_ms=1, end_ms=0)
    return float(yearly_spend(found.X.astype(np.float64), engine)[0])


@pytest.mark.parametrize("as_of_day", [1, 20, 89, 91, 180])
def test_a_single_purchase_counts_twice_a_year_and_not_four_times(engine, as_of_day):
    assert spend(engine, as_of_day=as_of_day, days=[0.5]) == pytest.approx(200.0)


def test_a_single_purchase_of_long_ago_counts_over_the_whole_life(engine):
    assert spend(engine, as_of_day=730, days=[0]) == pytest.approx(50.0)


def test_the_pace_of_90_days_counts_the_more_the_more_days_confirm_it(engine):
    paces = [
        spend(engine, as_of_day=91, days=[2 + n * 88 / most for n in range(most)]) / most
        for most in (1, 2, 5, 20, 88)
    ]
    assert paces == sorted(paces)
    assert paces[0] == pytest.approx(200.0)
    # Half of each: four days behind the first.
    assert paces[2] == pytest.approx(100 * (2 + 365 / 90) / 2)
    assert paces[-1] == pytest.approx(100 * 365 / 90, rel=0.03)


def test_one_purchase_in_90_days_does_not_hide_a_life_of_few(engine):
    # Once a year for three years, the last time a week ago.
    assert spend(engine, as_of_day=737, days=[0, 365, 730]) == pytest.approx(300 / (737 / 365), rel=0.01)


def test_churn_of_a_quiet_customer_updates_day_and_band_only(eager):
    arena = arena_of("c-1")
    score_chunk(arena, events([at(d) for d in range(20)]), eager)
    slot = arena.slot("c-1")
    before = arena.totals(slot)
    as_of = (START_DAY + 60) * DAY_MS
    (result,) = score_churn(arena, [("c-1", slot, as_of)], eager)
    after = arena.totals(slot)
    assert after == replace(before, churn_day=START_DAY + 60, churn_band=result.band)
    assert result.band_before == before.churn_band
    assert result.proba > 0.5
    assert score_churn(arena, [], eager) == []
