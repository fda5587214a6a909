"""FEATURES: the declarations that everything reads, and the order of the columns."""

from features.customer_features import CUSTOMER_FEATURES
from features.definitions import Feature, check, declaration_hash
from features.event_features import FRAUD_FEATURES, TRANSACTION_FEATURES

FEATURES: tuple[Feature, ...] = (*CUSTOMER_FEATURES, *TRANSACTION_FEATURES, *FRAUD_FEATURES)
check(FEATURES)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
FEATURES_HASH = declaration_hash(FEATURES)
