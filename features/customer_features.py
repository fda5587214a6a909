"""What is known of a customer without an event: 65 features in seven categories."""

from features.codes import CATEGORIES
from features.definitions import Feature, Op, Where

DEBIT = Where("direction", "==", "debit")
CREDIT = Where("direction", "==", "credit")
WORDS = {
    "1m": "minute",
    "5m": "5 minutes",
    "1h": "hour",
    "6h": "6 hours",
    "24h": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
    "90d": "90 days",
}
_SEVERAL = {
    "merchant": "merchants",
    "counterparty": "counterparties",
    "device": "devices",
    "country": "countries",
    "category": "categories",
}


def count(name: str, category: str, what: str, window: str, *where: Where, phrase: str) -> Feature:
    """Number of events, as `<name>_count_<window>`."""
    return Feature(
        f"{name}_count_{window}",
        category,
        Op.COUNT,
        "events",
        f"{what} in the last {WORDS[window]}.",
        window=window,
        where=where,
        phrase=f"{{value:.0f}} {phrase} in the last {WORDS[window]}",
    )


def amount(
    name: str,
    category: str,
    op: Op,
    what: str,
    window: str,
    *where: Where,
    phrase: str,
    ends: str | None = None,
) -> Feature:
    """Statistic of amounts."""
    return Feature(
        name,
        category,
        op,
        "currency",
        what,
        field="amount",
        window=window,
        ends=ends,
        where=where,
        phrase=phrase,
    )


def distinct(field: str, category: str, window: str) -> Feature:
    """Number of different values, as `<field>_distinct_<window>`."""
    return Feature(
        f"{field}_distinct_{window}",
        category,
        Op.DISTINCT,
        field,
        f"Different values of {field} in the last {WORDS[window]}.",
        field=field,
        window=window,
        phrase=f"{{value:.0f}} different {_SEVERAL[field]} in the last {WORDS[window]}",
    )


def time_since(name: str, category: str, what: str, *where: Where) -> Feature:
    """Seconds since the newest matching event of 90 days."""
    return Feature(
        f"time_since_{name}_s",
        category,
        Op.TIME_SINCE,
        "s",
        f"Time since {what}; unknown where there is none in 90 days.",
        window="90d",
        where=where,
        phrase=f"{{duration}} since {what}",
    )


def share(name: str, category: str, text: str, *where: Where) -> Feature:
    """Share of the events of 30 days, as `<name>_share_30d`."""
    return Feature(
        f"{name}_share_30d",
        category,
        Op.SHARE,
        "ratio",
        f"Share of transactions {text} in the last 30 days.",
        window="30d",
        where=where,
        phrase=f"{{value:.0%}} of transactions {text}",
    )


def ratio(
    name: str, category: str, over: str, under: str, meaning: str, phrase: str, *, scale: float = 1.0
) -> Feature:
    """One feature over another."""
    return Feature(name, category, Op.RATIO, "ratio", meaning, of=(over, under), scale=scale, phrase=phrase)


def _recency() -> list[Feature]:
    return [
        time_since("last", "recency", "the last transaction"),
        time_since("debit", "recency", "the last payment", DEBIT),
        time_since("credit", "recency", "money last came in", CREDIT),
    ]


def _monetary() -> list[Feature]:
    debits = [
        amount(
            f"amount_{name}_{window}",
            "monetary",
            op,
            f"{what} in the last {WORDS[window]}.",
            window,
            DEBIT,
            phrase=phrase.replace("{w}", window),
        )
        for op, name, what, windows, phrase in (
            (Op.SUM, "sum", "Spent", ("7d", "30d", "90d"), "{value:.2f} spent in the last {w}"),
            (Op.MEAN, "mean", "Mean debit", ("7d", "30d", "90d"), "usual payment of {value:.2f} over {w}"),
            (
                Op.STD,
                "std",
                "Standard deviation of debits",
                ("30d", "90d"),
                "payments vary by {value:.2f} over {w}",
            ),
            (Op.MAX, "max", "Largest debit", ("30d", "90d"), "largest payment in {w} was {value:.2f}"),
            (Op.MIN, "min", "Smallest debit", ("30d",), "smallest payment in {w} was {value:.2f}"),
        )
        for window in windows
    ]
    return [
        *debits,
        amount(
            "amount_sum_30d_before",
            "monetary",
            Op.SUM,
            "Spent in the 30 days before the last 30.",
            "30d",
            DEBIT,
            phrase="{value:.2f} spent in the month before",
            ends="30d",
        ),
        amount(
            "amount_last_90d",
            "monetary",
            Op.LAST,
            "Amount of the last payment; unknown where there is none in 90 days.",
            "90d",
            DEBIT,
            phrase="the last payment was {value:.2f}",
        ),
        *(
            amount(
                f"credit_sum_{window}",
                "monetary",
                Op.SUM,
                f"Money in over the last {WORDS[window]}.",
                window,
                CREDIT,
                phrase=f"{{value:.2f}} came in over {window}",
            )
            for window in ("30d", "90d")
        ),
        amount(
            "credit_last_90d",
            "monetary",
            Op.LAST,
            "Amount that last came in; unknown where nothing did in 90 days.",
            "90d",
            CREDIT,
            phrase="{value:.2f} came in last",
        ),
        ratio(
            "credit_to_debit_30d",
            "monetary",
            "credit_sum_30d",
            "amount_sum_30d",
            "Money in over money out of 30 days.",
            "money in is {value:.0%} of money out over 30d",
        ),
    ]


def _frequency() -> list[Feature]:
    return [
        *(
            count("txn", "frequency", "Transactions", window, phrase="transactions")
            for window in ("7d", "30d", "90d")
        ),
        count("debit", "frequency", "Debits", "30d", DEBIT, phrase="payments"),
        *(
            count("credit", "frequency", "Credits", window, CREDIT, phrase="credits")
            for window in ("30d", "90d")
        ),
        distinct("merchant", "frequency", "30d"),
        distinct("counterparty", "frequency", "30d"),
    ]


def _behavioural() -> list[Feature]:
    return [
        share("ecommerce", "behavioural", "by e-commerce", Where("channel", "==", "ecommerce")),
        share("atm", "behavioural", "by cash machine", Where("channel", "==", "atm")),
        share("transfer", "behavioural", "as transfers", Where("transaction_type", "==", "transfer")),
        share("card_present", "behavioural", "with the card present", Where("card_present", "==", "yes")),
        distinct("device", "behavioural", "30d"),
        distinct("country", "behavioural", "30d"),
        distinct("category", "behavioural", "30d"),
    ]


def _temporal() -> list[Feature]:
    return [
        share("night", "temporal", "at night (0 to 6 h UTC)", Where("hour", "<", 6)),
        share(
            "morning",
            "temporal",
            "in the morning (6 to 12 h UTC)",
            Where("hour", ">=", 6),
            Where("hour", "<", 12),
        ),
        share("evening", "temporal", "in the evening (18 to 24 h UTC)", Where("hour", ">=", 18)),
        share("weekend", "temporal", "at weekends", Where("weekday", ">=", 5)),
        time_since("salary", "temporal", "the last salary", Where("transaction_type", "==", "salary")),
        Feature(
            "history_span_s",
            "temporal",
            Op.SINCE_FIRST,
            "s",
            "Time since the oldest transaction of the last 90 days.",
            window="90d",
            phrase="{duration} of history",
        ),
    ]


def _trend() -> list[Feature]:
    return [
        ratio(
            "txn_count_7d_to_30d",
            "trend",
            "txn_count_7d",
            "txn_count_30d",
            "Daily transactions of 7 days over those of 30; 1 is steady.",
            "activity of the last week is {value:.0%} of the month's",
            scale=30 / 7,
        ),
        ratio(
            "txn_count_30d_to_90d",
            "trend",
            "txn_count_30d",
            "txn_count_90d",
            "Daily transactions of 30 days over those of 90; 1 is steady.",
            "activity of the last month is {value:.0%} of the quarter's",
            scale=3.0,
        ),
        ratio(
            "amount_sum_month_on_month",
            "trend",
            "amount_sum_30d",
            "amount_sum_30d_before",
            "Spend of the last 30 days over that of the 30 before; 1 is steady.",
            "spend of the last month is {value:.0%} of the month before",
        ),
        ratio(
            "amount_volatility_90d",
            "trend",
            "amount_std_90d",
            "amount_mean_90d",
            "Standard deviation of debits over their mean, of 90 days.",
            "payments vary by {value:.0%} of the usual one",
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
            where=(DEBIT, Where("category", "==", category)),
            phrase=f"{{value:.2f}} spent on {category} in 30d",
        )
        for category in CATEGORIES
    ]


CUSTOMER_FEATURES: tuple[Feature, ...] = (
    *_recency(),
    *_monetary(),
    *_frequency(),
    *_behavioural(),
    *_temporal(),
    *_trend(),
    *_category_spend(),
)
