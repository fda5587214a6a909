from string import Formatter

from features.catalogue import FEATURE_NAMES, FEATURES, FEATURES_HASH
from features.definitions import EVENT_VALUES, Op, declaration_hash


def test_catalogue_has_at_least_the_75_features_promised():
    assert len(FEATURES) >= 75
    assert sum(f.category == "category_spend" for f in FEATURES) == 20
    assert {f"txn_count_{w}" for w in ("1m", "5m", "1h", "6h", "24h")} <= set(FEATURE_NAMES)


def test_names_are_those_of_the_features_in_order():
    assert tuple(f.name for f in FEATURES) == FEATURE_NAMES
    assert declaration_hash(FEATURES) == FEATURES_HASH


def test_every_operation_and_event_value_is_used():
    assert {f.op for f in FEATURES} == set(Op)
    assert {f.field for f in FEATURES if f.op is Op.EVENT_VALUE} == set(EVENT_VALUES)


def test_window_is_part_of_the_name():
    for feature in FEATURES:
        named = feature.window and feature.name.endswith(f"_{feature.window}")
        assert named or feature.window in {None, "90d"}, feature.name


def test_every_feature_can_be_said_in_words():
    placeholders = {"value", "duration", "channel", "category", "transaction_type", "weekday"}
    for feature in FEATURES:
        assert feature.meaning.endswith("."), feature.name
        assert feature.phrase, feature.name
        used = {name for _, name, _, _ in Formatter().parse(feature.phrase) if name is not None}
        assert used <= placeholders, feature.name
