"""What a feature declaration says, and what it may not say."""

import functools
import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from features.codes import CATEGORIES, CHANNELS, TRANSACTION_TYPES
from schemas.errors import ConfigError

DAY_MS: Final = 24 * 3600 * 1000
MAX_WINDOW_MS: Final = 90 * DAY_MS
LATENESS_MS: Final = 30 * DAY_MS
"""How much older than a customer's newest event another may be and still find its whole window."""

RETENTION_MS: Final = MAX_WINDOW_MS + LATENESS_MS
MAX_EVENTS: Final = 16_384
"""Events kept per customer. A customer with more in 120 days keeps the newest, and scores say so."""

EVENT: Final = "event"
"""In a condition: the value of the event being scored."""


class Op(StrEnum):
    """What is computed over the matching events of a window, or from other features."""

    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    STD = "std"
    MIN = "min"
    MAX = "max"
    FIRST = "first"  # value of the oldest matching event
    LAST = "last"  # value of the newest matching event
    DISTINCT = "distinct"
    SHARE = "share"  # matching events / all events of the window
    TIME_SINCE = "time_since"  # seconds since the newest matching event
    SINCE_FIRST = "since_first"  # seconds since the oldest matching event
    IS_NEW = "is_new"  # 1 where no event in the window has the scored event's value
    DISTANCE = "distance"  # km from the newest event with a position
    SPEED = "speed"  # km/h from there to here, over a minute at least
    ZSCORE = "zscore"  # (event amount - mean) / std of the window
    RATIO = "ratio"  # of two other features, by name; unknown unless the second is positive
    EVENT_VALUE = "event_value"  # of the scored event itself


AMOUNT_OPS: Final = frozenset({Op.SUM, Op.MEAN, Op.STD, Op.MIN, Op.MAX, Op.ZSCORE})
VALUE_OPS: Final = frozenset({Op.FIRST, Op.LAST})
NAME_FIELDS: Final = ("merchant", "device", "counterparty", "country")
CODED_FIELDS: Final = {
    "category": {name: code for code, name in enumerate(CATEGORIES, start=1)},
    "channel": {name: code for code, name in enumerate(CHANNELS, start=1)},
    "transaction_type": {name: code for code, name in enumerate(TRANSACTION_TYPES, start=1)},
    "direction": {"debit": 0, "credit": 1},
    "card_present": {"no": 1, "yes": 2},
}
CLOCK_FIELDS: Final = {"hour": 23, "weekday": 6}
"""Of the event time by `features.clock`, with the largest value."""

DISTINCT_FIELDS: Final = (*NAME_FIELDS, "category", "channel", "transaction_type", "currency")
NEW_FIELDS: Final = (*NAME_FIELDS, "category", "channel", "transaction_type")
VALUE_FIELDS: Final = ("amount", "hour", "weekday", "category", "channel", "transaction_type", "card_present")
EVENT_VALUES: Final = (
    "amount",
    "hour",
    "weekday",
    "is_night",
    "is_credit",
    "channel",
    "category",
    "transaction_type",
    "card_present",
)
_UNITS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS}


@dataclass(frozen=True, slots=True)
class Where:
    """One condition on a past event.

    Attributes:
        field: `direction`, `category`, `channel`, `transaction_type`, `card_present`, `merchant`,
            `device`, `counterparty`, `country`, `currency`, `amount`, `hour` or `weekday` (Monday
            is 0).
        op: `==`, `!=`, `<` or `>=`; the last two for `amount`, `hour` and `weekday` only. An event
            without a value equals nothing and differs from everything.
        value: A word, an id, a number (of `amount`: in major units of the past event's currency), or
            `event`: the scored event's own value. Without an event, or with one that has no such value,
            the feature is unknown. Amounts are compared with the event's in minor units, whatever their
            currency: add `currency == event`.
    """

    field: str
    op: str
    value: str | int | float


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature, declared as data.

    Attributes:
        name: `<quantity>_<statistic>_<window>`.
        category: Part of the catalogue it stands in.
        op: What is computed.
        unit: Of the value: `events`, `currency`, `s`, `km`, `ratio`, ...
        meaning: One line for documents.
        field: What is aggregated or compared; amounts where the op is about amounts.
        window: Size of `[t - size, t)`, like `90d`.
        ends: How long before `t` the window ends, like `30d`: then `[t - ends - size, t - ends)`.
        where: Conditions that a past event must all meet. Amount statistics further take only
            events in the scored event's currency: other amounts cannot be compared.
        of: Names of numerator and denominator of a ratio.
        scale: Factor of a ratio, for example 30 / 7 to compare daily rates.
        phrase: Words for a reason, with `{value}` in them.
    """

    name: str
    category: str
    op: Op
    unit: str
    meaning: str
    field: str | None = None
    window: str | None = None
    ends: str | None = None
    where: tuple[Where, ...] = ()
    of: tuple[str, ...] = ()
    scale: float = 1.0
    phrase: str | None = None

    @property
    def window_ms(self) -> int:
        """Window size in milliseconds; 0 for features without one."""
        return parse_duration_ms(self.window) if self.window else 0

    @property
    def ends_ms(self) -> int:
        """Milliseconds from the window's end to the event; 0 where it ends there."""
        return parse_duration_ms(self.ends) if self.ends else 0

    @property
    def edge_ms(self) -> int:
        """Milliseconds from the window's start to the event."""
        return self.ends_ms + self.window_ms


def is_of_amounts(feature: Feature) -> bool:
    """Whether a feature takes amounts, and so only events in one currency."""
    of_amount = feature.op in VALUE_OPS and feature.field in {None, "amount"}
    return feature.op in AMOUNT_OPS or of_amount


@functools.cache
def parse_duration_ms(text: str) -> int:
    """Milliseconds of `90d`, `6h`, `5m` or `30s`.

    Raises:
        ConfigError: Not such a duration, or none at all.

    >>> parse_duration_ms("7d")
    604800000
    """
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise ConfigError(f"{text!r} is not a duration; write a number and s, m, h or d, like 90d")
    return int(match[1]) * _UNITS[match[2]]


def declaration_hash(features: Sequence[Feature]) -> str:
    """Identity of a list of declarations: a model trained on another list is refused.

    Wording (meaning, phrase, unit, category) does not change what is computed and is left out.
    """
    computed = [
        {k: v for k, v in asdict(f).items() if k not in {"meaning", "phrase", "unit", "category"}}
        for f in features
    ]
    return hashlib.sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()[:16]


def check(features: Sequence[Feature]) -> None:
    """Refuse declarations that cannot work.

    Raises:
        ConfigError: Names the feature and the reason.
    """
    seen: set[str] = set()
    for feature in features:
        try:
            problem = _problem(feature, seen)
        except ConfigError as malformed:
            raise ConfigError(f"feature {feature.name!r}: {malformed}") from malformed
        if problem:
            raise ConfigError(f"feature {feature.name!r}: {problem}")
        seen.add(feature.name)


def _problem(feature: Feature, before: set[str]) -> str | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", feature.name):
        return "a name is lower-case letters, digits and underscores"
    if feature.name in before:
        return "declared twice"
    if feature.op in {Op.RATIO, Op.EVENT_VALUE} and (feature.window or feature.ends or feature.where):
        return f"{feature.op} takes no window and no conditions"
    if not math.isfinite(feature.scale):
        return "scale must be a number"
    if feature.op is Op.RATIO:
        missing = [name for name in feature.of if name not in before]
        return (
            None
            if len(feature.of) == 2 and not missing
            else f"a ratio needs two features declared above it, not {feature.of}"
        )
    if feature.op is Op.EVENT_VALUE:
        return None if feature.field in EVENT_VALUES else f"field must be one of {', '.join(EVENT_VALUES)}"
    if feature.window is None:
        return "needs a window, like 30d"
    if feature.edge_ms > MAX_WINDOW_MS:
        return f"the window reaches further back than the history kept ({MAX_WINDOW_MS // DAY_MS}d)"
    return _field_problem(feature) or next(filter(None, map(_condition_problem, feature.where)), None)


_FIELDS: Final = {
    Op.DISTINCT: DISTINCT_FIELDS,
    Op.IS_NEW: NEW_FIELDS,
    Op.FIRST: (None, *VALUE_FIELDS),
    Op.LAST: (None, *VALUE_FIELDS),
    **dict.fromkeys(AMOUNT_OPS, (None, "amount")),
}


def _field_problem(feature: Feature) -> str | None:
    allowed = _FIELDS.get(feature.op, (None,))
    if feature.field in allowed:
        return None
    if allowed == (None,):
        return f"{feature.op} takes no field"
    if feature.op in AMOUNT_OPS:
        return f"{feature.op} is of amounts; field must be amount"
    return f"field must be one of {', '.join(name for name in allowed if name)}"


def _condition_problem(where: Where) -> str | None:
    shown = f"{where.field} {where.op} {where.value}"
    if where.field in CLOCK_FIELDS:
        if where.op not in {"==", "!=", "<", ">="} or type(where.value) is not int:
            return f"{shown}: compare with a number by ==, !=, < or >="
        last = CLOCK_FIELDS[where.field]
        return None if 0 <= where.value <= last else f"{shown}: {where.field} is 0 to {last}"
    if where.field == "amount" and where.value == EVENT:
        return None if where.op in {"==", "!="} else f"{shown}: only == and != compare with the event's"
    if where.field == "amount":
        number = isinstance(where.value, int | float) and not isinstance(where.value, bool)
        fine = where.op in {"<", ">="} and number and math.isfinite(float(where.value))
        return None if fine else f"{shown}: compare with a number by < or >=, or with event by == or !="
    if where.op not in {"==", "!="}:
        return f"{shown}: only == and != work on {where.field}"
    if where.field in CODED_FIELDS:
        known = where.value == EVENT or where.value in CODED_FIELDS[where.field]
        return None if known else f"{shown}: the values are {', '.join(CODED_FIELDS[where.field])}"
    if where.field in {"country", "currency"} and where.value != EVENT:
        letters = 2 if where.field == "country" else 3
        code = re.fullmatch(f"[A-Z]{{{letters}}}", str(where.value))
        return None if code else f"{shown}: write {letters} capital letters"
    if where.field in {*NAME_FIELDS, "currency"}:
        return None if isinstance(where.value, str) and where.value else f"{shown}: write an id in quotes"
    return f"{shown}: the history keeps no field {where.field!r}"
