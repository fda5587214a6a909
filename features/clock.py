"""Which hour of which day a time is, by the clocks of a place: UTC's, or a time zone's."""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from features.definitions import Feature
from schemas.errors import ConfigError

SPAN_BITS: Final = 29
"""An offset is looked up by spans of 2**29 ms, six days, in each of which clocks change once at most."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The clocks of a time zone.

    Attributes:
        name: As the IANA database has it.
        since_ms: From when on each offset holds, ascending; the first holds before that too.
        offsets_ms: What is added to UTC; as many.
    """

    name: str = "UTC"
    since_ms: tuple[int, ...] = ()
    offsets_ms: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        spans = [since >> SPAN_BITS for since in self.since_ms]
        if len(set(spans)) < len(spans):
            raise ConfigError(f"time zone {self.name}: its clocks change twice within six days")

    @property
    def identity(self) -> str:
        """What is part of the identity of declarations; nothing for UTC."""
        return f"-{self.name}" if self.since_ms else ""

    def say(self, feature: Feature) -> Feature:
        """A declaration in whose words this clock stands for UTC."""
        if not self.since_ms:
            return feature
        phrase = feature.phrase and feature.phrase.replace("UTC", self.name)
        return replace(feature, meaning=feature.meaning.replace("UTC", self.name), phrase=phrase)


UTC: Final = Clock()


def table(clock: Clock) -> tuple[Any, Any, Any]:
    """Offsets by span: `(n,)` the one it begins with, when that changes, and to which.

    Args:
        clock: Of a time zone.

    >>> before, turn, after = table(Clock("A", (0, 3 << SPAN_BITS), (7, 9)))
    >>> before.tolist(), turn.tolist(), after.tolist()
    ([7, 7, 7, 7], [0, 0, 0, 1610612736], [7, 7, 7, 9])
    """
    since, offsets = np.array(clock.since_ms, np.int64), np.array(clock.offsets_ms, np.int64)
    starts = np.arange((clock.since_ms[-1] >> SPAN_BITS) + 1, dtype=np.int64) << SPAN_BITS
    began = np.maximum(np.searchsorted(since, starts, side="left") - 1, 0)
    ends = np.searchsorted(since, starts + (1 << SPAN_BITS), side="left") - 1
    return offsets[began], np.where(ends > began, since[ends], 0), offsets[np.maximum(ends, 0)]


def source(clock: Clock) -> list[str]:
    """Statements of a kernel that define `hours_at`, `hour_at` and `weekday_at` of a time in ms."""
    if not clock.since_ms:
        return [
            "from features.kernels import hour_utc as hour_at, hours_utc as hours_at",
            "from features.kernels import weekday_utc as weekday_at",
        ]
    return [
        "from features.clock import Clock, table",
        "from features.kernels import hour_of, hours_utc, weekday_of",
        f"BEFORE, TURN, AFTER = table({clock!r})",
        "LAST_SPAN = np.int64(len(TURN) - 1)",
        "@numba.njit(**INNER)",
        "def hours_at(time_ms):",
        f"    span = min(max(np.int64(time_ms) >> np.int64({SPAN_BITS}), np.int64(0)), LAST_SPAN)",
        "    offset = AFTER[span] if time_ms >= TURN[span] else BEFORE[span]",
        "    return hours_utc(time_ms + offset)",
        "@numba.njit(**INNER)",
        "def hour_at(time_ms):",
        "    return hour_of(hours_at(time_ms))",
        "@numba.njit(**INNER)",
        "def weekday_at(time_ms):",
        "    return weekday_of(hours_at(time_ms))",
    ]
