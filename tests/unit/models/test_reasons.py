import math
import re

import numpy as np
import pytest

from features.catalogue import FEATURES
from features.codes import CATEGORIES, CHANNELS, TRANSACTION_TYPES
from features.definitions import Feature, Op
from features.entity_features import ENTITY_FEATURES
from features.lifetime import LIFETIME
from models.reasons import by_name, duration, explain, in_words, reason
from schemas.score import Reason

NAN = float("nan")
DECLARED = by_name(FEATURES)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
def test_every_value_of_a_feature_has_words(feature):
    for value in (NAN, 0.0, 1.0, 0.5, 7.4, 20.0, 21.0, 90_000.0, -3.2, 1e15, -1e15):
        text = in_words(feature, value)
        assert text == text.strip()
        assert len(text) > 4
        assert not set("{}|") & set(text)
        assert "nan" not in text.lower()
        assert text.endswith(": unknown") or not math.isnan(value)
        Reason.model_validate(reason(feature, value, 0.1))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("debit_count_1h", 9.0, "9 payments in the last hour"),
        ("amount_zscore_90d", 3.26, "amount is +3.3 standard deviations from the customer's usual"),
        ("device_is_new_90d", 1.0, "first use of this device"),
        ("device_is_new_90d", 0.0, "known device"),
        ("device_is_new_90d", NAN, "first use of this device: unknown"),
        ("time_since_last_s", 7200.0, "2 hours since the last transaction"),
        ("time_since_last_s", NAN, "time since the last transaction: unknown"),
        ("amount_mean_30d", NAN, "mean debit in the last 30 days: unknown"),
        ("day_of_week", 6.0, "on Sunday"),
        ("is_night", 0.0, "by day"),
        ("night_share_30d", 0.25, "25% of transactions at night (0 to 6 h UTC)"),
    ],
)
def test_words_of_some_features(name, value, text):
    assert in_words(DECLARED[name], value) == text


@pytest.mark.parametrize(
    ("name", "words"),
    [("channel_code", CHANNELS), ("category_code", CATEGORIES), ("type_code", TRANSACTION_TYPES)],
)
def test_codes_are_written_as_what_they_stand_for(name, words):
    for code, word in enumerate(words, start=1):
        assert in_words(DECLARED[name], float(code)).endswith(f" {word}")
    for code in (0.0, len(words) + 1.0):
        assert in_words(DECLARED[name], code).endswith(": unknown")


def test_a_feature_without_a_phrase_is_named():
    feature = Feature("my_count_1h", "own", Op.COUNT, "events", "Mine; and more.", window="1h")
    assert in_words(feature, 2.0) == "my_count_1h is 2"
    assert in_words(feature, NAN) == "mine: unknown"


def test_an_unknown_value_is_null():
    given = reason(DECLARED["amount_mean_30d"], NAN, 0.12345678)
    assert given["value"] is None
    assert given["contribution"] == 0.123457
    assert reason(DECLARED["amount_mean_30d"], 3.5, -1.0)["value"] == 3.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 seconds"),
        (0.4, "0 seconds"),
        (1.4, "1 second"),
        (89.0, "89 seconds"),
        (90.0, "2 minutes"),
        (5399.0, "90 minutes"),
        (5400.0, "2 hours"),
        (129_599.0, "36 hours"),
        (7_776_000.0, "90 days"),
    ],
)
def test_durations_are_in_the_unit_a_person_would_use(seconds, text):
    assert duration(seconds) == text


@pytest.fixture(scope="module")
def suspicious(models, training_data):
    """The 200 highest scores, and 50 others."""
    X = training_data.X.astype(np.float64)
    order = np.argsort(models.fraud.log_odds(X), kind="stable")
    return X[np.concatenate([order[-200:], order[:50]])]


def test_reasons_are_the_strongest_that_raise_the_score(models, suspicious):
    names = models.fraud.card.feature_names
    shares = models.fraud.contributions(suspicious)
    explained = explain(models.fraud, suspicious, DECLARED)
    assert len(explained) == len(suspicious)
    for row, share, reasons in zip(suspicious, shares, explained, strict=True):
        given = [r["contribution"] for r in reasons]
        assert given == sorted(given, reverse=True)
        assert given == np.round(sorted(share[:-1][share[:-1] > 0], reverse=True)[:4], 6).tolist()
        for r in reasons:
            value = row[models.engine.names.index(r["feature"])]
            np.testing.assert_array_equal(NAN if r["value"] is None else r["value"], value)
            assert r["contribution"] == round(share[names.index(r["feature"])], 6)
    assert all(len(reasons) == 4 for reasons in explained[:200])


def test_reasons_of_both_directions_are_the_largest(models, suspicious):
    shares = models.fraud.contributions(suspicious)[:, :-1]
    explained = explain(models.fraud, suspicious, DECLARED, most=3, sign=0)
    for share, reasons in zip(shares, explained, strict=True):
        assert len(reasons) == 3
        largest = np.sort(np.abs(share))[::-1][:3]
        np.testing.assert_allclose([abs(r["contribution"]) for r in reasons], largest, atol=1e-6)
    assert any(r["contribution"] < 0 for reasons in explained for r in reasons)


def test_reasons_against_a_score_are_the_strongest_that_lower_it(models, suspicious):
    shares = models.fraud.contributions(suspicious)[:, :-1]
    explained = explain(models.fraud, suspicious, DECLARED, sign=-1)
    for share, reasons in zip(shares, explained, strict=True):
        given = [r["contribution"] for r in reasons]
        assert given == np.round(sorted(share[share < 0])[:4], 6).tolist()
    assert any(explained)


def test_no_rows_have_no_reasons(models, suspicious):
    assert explain(models.fraud, suspicious[:0], DECLARED) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("country_distinct_30d", 2.0, "2 different countries in the last 30 days"),
        ("counterparty_distinct_24h", 0.0, "0 different counterparties in the last 24 hours"),
        ("atm_count_24h", 1.0, "1 transaction by cash machine in the last 24 hours"),
        ("amount_to_max_90d", 0.04, "less than 0.1 times the largest payment of 90 days"),
        ("amount_to_max_90d", 0.06, "0.1 times the largest payment of 90 days"),
    ],
)
def test_counts_and_small_shares_are_in_plain_words(name, value, words):
    assert in_words(by_name(FEATURES)[name], value) == words


ALL = by_name((*FEATURES, *ENTITY_FEATURES, *LIFETIME))


@pytest.mark.parametrize(
    ("name", "none", "one", "two"),
    [
        (
            "txn_count_7d",
            "0 transactions in the last 7 days",
            "1 transaction in the last 7 days",
            "2 transactions in the last 7 days",
        ),
        (
            "debit_count_30d",
            "0 payments in the last 30 days",
            "1 payment in the last 30 days",
            "2 payments in the last 30 days",
        ),
        ("credit_count_24h", "0 credits in", "1 credit in", "2 credits in"),
        ("merchant_distinct_1h", "0 different merchants", "1 different merchant in", "2 different merchants"),
        ("country_distinct_24h", "0 different countries", "1 different country in", "2 different countries"),
        ("category_distinct_30d", "0 different categor", "1 different category in", "2 different categories"),
        ("counterparty_distinct_30d", "0 different c", "1 different counterparty in", "2 different counterp"),
        ("txn_count_ever", "0 transactions ever", "1 transaction ever", "2 transactions ever"),
        ("active_days_ever", "active on 0 days ever", "active on 1 day ever", "active on 2 days ever"),
        (
            "active_days_30d",
            "active on 0 of the last 30 days",
            "active on 1 of the last 30 days",
            "active on",
        ),
        ("device_customers_7d", "0 customers used", "1 customer used", "2 customers used"),
        ("merchant_fraud_count_30d", "0 confirmed frauds", "1 confirmed fraud at", "2 confirmed frauds at"),
        (
            "merchant_txn_since_fraud_30d",
            "0 transactions at this merchant since its last confirmed fraud",
            "1 transaction at this merchant since its last confirmed fraud",
            "2 transactions at this merchant since its last confirmed fraud",
        ),
        ("same_merchant_count_24h", "0 at this merchant", "1 at this merchant", "2 at this merchant"),
        (
            "txn_count_1h_to_30d",
            "less than 0.1 times the usual",
            "1.0 times the usual",
            "2.0 times the usual",
        ),
    ],
)
def test_a_count_of_one_is_in_the_singular(name, none, one, two):
    for value, words in zip((0.0, 1.0, 2.0), (none, one, two), strict=True):
        assert in_words(ALL[name], value).startswith(words)


def test_no_declared_feature_counts_one_in_the_plural():
    for feature in ALL.values():
        for word in re.findall(r"\b1 (?:different |confirmed |known )?(\w+)", in_words(feature, 1.0)):
            assert not word.endswith("s"), feature.name


def test_a_banks_own_words_are_in_the_singular_too():
    phrase = "{value:.0f} cash withdrawals at night in 30d"
    feature = Feature("mine", "own", Op.COUNT, "events", "Mine.", window="30d", phrase=phrase)
    assert in_words(feature, 1.0) == "1 cash withdrawal at night in 30d"
    assert in_words(feature, 1.6) == "2 cash withdrawals at night in 30d"
