from collections import Counter
from string import Formatter

from features.catalogue import FEATURE_NAMES, FEATURES, FEATURES_HASH
from features.customer_features import CUSTOMER_FEATURES
from features.definitions import EVENT_VALUES, Op, declaration_hash
from features.event_features import FRAUD_FEATURES, TRANSACTION_FEATURES
from models.churn import is_customer_feature


def test_catalogue_has_65_features_of_a_customer_in_seven_categories():
    assert Counter(f.category for f in CUSTOMER_FEATURES) == {
        "recency": 3,
        "monetary": 17,
        "frequency": 8,
        "behavioural": 7,
        "temporal": 6,
        "trend": 4,
        "category_spend": 20,
    }


def test_features_of_a_customer_are_known_without_an_event():
    assert all(map(is_customer_feature, CUSTOMER_FEATURES))
    assert not any(map(is_customer_feature, TRANSACTION_FEATURES))


def test_catalogue_has_twelve_features_of_a_transaction():
    assert Counter(f.category for f in TRANSACTION_FEATURES) == {
        "transaction_basic": 2,
        "transaction_context": 4,
        "transaction_pattern": 2,
        "transaction_detail": 4,
    }


def test_catalogue_has_what_finds_fraud():
    names = {f.name for f in FRAUD_FEATURES}
    for field in ("merchant", "device", "country", "counterparty"):
        assert f"{field}_is_new_90d" in names
    assert {"amount_zscore_30d", "distance_from_last_km", "speed_from_last_kmh"} <= names
    assert {f"txn_count_{w}" for w in ("1m", "5m", "1h", "6h", "24h")} <= names


def test_names_are_those_of_the_features_in_order():
    assert tuple(f.name for f in FEATURES) == FEATURE_NAMES
    assert declaration_hash(FEATURES) == FEATURES_HASH


def test_every_operation_and_event_value_is_used():
    # Declarations of one's own may want the oldest value of something.
    assert {f.op for f in FEATURES} == set(Op) - {Op.FIRST}
    assert {f.field for f in FEATURES if f.op is Op.EVENT_VALUE} == set(EVENT_VALUES)


def test_window_is_part_of_the_name():
    for feature in FEATURES:
        ending = f"_{feature.window}{'_before' if feature.ends else ''}"
        named = feature.window and feature.name.endswith(ending)
        assert named or feature.window in {None, "90d"}, feature.name


def test_every_feature_can_be_said_in_words():
    placeholders = {"value", "duration", "channel", "category", "transaction_type", "weekday"}
    for feature in FEATURES:
        assert feature.meaning.endswith("."), feature.name
        assert feature.phrase, feature.name
        used = {name for _, name, _, _ in Formatter().parse(feature.phrase) if name is not None}
        assert used <= placeholders, feature.name
