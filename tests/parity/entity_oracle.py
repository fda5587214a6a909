"""Entity features by their declarations: plain Python over everything that happened before."""

import math
import statistics
from dataclasses import dataclass, field

from features.entities import LATENESS_TILES, SLACK_TILES, EntityFeature, EntityOp

HOUR_MS = 3_600_000
_OF_FRAUDS = {EntityOp.FRAUD_COUNT, EntityOp.SINCE_FRAUD}


@dataclass
class EntityOracle:
    """Remembers everything.

    Attributes:
        events: `(time_ms, {entity: id}, customer, amount in minor units)` of what counts.
        frauds: `(time_ms of the transaction, {entity: id}, time_ms at which it became known, and at which
            that was withdrawn)`.
        reached: Newest hour of what ever counted, by entity and id.
    """

    features: tuple[EntityFeature, ...]
    events: list[tuple[int, dict[str, object], object, int]] = field(default_factory=list)
    frauds: list[tuple[int, dict[str, object], int, float]] = field(default_factory=list)
    reached: dict[tuple[str, object], int] = field(default_factory=dict)

    def count(self, time_ms: int, ids: dict[str, object], customer: object, minor: int) -> None:
        self.events.append((time_ms, ids, customer, minor))
        self._reach(time_ms, ids)

    def confirm(
        self, time_ms: int, ids: dict[str, object], known_ms: int, withdrawn_ms: float = math.inf
    ) -> None:
        self.frauds.append((time_ms, ids, known_ms, withdrawn_ms))
        self._reach(time_ms, ids)

    def _reach(self, time_ms: int, ids: dict[str, object]) -> None:
        for key in ids.items():
            self.reached[key] = max(self.reached.get(key, 0), time_ms // HOUR_MS)

    def vector(self, time_ms: int, ids: dict[str, object], minor: int) -> list[float]:
        return [self._value(f, time_ms // HOUR_MS, ids.get(f.entity), minor) for f in self.features]

    def _value(self, feature: EntityFeature, hour: int, wanted: object, minor: int) -> float:
        if wanted is None:
            return math.nan
        end = hour - feature.delay_tiles
        events = [
            (t // HOUR_MS, (customer, amount))
            for t, ids, customer, amount in self.events
            if ids.get(feature.entity) == wanted
        ]
        told = hour - SLACK_TILES
        frauds = [
            t // HOUR_MS
            for t, ids, known, withdrawn in self.frauds
            if ids.get(feature.entity) == wanted and known // HOUR_MS < told and told * HOUR_MS <= withdrawn
        ]
        newest = self.reached.get((feature.entity, wanted), 0)
        frauds = [h for h in frauds if h >= newest - self._kept(feature, of_frauds=True)]
        events = [(h, who) for h, who in events if h >= newest - self._kept(feature, of_frauds=False)]
        begin = end - feature.window_tiles
        in_window = [what for h, what in events if begin <= h < end]
        known = [h for h in frauds if begin <= h < end]
        confirmed = len(known)
        match feature.op:
            case EntityOp.COUNT:
                return len(in_window)
            case EntityOp.CUSTOMERS:
                return len({customer for customer, _ in in_window})
            case EntityOp.FRAUD_COUNT:
                return confirmed
            case EntityOp.FRAUD_SHARE:
                return confirmed / len(in_window) if in_window else math.nan
            case EntityOp.AMOUNT_RATIO | EntityOp.AMOUNT_ZSCORE:
                return _compared(feature.op, minor, [amount for _, amount in in_window])
        if not known:
            return math.nan
        newest = max(known)
        events_of = [h for h, _ in events if begin <= h < end]
        if feature.op is EntityOp.GENUINE_SINCE:
            return sum(h > newest for h in events_of)
        if feature.op is EntityOp.SINCE_FRAUD:
            return (hour - newest) * 3600
        first = newest
        for h in sorted({h for h in events_of if h < newest}, reverse=True):
            if known.count(h) < events_of.count(h):
                break
            first = h
        return (hour - first) * 3600

    def _kept(self, feature: EntityFeature, *, of_frauds: bool) -> int:
        """How far back frauds or transactions of an entity are looked at, in hours."""
        of_entity = [f for f in self.features if f.entity == feature.entity]
        looking = [f for f in of_entity if of_frauds or f.op not in _OF_FRAUDS]
        return max(f.window_tiles + f.delay_tiles for f in looking) + LATENESS_TILES


def _compared(op: EntityOp, minor: int, before: list[int]) -> float:
    """An amount and those before it, by logarithms of which 256 steps are a doubling."""
    if not before:
        return math.nan
    mine, *steps = (round(256 * math.log2(amount + 1)) for amount in (minor, *before))
    distance = mine - statistics.fmean(steps)
    if op is EntityOp.AMOUNT_RATIO:
        return 2 ** (distance / 256)
    spread = statistics.pstdev(steps)
    return distance / spread if spread > 1 else math.nan
