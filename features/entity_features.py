"""The catalogue of what all customers' events at a merchant, on a device or with a counterparty say."""

from typing import Final

from features.entities import ENTITIES, EntityFeature, EntityOp, check
from schemas.errors import ConfigError


def _merchant() -> list[EntityFeature]:
    kinds = (
        (EntityOp.COUNT, "txn_count", "events", "Transactions", "{value:.0f} transactions at this merchant"),
        (
            EntityOp.FRAUD_COUNT,
            "fraud_count",
            "events",
            "Confirmed frauds",
            "{value:.0f} confirmed frauds at this merchant",
        ),
        (
            EntityOp.FRAUD_SHARE,
            "fraud_share",
            "ratio",
            "Confirmed frauds over transactions",
            "{value:.1%} of this merchant's transactions were fraud",
        ),
    )
    return [
        EntityFeature(
            f"merchant_{name}_{window}",
            "merchant",
            op,
            window,
            "7d",
            unit,
            f"{text} of all customers at the merchant in {window}, ending 7 days before the event's hour.",
            f"{phrase} in {window}, a week ago",
        )
        for op, name, unit, text, phrase in kinds
        for window in ("1d", "7d", "30d", "82d", *(("365d",) if op is EntityOp.FRAUD_COUNT else ()))
    ] + [
        EntityFeature(
            f"merchant_{name}_{window}",
            "merchant",
            op,
            window,
            "7d",
            unit,
            f"{text} at the merchant in {window}, "
            "ending 7 days before the event's hour; unknown without one.",
            phrase,
        )
        for window, op, name, unit, text, phrase in (
            (
                "30d",
                EntityOp.SINCE_FRAUD,
                "time_since_fraud_s",
                "s",
                "Time since the hour of the newest confirmed fraud",
                "the last confirmed fraud at this merchant was {duration} ago",
            ),
            (
                "30d",
                EntityOp.FRAUD_RUN,
                "fraud_run_s",
                "s",
                "Time since the first of the hours without a genuine transaction that end with the newest "
                "confirmed fraud",
                "all transactions at this merchant were fraud from {duration} ago on",
            ),
            (
                "30d",
                EntityOp.GENUINE_SINCE,
                "txn_since_fraud",
                "events",
                "Transactions in later hours than the newest confirmed fraud",
                "{value:.0f} transactions at this merchant since its last confirmed fraud, a week ago",
            ),
            (
                "82d",
                EntityOp.SINCE_FRAUD,
                "time_since_fraud_s",
                "s",
                "Time since the hour of the newest confirmed fraud",
                "the last confirmed fraud at this merchant was {duration} ago",
            ),
            (
                "365d",
                EntityOp.SINCE_FRAUD,
                "time_since_fraud_s",
                "s",
                "Time since the hour of the newest confirmed fraud",
                "the last confirmed fraud at this merchant was {duration} ago",
            ),
        )
    ]


def _recent_at_merchant() -> list[EntityFeature]:
    # What needs no label, and frauds as soon as they are known, need no delay but that of other partitions.
    # With windows that end a week ago alone, a new way of fraud is seen a week late.
    def feature(
        name: str, op: EntityOp, window: str, unit: str, text: str, phrase: str, unknown: str = ""
    ) -> EntityFeature:
        meaning = f"{text} at the merchant in {window}, ending an hour before the event's hour{unknown}."
        return EntityFeature(f"merchant_{name}_{window}", "merchant", op, window, "1h", unit, meaning, phrase)

    return [
        *(
            feature(
                "recent_txn_count",
                EntityOp.COUNT,
                window,
                "events",
                "Transactions of all customers",
                f"{{value:.0f}} transactions at this merchant in {window}",
            )
            for window in ("1h", "1d", "30d")
        ),
        *(
            feature(
                "known_fraud_count",
                EntityOp.FRAUD_COUNT,
                window,
                "events",
                "Frauds known by now",
                f"{{value:.0f}} known frauds at this merchant in {window}",
            )
            for window in ("7d", "30d", "82d")
        ),
        *(
            feature(
                "known_fraud_share",
                EntityOp.FRAUD_SHARE,
                window,
                "ratio",
                "Frauds known by now over transactions",
                f"{{value:.1%}} of this merchant's transactions in {window} are known to be fraud",
                "; unknown where there was none",
            )
            for window in ("30d", "82d")
        ),
        feature(
            "amount_ratio",
            EntityOp.AMOUNT_RATIO,
            "82d",
            "ratio",
            "Amount over the geometric mean of all customers' amounts",
            "{value:.2f} times the usual amount at this merchant",
            "; unknown without one",
        ),
        feature(
            "amount_zscore",
            EntityOp.AMOUNT_ZSCORE,
            "82d",
            "std",
            "Distance of the amount's logarithm from the mean of those of all customers",
            "amount is {value:+.1f} standard deviations from what is usual at this merchant",
            "; unknown where all are equal",
        ),
    ]


def _device() -> list[EntityFeature]:
    customers = [
        EntityFeature(
            f"device_customers_{window}",
            "device",
            EntityOp.CUSTOMERS,
            window,
            "1h",
            "customers",
            f"Customers who used the device in {window}, ending an hour before the event's hour.",
            f"{{value:.0f}} customers used this device in {window}",
        )
        for window in ("1d", "7d", "30d")
    ]
    frauds = EntityFeature(
        "device_fraud_count_30d",
        "device",
        EntityOp.FRAUD_COUNT,
        "30d",
        "1h",
        "events",
        "Confirmed frauds of all customers on the device in 30d, ending an hour before the event's hour.",
        "{value:.0f} confirmed frauds on this device in 30d",
    )
    return [*customers, frauds]


def _counterparty() -> list[EntityFeature]:
    def feature(name: str, op: EntityOp, window: str, unit: str, text: str, phrase: str) -> EntityFeature:
        name, meaning = (
            f"counterparty_{name}_{window}",
            f"{text} in {window}, ending an hour before the event's hour.",
        )
        return EntityFeature(name, "counterparty", op, window, "1h", unit, meaning, phrase)

    return [
        *(
            feature(
                "txn_count",
                EntityOp.COUNT,
                window,
                "events",
                "Transactions of all customers with the counterparty",
                f"{{value:.0f}} transactions with this counterparty in {window}",
            )
            for window in ("1d", "7d", "30d")
        ),
        *(
            feature(
                "fraud_count",
                EntityOp.FRAUD_COUNT,
                window,
                "events",
                "Confirmed frauds of all customers with the counterparty",
                f"{{value:.0f}} confirmed frauds with this counterparty in {window}",
            )
            for window in ("30d", "365d")
        ),
        feature(
            "time_since_fraud_s",
            EntityOp.SINCE_FRAUD,
            "365d",
            "s",
            "Time since the hour of the newest confirmed fraud with the counterparty, unknown without one,",
            "the last confirmed fraud with this counterparty was {duration} ago",
        ),
    ]


ENTITY_FEATURES: Final = (*_merchant(), *_recent_at_merchant(), *_device(), *_counterparty())
check(ENTITY_FEATURES)


def entity_features(names: str) -> tuple[EntityFeature, ...]:
    """The declarations of chosen entities.

    Args:
        names: Entities with commas between them; nothing for none.

    Raises:
        ConfigError: There is no such entity.

    >>> len(entity_features("device")), entity_features("")
    (4, ())
    """
    chosen = {name.strip() for name in names.split(",") if name.strip()}
    unknown = sorted(chosen - {entity.name for entity in ENTITIES})
    if unknown:
        known = ", ".join(entity.name for entity in ENTITIES)
        raise ConfigError(
            f"there is no entity {', '.join(unknown)}: choose from {known}, with commas between"
        )
    return tuple(feature for feature in ENTITY_FEATURES if feature.entity in chosen)
