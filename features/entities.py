"""Features of what an event happens at, from all customers' events: declared as data.

A merchant or a device has no history of events but hourly tiles. A window is
`[hour(t - delay) - size, hour(t - delay))`, `hour` rounding down: it consists of whole tiles, so that tiles
make it exact. It ends a delay ago because a fraud is not known when it happens, and because what other
partitions have counted by now may not be known here.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from features.definitions import DAY_MS, Where, parse_duration_ms
from schemas.errors import ConfigError

TILE_MS: Final = 3_600_000
SLACK_TILES: Final = 1
"""Whole tiles by which partitions may be apart; no delay is shorter, and a fraud counts once it has been
known for longer."""

LATENESS_TILES: Final = 30 * 24
"""How much older than an entity's newest event another may be and still find its whole window.

As in histories, and long enough to compute a vector again when its label has come.
"""

MAX_WINDOW_MS: Final = 90 * DAY_MS
MAX_FRAUD_WINDOW_MS: Final = 372 * DAY_MS
"""Of what looks at frauds alone, which are few: a merchant can come back to fraud after months."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A kind of thing that events happen at.

    Attributes:
        name: As in settings and keys.
        field: Field of a history record with the hash of its id; 0 where an event has none.
        by_customer: Whether tiles tell customers apart: only for what few customers share.
    """

    name: str
    field: str
    by_customer: bool = False


ENTITIES: Final = (
    Entity("merchant", "merchant"),
    Entity("device", "device", by_customer=True),
    # Not by customer: what everybody pays, like rent or energy, has as many as there are customers.
    Entity("counterparty", "counterparty"),
)


class EntityOp(StrEnum):
    """What is computed over an entity's tiles."""

    COUNT = "count"
    FRAUD_COUNT = "fraud_count"
    FRAUD_SHARE = "fraud_share"  # unknown where there was no transaction
    CUSTOMERS = "customers"  # different ones
    SINCE_FRAUD = "since_fraud"  # from the hour of the newest confirmed fraud; unknown where there is none
    FRAUD_RUN = "fraud_run"  # from the first hour of the run of frauds that ends with it
    GENUINE_SINCE = "genuine_since"  # transactions of later hours than it; unknown where there is none
    AMOUNT_RATIO = "amount_ratio"  # event amount over their geometric mean; unknown where there is none
    AMOUNT_ZSCORE = "amount_zscore"  # of logarithms; unknown where all are equal


FRAUD_OPS: Final = (EntityOp.FRAUD_COUNT, EntityOp.SINCE_FRAUD)
"""Those that look at frauds alone."""

RUN_OPS: Final = (EntityOp.SINCE_FRAUD, EntityOp.FRAUD_RUN, EntityOp.GENUINE_SINCE)
"""Those that look at how frauds and genuine transactions follow one another."""


@dataclass(frozen=True, slots=True)
class EntityFeature:
    """One feature of an entity, declared as data.

    Attributes:
        name: `<entity>_<quantity>_<window>`.
        entity: Name of an `Entity`.
        op: What is computed.
        window: Size, like `30d`, in whole hours.
        delay: How long before the event the window ends, in whole hours.
        unit: Of the value.
        meaning: One line for documents.
        phrase: Words for a reason, with `{value}` in them.
    """

    name: str
    entity: str
    op: EntityOp
    window: str
    delay: str
    unit: str
    meaning: str
    phrase: str | None = None

    @property
    def ends(self) -> str:
        """How long before the event the window ends."""
        return self.delay

    @property
    def category(self) -> str:
        """Part of the catalogue it stands in."""
        return self.entity

    @property
    def where(self) -> tuple[Where, ...]:
        """No conditions on past events."""
        return ()

    @property
    def of(self) -> tuple[str, ...]:
        """Not made from other features."""
        return ()

    @property
    def of_frauds(self) -> bool:
        """Whether it looks at frauds alone."""
        return self.op in FRAUD_OPS

    @property
    def window_tiles(self) -> int:
        """Window size in tiles."""
        return parse_duration_ms(self.window) // TILE_MS

    @property
    def delay_tiles(self) -> int:
        """Delay in tiles."""
        return parse_duration_ms(self.delay) // TILE_MS


def kept_tiles(features: Sequence[EntityFeature]) -> tuple[int, int]:
    """How many tiles behind an entity's newest one its transactions are kept, and how many its frauds.

    Args:
        features: Declarations of one entity.
    """
    reach = [(f.window_tiles + f.delay_tiles, f.of_frauds) for f in features]
    of_events = max((tiles for tiles, of_frauds in reach if not of_frauds), default=0)
    return LATENESS_TILES + of_events, LATENESS_TILES + max((tiles for tiles, _ in reach), default=0)


def check(features: Sequence[EntityFeature]) -> None:
    """Refuse declarations that cannot work.

    Raises:
        ConfigError: Names the feature and the reason.
    """
    seen: set[str] = set()
    for feature in features:
        problem = _problem(feature, seen)
        if problem:
            raise ConfigError(f"feature {feature.name!r}: {problem}")
        seen.add(feature.name)


def _problem(feature: EntityFeature, before: set[str]) -> str | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", feature.name):
        return "a name is lower-case letters, digits and underscores"
    if feature.name in before:
        return "declared twice"
    entity = next((e for e in ENTITIES if e.name == feature.entity), None)
    if entity is None:
        return f"entity must be one of {', '.join(e.name for e in ENTITIES)}"
    try:
        window_ms, delay_ms = parse_duration_ms(feature.window), parse_duration_ms(feature.delay)
    except ConfigError as malformed:
        return str(malformed)
    if window_ms % TILE_MS or delay_ms % TILE_MS:
        return "window and delay are kept by the hour: give whole hours"
    longest_ms = MAX_FRAUD_WINDOW_MS if feature.of_frauds else MAX_WINDOW_MS
    if window_ms + delay_ms > longest_ms:
        return f"window and delay are longer than what is kept ({longest_ms // DAY_MS}d)"
    if feature.op is EntityOp.CUSTOMERS and not entity.by_customer:
        return f"customers of a {entity.name} are not told apart"
    return None


def declaration_hash(features: Sequence[EntityFeature]) -> str:
    """Identity of a list of declarations; wording does not count."""
    words = {"meaning", "phrase", "unit"}
    computed = [{k: v for k, v in asdict(f).items() if k not in words} for f in features]
    return hashlib.sha256(json.dumps(computed, sort_keys=True).encode()).hexdigest()[:16]
