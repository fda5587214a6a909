from dataclasses import replace

import pytest

from models.churn_scores import ACTIONS, BANDS, score_churn
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
    # As of just after the last event, so all ten are in the window.
    assert last.value_at_risk == pytest.approx(last.proba * 900 * 365 / 90)


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
