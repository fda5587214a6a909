"""What is known of an event beside its customer: twelve features of it, and those that find fraud."""

from features.customer_features import CREDIT, DEBIT, WORDS, amount, count, distinct, ratio, share, time_since
from features.definitions import EVENT, Feature, Op, Where


def _transaction() -> list[Feature]:
    def value(name: str, category: str, field: str, unit: str, meaning: str, phrase: str) -> Feature:
        return Feature(
            name, f"transaction_{category}", Op.EVENT_VALUE, unit, meaning, field=field, phrase=phrase
        )

    return [
        value("amount", "basic", "amount", "currency", "Amount.", "amount of {value:.2f}"),
        value("is_credit", "basic", "is_credit", "flag", "1 where money comes in.", "money in|money out"),
        value("hour_of_day", "context", "hour", "h", "Hour of the day, UTC.", "at {value:.0f} h UTC"),
        value(
            "day_of_week", "context", "weekday", "day", "Day of the week, UTC; Monday is 0.", "on {weekday}"
        ),
        value("channel_code", "context", "channel", "code", "Channel.", "by {channel}"),
        value("category_code", "context", "category", "code", "Spend category.", "spent on {category}"),
        ratio(
            "amount_to_mean_90d",
            "transaction_pattern",
            "amount",
            "amount_mean_90d",
            "Amount over the customer's mean debit of 90 days.",
            "{value:.1f} times the usual payment",
        ),
        ratio(
            "amount_to_max_90d",
            "transaction_pattern",
            "amount",
            "amount_max_90d",
            "Amount over the customer's largest debit of 90 days.",
            "{value:.1f} times the largest payment of 90 days",
        ),
        value("type_code", "detail", "transaction_type", "code", "Transaction type.", "a {transaction_type}"),
        value(
            "card_present",
            "detail",
            "card_present",
            "flag",
            "1 where the card was there.",
            "card present|card not present",
        ),
        *_same_amount(),
    ]


def _same_amount() -> list[Feature]:
    """A refund where nobody says that it is one, a subscription, somebody who is charged twice."""
    same = tuple(Where(field, "==", EVENT) for field in ("merchant", "amount", "currency"))
    return [
        count(
            "same_amount",
            "transaction_detail",
            "Transactions of the same amount at the same merchant",
            "90d",
            *same,
            phrase="of the same amount at this merchant",
        ),
        time_since("same_amount", "transaction_detail", "the same amount at this merchant", *same),
    ]


def _velocity() -> list[Feature]:
    ecommerce, atm = Where("channel", "==", "ecommerce"), Where("channel", "==", "atm")
    return [
        *(
            count("txn", "velocity", "Transactions", window, phrase="transactions")
            for window in ("1m", "5m", "1h", "6h", "24h")
        ),
        *(count("debit", "velocity", "Debits", window, DEBIT, phrase="payments") for window in ("1h", "24h")),
        *(
            count(
                name, "velocity", f"Transactions by {text}", window, where, phrase=f"transactions by {text}"
            )
            for name, text, where in (("ecommerce", "e-commerce", ecommerce), ("atm", "cash machine", atm))
            for window in ("1h", "24h")
        ),
        count("credit", "velocity", "Credits", "24h", CREDIT, phrase="credits"),
        count(
            "same_merchant",
            "velocity",
            "Transactions at the same merchant",
            "24h",
            Where("merchant", "==", EVENT),
            phrase="at this merchant",
        ),
        *(
            amount(
                f"{name}_{window}",
                "velocity",
                op,
                f"{what} in the last {WORDS[window]}.",
                window,
                where,
                phrase=phrase,
            )
            for name, op, what, window, where, phrase in (
                ("amount_sum", Op.SUM, "Spent", "1h", DEBIT, "{value:.2f} spent in the last hour"),
                ("amount_sum", Op.SUM, "Spent", "24h", DEBIT, "{value:.2f} spent in the last 24h"),
                (
                    "amount_max",
                    Op.MAX,
                    "Largest debit",
                    "24h",
                    DEBIT,
                    "largest payment in 24h was {value:.2f}",
                ),
                (
                    "amount_min",
                    Op.MIN,
                    "Smallest debit",
                    "24h",
                    DEBIT,
                    "smallest payment in 24h was {value:.2f}",
                ),
                ("credit_sum", Op.SUM, "Money in", "24h", CREDIT, "{value:.2f} came in over 24h"),
            )
        ),
        *(
            distinct(field, "velocity", window)
            for field, windows in (
                ("merchant", ("1h", "24h")),
                ("counterparty", ("24h",)),
                ("device", ("24h",)),
                ("country", ("24h",)),
            )
            for window in windows
        ),
        ratio(
            "txn_count_1h_to_30d",
            "velocity",
            "txn_count_1h",
            "txn_count_30d",
            "Transactions of the last hour over the usual hour's.",
            "{value:.1f} times the usual hourly activity",
            scale=720.0,
        ),
    ]


def _novelty() -> list[Feature]:
    new = [
        Feature(
            f"{field}_is_new_90d",
            "novelty",
            Op.IS_NEW,
            "flag",
            f"1 where the {field} was not seen in the last 90 days; unknown where the event has none.",
            field=field,
            window="90d",
            phrase=f"first use of this {field}|known {field}",
        )
        for field in ("merchant", "device", "country", "counterparty", "category")
    ]
    return [
        *new,
        # Where somebody pays often, and where hardly ever: in a spree both were there before.
        count(
            "same_merchant",
            "novelty",
            "Transactions at the same merchant",
            "90d",
            Where("merchant", "==", EVENT),
            phrase="at this merchant",
        ),
        time_since("merchant", "novelty", "the last visit to this merchant", Where("merchant", "==", EVENT)),
        time_since("device", "novelty", "this device was last used", Where("device", "==", EVENT)),
        share("same_country", "novelty", "in this country", Where("country", "==", EVENT)),
    ]


def _anomaly() -> list[Feature]:
    def zscore(name: str, whose: str, window: str, *where: Where) -> Feature:
        return Feature(
            f"amount_zscore_{name}{window}",
            "anomaly",
            Op.ZSCORE,
            "std",
            f"Distance of the amount from the customer's own mean debit {whose}of {WORDS[window]}.",
            field="amount",
            window=window,
            where=(DEBIT, *where),
            phrase=f"amount is {{value:+.1f}} standard deviations from the customer's usual {whose}".rstrip(),
        )

    return [
        zscore("", "", "30d"),
        zscore("", "", "90d"),
        zscore("category_", "in this category ", "90d", Where("category", "==", EVENT)),
        Feature(
            "distance_from_last_km",
            "anomaly",
            Op.DISTANCE,
            "km",
            "Great-circle distance from the last transaction with a position.",
            window="90d",
            phrase="{value:.0f} km from the last transaction",
        ),
        Feature(
            "speed_from_last_kmh",
            "anomaly",
            Op.SPEED,
            "km/h",
            "Speed needed to travel from the last transaction with a position.",
            window="90d",
            phrase="{value:.0f} km/h needed to travel from the last transaction",
        ),
        Feature(
            "is_night",
            "anomaly",
            Op.EVENT_VALUE,
            "flag",
            "1 from 0 to 6 h UTC.",
            field="is_night",
            phrase="at night|by day",
        ),
    ]


TRANSACTION_FEATURES: tuple[Feature, ...] = (*_transaction(),)
FRAUD_FEATURES: tuple[Feature, ...] = (*_velocity(), *_novelty(), *_anomaly())
