"""Contributions into an analyst's words."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from features.attributes import AttributeFeature
from features.codes import CATEGORIES, CHANNELS, TRANSACTION_TYPES
from features.definitions import Feature
from features.engine import Matrix
from features.entities import EntityFeature
from models.tree import TreeModel

Declared = Feature | EntityFeature | AttributeFeature
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NOUNS: Final = {
    "categories": "category",
    "counterparties": "counterparty",
    "countries": "country",
    **{
        f"{noun}s": noun
        for noun in (
            "credit day device customer event fraud hour merchant month payment purchase refund transaction "
            "transfer visit week withdrawal"
        ).split()
    },
}
"""Of what is counted, also by a bank's own features. By name: cutting an s would make "thi" of "this"."""
_COUNTED: Final = re.compile(rf"(\{{value:\.0f\}} (?:\w+ ){{0,2}}?)({'|'.join(_NOUNS)})\b")
_WORDS = {"{channel}": CHANNELS, "{category}": CATEGORIES, "{transaction_type}": TRANSACTION_TYPES}


def explain(
    model: TreeModel,
    X: Matrix,
    features: Mapping[str, Declared],
    *,
    most: int = 4,
    sign: int = 1,
) -> list[tuple[dict[str, Any], ...]]:
    """The strongest reasons of each row, as `schemas.score.Reason` fields.

    Args:
        model: Whose score is explained.
        X: `(n, n_features)` in the engine's order.
        features: Declarations by name.
        most: Reasons per row.
        sign: 1: only what raises the score; -1: only what lowers it; 0: both, by absolute size.
    """
    names, shares = model.card.feature_names, model.contributions(X)[:, :-1]
    return strongest(names, X[:, model.columns], shares, features, most=most, sign=sign)


def strongest(
    names: Sequence[str],
    values: Matrix,
    shares: Matrix,
    features: Mapping[str, Declared],
    *,
    most: int = 4,
    sign: int = 1,
) -> list[tuple[dict[str, Any], ...]]:
    """`explain`, of values and their shares in a score, both `(n, len(names))`."""
    strength = sign * shares if sign else np.abs(shares)
    order = np.argsort(-strength, axis=1, kind="stable")[:, :most]
    columns = (order, np.take_along_axis(values, order, axis=1), np.take_along_axis(shares, order, axis=1))
    return [
        tuple(
            reason(features[names[i]], value, share)
            for i, value, share in zip(*row, strict=True)
            if (sign * share > 0 if sign else share != 0)
        )
        for row in zip(*(column.tolist() for column in columns), strict=True)
    ]


def reason(feature: Declared, value: float, contribution: float) -> dict[str, Any]:
    """One reason."""
    return {
        "feature": feature.name,
        "value": None if math.isnan(value) else value,
        "contribution": round(contribution, 6),
        "text": in_words(feature, value),
    }


def in_words(feature: Declared, value: float) -> str:
    """A feature's value in words.

    >>> from features.definitions import Op
    >>> f = Feature("n", "velocity", Op.COUNT, "events", "", window="1h", phrase="{value:.0f} payments in 1h")
    >>> in_words(f, 9.0)
    '9 payments in 1h'
    >>> in_words(f, 1.0)
    '1 payment in 1h'
    """
    phrase = feature.phrase or f"{feature.name} is {{value:g}}"
    if "|" in phrase:
        yes, no = phrase.split("|")
        return f"{yes}: unknown" if math.isnan(value) else yes if value else no
    coded = _coded(phrase)
    if coded is not None and 1 <= value <= len(_WORDS[coded]):
        return phrase.replace(coded, _WORDS[coded][int(value) - 1])
    if coded is not None or math.isnan(value):
        return f"{feature.meaning.split(';')[0].rstrip('.').lower()}: unknown"
    if 0 <= value < 0.05:
        phrase = phrase.replace("{value:.1f} times", "less than 0.1 times")
    if f"{value:.0f}" == "1":
        phrase = _of_one(phrase)
    weekday = _DAYS[int(value) % 7]
    if "{duration" in phrase:
        return phrase.format(value=value, duration=duration(value), weekday=weekday)
    return phrase.format(value=value, weekday=weekday)


@cache
def _of_one(phrase: str) -> str:
    """The words where the count in them is one; other words stay as they are."""
    return _COUNTED.sub(lambda found: found[1] + _NOUNS[found[2]], phrase)


@cache
def _coded(phrase: str) -> str | None:
    return next((placeholder for placeholder in _WORDS if placeholder in phrase), None)


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use.

    >>> duration(90), duration(7200), duration(864000)
    ('2 minutes', '2 hours', '10 days')
    """
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    whole = f"{seconds:.0f}"
    return f"{whole} second" if whole == "1" else f"{whole} seconds"


def by_name(features: Sequence[Declared]) -> dict[str, Declared]:
    """Declarations by name."""
    return {feature.name: feature for feature in features}
