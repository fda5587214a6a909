"""Training rows, the model, and that sweep and backtest say the same."""

from dataclasses import replace

import numpy as np
import pytest

from features.catalogue import FEATURES
from features.definitions import EVENT, Op
from features.lifetime import GROWING_NAMES, LIFETIME_NAMES, SEASON_NAMES, customer_names, declared
from models.churn import (
    UNTOLD,
    ChurnRows,
    calibration_error,
    count_as_of,
    customers_as_of,
    default_cut_offs,
    end_of,
    is_customer_feature,
    train_churn,
)
from models.churn_backtest import backtest_churn, churn_report, every
from models.contest import churn_scores
from models.model_set import Models
from models.reasons import by_name, explain
from models.tree import TreeModel
from models.vectors import Rows
from schemas.errors import ModelError
from schemas.topics import CHURN_SCORES, TRANSACTIONS
from tests.scoring import CREATED_AT, DAY_MS, HORIZON_DAYS, START, at, events
from tests.streaming import Stream

START_MS = int(START.timestamp() * 1000)


def rows_of(transactions) -> Rows:
    chunk = sorted(transactions, key=lambda t: t.event_time_ms)
    n = len(chunk)
    return Rows(
        [t.transaction_id for t in chunk],
        [t.customer_id for t in chunk],
        events(chunk).records,
        np.zeros(n, dtype=np.int8),
        np.zeros(n, dtype=np.int64),
    )


def day(number: int) -> int:
    return START_MS + number * DAY_MS


#            day 0      10        20        30        40
#  stays      |x---x---x---x---x---x---x---x---x-------|
#  leaves     |x---x---x--------------------------------|
LOG = rows_of(
    [at(d + 0.5, customer_id="stays") for d in range(0, 40, 4)]
    + [at(d + 0.5, customer_id="leaves") for d in range(0, 12, 4)]
)


def outcome(cut_off: int, horizon: int, **options) -> dict[str, int]:
    log = replace(LOG, closed_ms=options.pop("closed_ms", {}))
    (found,) = customers_as_of(
        log, options.pop("engine"), [day(cut_off)], horizon_ms=horizon * DAY_MS, end_ms=end_of(LOG), **options
    )
    return dict(zip(found.customer_ids, found.churned.tolist(), strict=True))


def test_silence_over_the_horizon_is_churn(engine):
    assert outcome(10, 20, engine=engine) == {"stays": 0, "leaves": 1}


def test_a_horizon_that_is_not_over_says_nothing_of_anybody(engine):
    assert outcome(30, 20, engine=engine) == {"stays": UNTOLD, "leaves": UNTOLD}


def test_closed_accounts_have_left_and_are_not_looked_at_again(engine):
    closed = {"stays": day(15)}
    assert outcome(10, 20, engine=engine, closed_ms=closed)["stays"] == 1
    assert outcome(16, 10, engine=engine, closed_ms=closed) == {"leaves": 1}


def test_who_is_silent_for_long_is_left_out_of_training(engine):
    assert outcome(30, 5, engine=engine, silent_ms=15 * DAY_MS) == {"stays": 0}


def test_what_comes_after_a_cut_off_changes_no_row_of_it(engine):
    def rows(log):
        (found,) = customers_as_of(log, engine, [day(10)], horizon_ms=DAY_MS, end_ms=end_of(LOG))
        return found.X

    early = rows_of([at(d + 0.5, customer_id=c) for c in ("stays", "leaves") for d in range(0, 10, 4)])
    np.testing.assert_array_equal(rows(LOG), rows(early))


def test_of_many_customers_a_share_is_drawn_by_their_ids(engine):
    log = rows_of([at(0.5 + n / 1000, customer_id=f"c-{n}") for n in range(400)])

    def drawn(share):
        found = customers_as_of(log, engine, [day(2), day(3)], horizon_ms=1, end_ms=day(9), share=share)
        return [set(part.customer_ids) for part in found]

    everybody = {f"c-{n}" for n in range(400)}
    assert drawn(1.0) == [everybody, everybody]
    half = drawn(0.5)
    assert all(150 < len(part) < 250 for part in half)
    assert half[0] != half[1], "each cut-off draws anew"
    assert half == drawn(0.5)
    assert count_as_of(log, [day(0), day(1), day(3)]) == 800


def test_default_cut_offs_leave_the_horizon_before_the_end():
    cut_offs = default_cut_offs(day(0), day(100), 30 * DAY_MS)
    assert cut_offs[-1] == day(70)
    assert cut_offs[0] >= day(30)
    assert set(np.diff(cut_offs)) == {7 * DAY_MS}
    assert default_cut_offs(day(0), day(20), 30 * DAY_MS) == []
    assert len(default_cut_offs(day(0), day(4000), 30 * DAY_MS)) <= 41


def test_cut_offs_of_a_backtest_begin_at_its_start():
    assert every(day(3), day(3), 7 * DAY_MS) == [day(3)]
    assert every(day(3), day(17), 7 * DAY_MS) == [day(3), day(10), day(17)]


def test_card_says_how_held_out_customers_were_foreseen(models, training_data):
    card = models.churn.card
    assert card.horizon_days == HORIZON_DAYS
    assert card.data["rows"] == card.metrics["rows"] == len(training_data.churn.churned)
    assert card.metrics["roc_auc"] > 0.8
    assert card.metrics["calibration_error"] < 0.05
    assert set(card.thresholds) == {"medium", "high"}


def test_drivers_sum_to_the_log_odds_whatever_is_blended(models, training_data):
    X = training_data.churn_X[:200].astype(np.float64)
    shares = models.churn.contributions(X)
    np.testing.assert_allclose(shares.sum(axis=1), models.churn.log_odds(X), atol=1e-4)
    found = explain(models.churn, X, by_name(declared(models.engine)))
    assert any("silent" in driver["text"] or "active on" in driver["text"] for row in found for driver in row)


@pytest.mark.parametrize(("left", "counted"), [(1, "and 0 negative"), (0, "has 0 positive")])
def test_too_few_who_left_or_stayed_are_too_few(training_data, engine, left, counted):
    rows = training_data.churn
    with pytest.raises(ModelError, match=counted):
        train_churn(replace(rows, churned=np.full_like(rows.churned, left)), engine, created_at=CREATED_AT)


def test_card_of_churn_says_that_value_at_risk_mixes_currencies(training_data, engine):
    rows = replace(training_data.churn, currencies={"GBP": 3, "EUR": 1})
    card, _ = train_churn(rows, engine, created_at=CREATED_AT)
    assert card.data["currencies"] == {"GBP": 3, "EUR": 1}
    assert "2 currencies (GBP 75 %, EUR 25 %)" in card.metrics["currencies"]
    assert "value at risk" in card.metrics["currencies"]


def test_rows_without_an_outcome_teach_nothing(training_data, engine):
    rows = training_data.churn
    half = replace(
        rows, churned=np.where(np.arange(len(rows.churned)) % 2, rows.churned, UNTOLD).astype(np.int8)
    )
    told = half.told()
    assert isinstance(told, ChurnRows)
    assert len(told.customer_ids) == len(told.X) == len(rows.churned) // 2


def test_calibration_error_is_the_distance_of_what_was_said_from_what_was_found():
    y = np.array([True, True, False, False])
    assert calibration_error(y, np.array([1.0, 1.0, 0.0, 0.0])) == 0.0
    assert calibration_error(y, np.full(4, 0.9)) == pytest.approx(0.4)


async def test_sweep_of_a_log_says_what_the_backtest_of_the_same_log_says(models: Models):
    """Two quiet customers with different lives, and a busy one whose events move the clock."""
    sent = [
        *(at(d + 0.3, customer_id="quiet", amount="40.00") for d in (0, 3, 9, 14)),
        *(at(d + 0.4, customer_id="once") for d in (2,)),
        *(at(d + 0.6, customer_id="busy") for d in range(48)),
    ]
    sent.sort(key=lambda t: t.event_time_ms)
    stream = Stream(models)
    for transaction in sent:
        stream.kafka.put(TRANSACTIONS.name, 0, transaction.model_dump(mode="json", exclude_none=True))
    await stream.start()
    await stream.run()
    swept = {
        (m["customer_id"], m["as_of"]): m
        for m in stream.kafka.messages(CHURN_SCORES.name)
        if m["trigger"] == "sweep"
    }
    assert len(swept) > 50
    cut_offs = [day(n) for n in range(1, 48)]
    compared = 0
    for block in backtest_churn(rows_of(sent), models.churn, models.engine, cut_offs):
        for row, customer_id in enumerate(block.customer_ids):
            moment = np.datetime_as_string(np.datetime64(block.as_of_ms, "ms")) + "Z"
            message = swept.pop((customer_id, moment), None)
            if message is not None:
                assert message["churn_probability"] == block.proba[row]
                assert message["value_at_risk"] == round(block.value_at_risk[row], 2)
                assert message["drivers"] == list(block.drivers.get(row, ()))
                compared += 1
    assert not swept
    assert compared > 50


def test_report_says_how_many_of_the_top_tenth_left(models: Models):
    card = replace(models.churn.card, horizon_days=20)
    model = TreeModel(card, models.churn.trees, customer_names(models.engine))
    blocks = list(backtest_churn(LOG, model, models.engine, [day(10), day(30)]))
    report = churn_report(blocks, resamples=20)
    assert (report.customers, report.left, report.untold) == (2, 1, 2)
    assert report.top_customers == 1
    assert set(report.document()["figures"]) >= {"roc_auc", "calibration_error", "average_precision", "lift"}
    assert report.document()["notes"] == []


def test_report_over_several_currencies_says_that_value_at_risk_mixes_them(models: Models):
    blocks = list(backtest_churn(LOG, models.churn, models.engine, [day(10)]))
    (note,) = churn_report(blocks, resamples=2, currencies={"EUR": 3, "USD": 1}).document()["notes"]
    assert "2 currencies (EUR 75 %, USD 25 %) and are not converted: value at risk" in note


def test_who_is_long_silent_is_scored_and_in_no_value_at_risk(models: Models):
    sent = [
        *(at(d, customer_id="gone") for d in (0, 1, 2)),
        *(at(d, customer_id="left") for d in (0, 60, 99)),
        *(at(d + 0.1, customer_id="here") for d in range(0, 200, 2)),
    ]
    sent.sort(key=lambda t: t.event_time_ms)
    card = replace(models.churn.card, horizon_days=20)
    model = TreeModel(card, models.churn.trees, customer_names(models.engine))
    # 90 days at least: at 91 nobody is gone, at 93 one is.
    blocks = list(backtest_churn(rows_of(sent), model, models.engine, [day(91), day(93), day(110)]))
    gone = [
        [c for c, is_gone in zip(b.customer_ids, b.gone.tolist(), strict=True) if is_gone] for b in blocks
    ]
    assert gone == [[], ["gone"], ["gone"]]
    report = churn_report(blocks, resamples=5)
    assert (report.customers, report.gone) == (9, 2)
    newest = dict(zip(blocks[-1].customer_ids, blocks[-1].value_at_risk.tolist(), strict=True))
    assert report.value_at_risk == pytest.approx(newest["left"] + newest["here"])
    assert sum(band["customers"] for band in report.bands) == 2
    assert report.present != report.figures
    scores = churn_scores(rows_of(sent), model, models.engine, [day(93)])
    assert len(scores.y) == 2


def test_churn_reads_what_is_known_without_an_event(models, training_data):
    customer = np.array([is_customer_feature(f) for f in models.engine.features])
    known = ~np.isnan(training_data.churn_X[:, : len(customer)])
    assert not known[:, ~customer].any(), "a lookup knows no value that compares with an event"
    assert known[:, customer].any(axis=0).all()
    said_by_silence = {"time_since_last_s", "time_since_debit_s"}
    assert models.churn.card.feature_names == (
        *(n for n in np.array(models.engine.names)[customer].tolist() if n not in said_by_silence),
        *(name for name in LIFETIME_NAMES if name not in SEASON_NAMES),
    )


@pytest.mark.parametrize(("days", "read"), [(533, set()), (540, {"year_cosine", "year_sine"})])
def test_the_time_of_year_is_read_where_more_than_a_year_was_seen(training_data, engine, days, read):
    rows = training_data.churn
    spread = np.linspace(day(0), day(days), len(rows.as_of_ms)).astype(np.int64)
    card, _ = train_churn(replace(rows, as_of_ms=spread), engine, created_at=CREATED_AT)
    assert set(card.feature_names) & set(SEASON_NAMES) == read
    assert set(card.reference["features"]) == set(card.feature_names) - read - set(GROWING_NAMES), (
        "any day has drifted from a year, and any later one from what only grows"
    )


def test_what_compares_with_an_event_is_not_a_customer_feature():
    compared = {f.name for f in FEATURES if any(w.value == EVENT for w in f.where)}
    assert compared
    assert not {f.name for f in FEATURES if is_customer_feature(f)} & compared
    assert not any(is_customer_feature(f) for f in FEATURES if f.op is Op.ZSCORE)
