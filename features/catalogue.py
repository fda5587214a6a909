"""FEATURES: the declarations that everything reads, and the order of the columns."""

from features.codes import CATEGORIES
from features.definitions import EVENT, Feature, Op, Where, check, declaration_hash

_DEBIT = Where("direction", "==", "debit")
_CREDIT = Where("direction", "==", "credit")


def _velocity() -> list[Feature]:
    words = {"1m": "minute", "5m": "5 minutes", "1h": "hour", "6h": "6 hours", "24h": "24 hours"}
    words |= {"7d": "7 days", "30d": "30 days", "90d": "90 days"}
    counts = [
        Feature(
            f"txn_count_{w}",
            "velocity",
            Op.COUNT,
            "events",
            f"Transactions in the last {text}.",
            window=w,
            phrase=f"{{value:.0f}} transactions in the last {text}",
        )
        for w, text in words.items()
    ]
    debits = [
        Feature(
            f"debit_count_{w}",
            "velocity",
            Op.COUNT,
            "events",
            f"Debits in the last {words[w]}.",
            window=w,
            where=(_DEBIT,),
            phrase=f"{{value:.0f}} payments in the last {words[w]}",
        )
        for w in ("1h", "24h", "30d")
    ]
    channels = [
        Feature(
            f"{channel}_count_{w}",
            "velocity",
            Op.COUNT,
            "events",
            f"Transactions by {text} in the last {words[w]}.",
            window=w,
            where=(Where("channel", "==", channel),),
            phrase=f"{{value:.0f}} by {text} in the last {words[w]}",
        )
        for channel, text in (("ecommerce", "e-commerce"), ("atm", "cash machine"))
        for w in ("1h", "24h")
    ]
    same = Feature(
        "same_merchant_count_24h",
        "velocity",
        Op.COUNT,
        "events",
        "Transactions at the same merchant in the last 24 hours.",
        window="24h",
        where=(Where("merchant", "==", EVENT),),
        phrase="{value:.0f} at this merchant in the last 24 hours",
    )
    return [*counts, *debits, *channels, same]


def _amounts() -> list[Feature]:
    statistics = (
        (Op.SUM, "sum", "Spent", ("1h", "24h", "7d", "30d", "90d"), "{value:.2f} spent in the last {w}"),
        (Op.MEAN, "mean", "Mean debit", ("7d", "30d", "90d"), "usual payment of {value:.2f} over {w}"),
        (
            Op.STD,
            "std",
            "Standard deviation of debits",
            ("30d", "90d"),
            "payments vary by {value:.2f} over {w}",
        ),
        (Op.MAX, "max", "Largest debit", ("24h", "30d", "90d"), "largest payment in {w} was {value:.2f}"),
        (Op.MIN, "min", "Smallest debit", ("24h", "30d"), "smallest payment in {w} was {value:.2f}"),
    )
    debits = [
        Feature(
            f"amount_{name}_{w}",
            "amount",
            op,
            "currency",
            f"{text} in the last {w}.",
            field="amount",
            window=w,
            where=(_DEBIT,),
            phrase=phrase.replace("{w}", w),
        )
        for op, name, text, windows, phrase in statistics
        for w in windows
    ]
    credits = [
        Feature(
            f"credit_{name}_{w}",
            "amount",
            op,
            unit,
            f"{text} in the last {w}.",
            field="amount" if op is Op.SUM else None,
            window=w,
            where=(_CREDIT,),
            phrase=f"{{value:.{digits}f}} {words} in {w}",
        )
        for op, name, unit, text, words, digits in (
            (Op.SUM, "sum", "currency", "Money in", "came in", 2),
            (Op.COUNT, "count", "events", "Credits", "credits", 0),
        )
        for w in ("24h", "30d", "90d")
    ]
    zscores = [
        Feature(
            f"amount_zscore_{w}",
            "amount",
            Op.ZSCORE,
            "std",
            f"Distance of the amount from the customer's own mean debit of {w}.",
            field="amount",
            window=w,
            where=(_DEBIT,),
            phrase="amount is {value:+.1f} standard deviations from the customer's usual",
        )
        for w in ("30d", "90d")
    ]
    return [*debits, *credits, *zscores]


def _recency() -> list[Feature]:
    def since(name: str, text: str, *where: Where) -> Feature:
        return Feature(
            name,
            "recency",
            Op.TIME_SINCE,
            "s",
            f"Time since {text}; unknown where there is none in 90 days.",
            window="90d",
            where=where,
            phrase=f"{{duration}} since {text}",
        )

    return [
        since("time_since_last_s", "the last transaction"),
        since("time_since_debit_s", "the last payment", _DEBIT),
        since("time_since_credit_s", "money last came in", _CREDIT),
        since("time_since_salary_s", "the last salary", Where("transaction_type", "==", "salary")),
        since("time_since_merchant_s", "the last visit to this merchant", Where("merchant", "==", EVENT)),
        since("time_since_device_s", "this device was last used", Where("device", "==", EVENT)),
        Feature(
            "history_span_s",
            "recency",
            Op.SINCE_FIRST,
            "s",
            "Time since the oldest transaction of the last 90 days.",
            window="90d",
            phrase="{duration} of history",
        ),
    ]


def _novelty() -> list[Feature]:
    fields = ("merchant", "device", "country", "counterparty")
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
        for field in fields
    ]
    distinct = [
        Feature(
            f"{field}_distinct_{w}",
            "novelty",
            Op.DISTINCT,
            field,
            f"Different values of {field} in the last {w}.",
            field=field,
            window=w,
            phrase=f"{{value:.0f}} different of {field} in {w}",
        )
        for field, windows in (
            ("merchant", ("1h", "24h", "30d")),
            ("device", ("24h", "30d")),
            ("country", ("24h", "30d")),
            ("counterparty", ("24h", "30d")),
        )
        for w in windows
    ]
    return [*new, *distinct]


def _behaviour() -> list[Feature]:
    def share(name: str, text: str, where: Where) -> Feature:
        return Feature(
            f"{name}_share_30d",
            "behaviour",
            Op.SHARE,
            "ratio",
            f"Share of transactions {text} in the last 30 days.",
            window="30d",
            where=(where,),
            phrase=f"{{value:.0%}} of transactions {text}",
        )

    return [
        share("night", "at night (0 to 6 h UTC)", Where("hour", "<", 6)),
        share("weekend", "at weekends", Where("weekday", ">=", 5)),
        share("ecommerce", "by e-commerce", Where("channel", "==", "ecommerce")),
        share("transfer", "as transfers", Where("transaction_type", "==", "transfer")),
        share("same_country", "in this country", Where("country", "==", EVENT)),
        Feature(
            "distance_from_last_km",
            "behaviour",
            Op.DISTANCE,
            "km",
            "Great-circle distance from the last transaction with a position.",
            window="90d",
            phrase="{value:.0f} km from the last transaction",
        ),
        Feature(
            "speed_from_last_kmh",
            "behaviour",
            Op.SPEED,
            "km/h",
            "Speed needed to travel from the last transaction with a position.",
            window="90d",
            phrase="{value:.0f} km/h needed to travel from the last transaction",
        ),
    ]


def _category_spend() -> list[Feature]:
    return [
        Feature(
            f"spend_{category}_30d",
            "category_spend",
            Op.SUM,
            "currency",
            f"Spent on {category} in the last 30 days.",
            field="amount",
            window="30d",
            where=(_DEBIT, Where("category", "==", category)),
            phrase=f"{{value:.2f}} spent on {category} in 30d",
        )
        for category in CATEGORIES
    ]


def _trend() -> list[Feature]:
    def ratio(name: str, over: str, under: str, scale: float, text: str, phrase: str) -> Feature:
        return Feature(name, "trend", Op.RATIO, "ratio", text, of=(over, under), scale=scale, phrase=phrase)

    return [
        ratio(
            "txn_count_7d_to_30d",
            "txn_count_7d",
            "txn_count_30d",
            30 / 7,
            "Daily transactions of 7 days over those of 30; 1 is steady.",
            "activity of the last week is {value:.0%} of the month's",
        ),
        ratio(
            "txn_count_30d_to_90d",
            "txn_count_30d",
            "txn_count_90d",
            3.0,
            "Daily transactions of 30 days over those of 90; 1 is steady.",
            "activity of the last month is {value:.0%} of the quarter's",
        ),
        ratio(
            "amount_sum_30d_to_90d",
            "amount_sum_30d",
            "amount_sum_90d",
            3.0,
            "Daily spend of 30 days over that of 90; 1 is steady.",
            "spend of the last month is {value:.0%} of the quarter's",
        ),
        ratio(
            "credit_sum_30d_to_90d",
            "credit_sum_30d",
            "credit_sum_90d",
            3.0,
            "Money in over 30 days against 90; 1 is steady.",
            "money in of the last month is {value:.0%} of the quarter's",
        ),
        ratio(
            "txn_count_1h_to_30d",
            "txn_count_1h",
            "txn_count_30d",
            720.0,
            "Transactions of the last hour over the usual hour's.",
            "{value:.0f} times the usual hourly activity",
        ),
    ]


def _event() -> list[Feature]:
    def value(name: str, field: str, unit: str, meaning: str, phrase: str) -> Feature:
        return Feature(name, "transaction", Op.EVENT_VALUE, unit, meaning, field=field, phrase=phrase)

    return [
        value("amount", "amount", "currency", "Amount.", "amount of {value:.2f}"),
        value("hour_of_day", "hour", "h", "Hour of the day, UTC.", "at {value:.0f} h UTC"),
        value("day_of_week", "weekday", "day", "Day of the week, UTC; Monday is 0.", "on {weekday}"),
        value("is_night", "is_night", "flag", "1 from 0 to 6 h UTC.", "at night|by day"),
        value("is_credit", "is_credit", "flag", "1 where money comes in.", "money in|money out"),
        value("channel_code", "channel", "code", "Channel.", "by {channel}"),
        value("category_code", "category", "code", "Spend category.", "spent on {category}"),
        value("type_code", "transaction_type", "code", "Transaction type.", "a {transaction_type}"),
        value(
            "card_present",
            "card_present",
            "flag",
            "1 where the card was there.",
            "card present|card not present",
        ),
        Feature(
            "amount_to_mean_90d",
            "transaction",
            Op.RATIO,
            "ratio",
            "Amount over the customer's mean debit of 90 days.",
            of=("amount", "amount_mean_90d"),
            phrase="{value:.1f} times the usual payment",
        ),
        Feature(
            "amount_to_max_90d",
            "transaction",
            Op.RATIO,
            "ratio",
            "Amount over the customer's largest debit of 90 days.",
            of=("amount", "amount_max_90d"),
            phrase="{value:.1f} times the largest payment of 90 days",
        ),
    ]


FEATURES: tuple[Feature, ...] = (
    *_velocity(),
    *_amounts(),
    *_recency(),
    *_novelty(),
    *_behaviour(),
    *_category_spend(),
    *_trend(),
    *_event(),
)
check(FEATURES)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
FEATURES_HASH = declaration_hash(FEATURES)
