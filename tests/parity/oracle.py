"""What every feature means, in plain Python and slowly: the engine must agree.

Written from the declarations and their documentation, not from the compiler, and without its means:
no kernel, no records, no running sums. Whole numbers and fractions where the engine has floats.
"""

import bisect
import functools
import math
import operator
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from fractions import Fraction

from features.codes import CATEGORIES, category_code
from features.definitions import (
    CODED_FIELDS,
    EVENT,
    MAX_EVENTS,
    RETENTION_MS,
    Feature,
    Op,
    Where,
    is_of_amounts,
)
from schemas.money import minor_unit_scale
from schemas.transaction import Transaction

Value = float | None

_EARTH_RADIUS_KM = 6371.0088
_SHORTEST_TRIP_MS = 60_000
_COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Fact:
    """A transaction in the words of the declarations; `None` is unknown."""

    transaction_id: str
    revision: int
    time_ms: int
    amount_minor: int
    amount: Fraction
    currency: str
    direction: str
    category: str | None
    channel: str | None
    transaction_type: str | None
    merchant: str | None
    device: str | None
    counterparty: str | None
    country: str | None
    hour: int
    weekday: int
    position: tuple[float, float] | None
    card_present: bool | None


ZONE: tzinfo = UTC
"""Of hours and weekdays."""


def fact(t: Transaction) -> Fact:
    """Facts of a message. Positions are kept in 32 bits, so they are cut to that here too."""
    return _fact(t, ZONE)


@functools.lru_cache(maxsize=200_000)
def _fact(t: Transaction, zone: tzinfo) -> Fact:
    moment = t.event_time.astimezone(zone)
    category = category_code(t.merchant_category, t.transaction_type)
    position = None
    if t.latitude is not None and t.longitude is not None:
        position = struct.unpack("<ff", struct.pack("<ff", t.latitude, t.longitude))
    return Fact(
        transaction_id=t.transaction_id,
        revision=t.revision,
        time_ms=t.event_time_ms,
        amount_minor=t.amount_minor,
        amount=t.amount_minor / Fraction(minor_unit_scale(t.currency)),
        currency=t.currency,
        direction="credit" if t.is_credit else "debit",
        category=CATEGORIES[category - 1] if category else None,
        channel=t.channel,
        transaction_type=t.transaction_type,
        merchant=t.merchant_id or None,
        device=t.device_id or None,
        counterparty=t.counterparty_id or None,
        country=t.merchant_country,
        hour=moment.hour,
        weekday=moment.weekday(),
        position=position,
        card_present=t.card_present,
    )


def remembered(arrivals: Sequence[Transaction], now_ms: int, max_events: int = MAX_EVENTS) -> list[Fact]:
    """What a customer's history holds, oldest first, when something at `now_ms` comes.

    The first arrival of a transaction id counts, until a correction comes with a larger revision: then
    that. Nothing older than the retention behind the newest event is held, and never more than the newest
    `max_events`; what was corrected takes part in both, and is seen by nobody.
    """
    held, newest = _held(arrivals, now_ms, max_events)
    return [f for f in held if f.revision == newest[f.transaction_id]]


def _held(arrivals: Sequence[Transaction], now_ms: int, max_events: int) -> tuple[list[Fact], dict[str, int]]:
    """All versions held, oldest first, and the newest revision of each transaction."""
    held: list[Fact] = []
    newest: dict[str, int] = {}
    for arrived in map(fact, arrivals):
        counting = held[_first_counting(held, arrived.time_ms, max_events) :]
        known = arrived.transaction_id in newest and _names(counting, arrived.transaction_id)
        if known and arrived.revision <= newest[arrived.transaction_id]:
            continue
        newest[arrived.transaction_id] = arrived.revision
        held = counting
        bisect.insort_right(held, arrived, key=_time)
    return held[_first_counting(held, now_ms, max_events) :], newest


def _first_counting(held: list[Fact], now_ms: int, max_events: int) -> int:
    newest = max(now_ms, held[-1].time_ms) if held else now_ms
    return max(len(held) - max_events, bisect.bisect_left(held, newest - RETENTION_MS, key=_time))


def _time(f: Fact) -> int:
    return f.time_ms


def _names(held: list[Fact], transaction_id: str) -> bool:
    return any(f.transaction_id == transaction_id for f in held)


def is_duplicate(arrivals: Sequence[Transaction], event: Transaction, max_events: int = MAX_EVENTS) -> bool:
    """Whether an arriving event is already held, in this revision or a later one."""
    held, newest = _held(arrivals, event.event_time_ms, max_events)
    return _names(held, event.transaction_id) and event.revision <= newest[event.transaction_id]


def is_correction(arrivals: Sequence[Transaction], event: Transaction, max_events: int = MAX_EVENTS) -> bool:
    """Whether an arriving event replaces one that is held."""
    held, newest = _held(arrivals, event.event_time_ms, max_events)
    return _names(held, event.transaction_id) and event.revision > newest[event.transaction_id]


def naive_features(
    features: Sequence[Feature],
    arrivals: Sequence[Transaction],
    event: Transaction | None,
    as_of_ms: int,
    max_events: int = MAX_EVENTS,
) -> dict[str, Value]:
    """Every feature at one moment.

    Args:
        features: Declarations.
        arrivals: All earlier transactions of the customer, in the order they arrived.
        event: The one being scored; `None` for a lookup.
        as_of_ms: Its time, or the moment of the lookup.
        max_events: How many the history may hold.
    """
    held = remembered(arrivals, as_of_ms, max_events)
    # What the event corrects is no event before it.
    own = event.transaction_id if event is not None else None
    past = [f for f in held if f.time_ms < as_of_ms and f.transaction_id != own]
    scored = _Scored(past, fact(event) if event is not None else None, as_of_ms)
    values: dict[str, Value] = {}
    for feature in features:
        values[feature.name] = scored.value(feature, values)
    return values


class _Scored:
    """One evaluation: the past, the event and the moment."""

    def __init__(self, past: list[Fact], event: Fact | None, as_of_ms: int) -> None:
        self.past = past
        self.event = event
        self.as_of_ms = as_of_ms
        if event is not None:
            self.currency: str | None = event.currency
        else:
            self.currency = past[-1].currency if past else None
        self._found: dict[tuple[int, int, tuple[Where, ...]], list[Fact]] = {}

    def window(self, feature: Feature) -> list[Fact]:
        """Events of `[t - ends - size, t - ends)`, oldest first."""
        return self._find(feature.ends_ms, feature.window_ms, ())

    def matching(self, feature: Feature) -> list[Fact]:
        """Events of the window that meet all conditions."""
        return self._find(feature.ends_ms, feature.window_ms, feature.where)

    def _find(self, ends_ms: int, size_ms: int, where: tuple[Where, ...]) -> list[Fact]:
        key = (ends_ms, size_ms, where)
        if key not in self._found:
            if where:
                found = self._meeting(self._find(ends_ms, size_ms, where[:-1]), where[-1])
            else:
                end = self.as_of_ms - ends_ms
                found = [f for f in self.past if end - size_ms <= f.time_ms < end]
            self._found[key] = found
        return self._found[key]

    def _meeting(self, past: list[Fact], where: Where) -> list[Fact]:
        """Past events that meet a condition."""
        holds = _COMPARISONS[where.op]
        if where.value == EVENT:
            right = self.currency if where.field == "currency" else getattr(self.event, where.field)
        else:
            right = where.value
        if where.field == "amount" and where.value == EVENT:
            assert self.event is not None
            return [f for f in past if holds(f.amount_minor, self.event.amount_minor)]
        if where.field == "amount":
            right = Fraction(str(right))
            return [f for f in past if holds(f.amount, right)]
        if where.field == "card_present":
            right = {"yes": True, "no": False}.get(right, right)
        return [f for f in past if holds(getattr(f, where.field), right)]

    def value(self, feature: Feature, earlier: dict[str, Value]) -> Value:
        """Value of a feature; `None` is unknown."""
        if feature.op is Op.RATIO:
            over, under = (earlier[name] for name in feature.of)
            if over is None or under is None or under <= 0:
                return None
            return over / under * feature.scale
        if feature.op is Op.EVENT_VALUE:
            return self.of_event(str(feature.field))
        compared = {w.field for w in feature.where if w.value == EVENT} - {"currency"}
        if feature.op is Op.IS_NEW:
            compared.add(str(feature.field))
        if compared and (self.event is None or any(getattr(self.event, c) is None for c in compared)):
            return None
        found = self.matching(feature)
        if is_of_amounts(feature):
            return self.of_amounts(feature.op, [f.amount_minor for f in found if f.currency == self.currency])
        return self.of_events(feature, found)

    def of_event(self, name: str) -> Value:
        """What the scored event itself says."""
        if self.event is None:
            return None
        match name:
            case "amount":
                return self.major(self.event.amount_minor)
            case "is_night":
                return float(self.event.hour < 6)
            case "is_credit":
                return float(self.event.direction == "credit")
        return self.number(self.event, name)

    @staticmethod
    def number(f: Fact, name: str) -> Value:
        """A field as a number."""
        known = getattr(f, name)
        if known is None or isinstance(known, int):
            return None if known is None else float(known)
        return float(CODED_FIELDS[name][known])

    def of_events(self, feature: Feature, found: list[Fact]) -> Value:
        """Statistics that do not look at amounts."""
        match feature.op:
            case Op.COUNT:
                return float(len(found))
            case Op.SHARE:
                everything = self.window(feature)
                return len(found) / len(everything) if everything else None
            case Op.DISTINCT:
                return float(len({getattr(f, str(feature.field)) for f in found} - {None}))
            case Op.IS_NEW:
                seen = {getattr(f, str(feature.field)) for f in found}
                return float(getattr(self.event, str(feature.field)) not in seen)
            case Op.FIRST | Op.LAST:
                chosen = 0 if feature.op is Op.FIRST else -1
                return self.number(found[chosen], str(feature.field)) if found else None
            case Op.TIME_SINCE:
                return (self.as_of_ms - found[-1].time_ms) / 1000 if found else None
            case Op.SINCE_FIRST:
                return (self.as_of_ms - found[0].time_ms) / 1000 if found else None
        assert feature.op in {Op.DISTANCE, Op.SPEED}
        placed = [f for f in found if f.position is not None]
        if not placed or self.event is None or self.event.position is None:
            return None
        km = great_circle_km(*placed[-1].position, *self.event.position)
        if feature.op is Op.DISTANCE:
            return km
        return km / (max(_SHORTEST_TRIP_MS, self.as_of_ms - placed[-1].time_ms) / 3_600_000)

    def of_amounts(self, op: Op, amounts: list[int]) -> Value:
        """Statistics of amounts in the currency of the evaluation."""
        n = len(amounts)
        match op:
            case Op.SUM:
                return self.major(sum(amounts))
            case Op.MIN | Op.MAX:
                return self.major(min(amounts) if op is Op.MIN else max(amounts)) if n else None
            case Op.FIRST | Op.LAST:
                return self.major(amounts[0 if op is Op.FIRST else -1]) if n else None
            case Op.MEAN:
                return self.major(Fraction(sum(amounts), n)) if n else None
        if n < 2:
            return None
        variance = Fraction(n * sum(a * a for a in amounts) - sum(amounts) ** 2, n * (n - 1))
        deviation = math.sqrt(variance)
        if op is Op.STD:
            return deviation / float(self.scale)
        assert op is Op.ZSCORE
        if self.event is None or deviation == 0:
            return None
        return float(self.event.amount_minor - Fraction(sum(amounts), n)) / deviation

    @property
    def scale(self) -> Fraction:
        """Minor units in one major unit of the currency."""
        return Fraction(minor_unit_scale(self.currency)) if self.currency else Fraction(1)

    def major(self, minor: int | Fraction) -> float:
        """Major units of an amount."""
        return float(minor / self.scale)


def great_circle_km(latitude_a: float, longitude_a: float, latitude_b: float, longitude_b: float) -> float:
    """Distance by the formula that is exact for near and far points alike.

    Source:
        T. Vincenty (1975), Survey Review 23(176), 88-93, for a sphere.
    """
    a, b = math.radians(latitude_a), math.radians(latitude_b)
    turn = math.radians(longitude_b - longitude_a)
    across = math.hypot(
        math.cos(b) * math.sin(turn),
        math.cos(a) * math.sin(b) - math.sin(a) * math.cos(b) * math.cos(turn),
    )
    along = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(turn)
    return _EARTH_RADIUS_KM * math.atan2(across, along)
