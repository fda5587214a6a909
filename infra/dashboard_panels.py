"""What a Grafana dashboard is made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

RATE: Final = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        queries: PromQL with the legend of its series.
        unit: Grafana's name of it.
        kind: `timeseries`, `stat`, `bargauge` or `table`.
        limits: Values from which it is orange and red; given downwards, lower is worse.
        height: Rows; a stat has less.
        width: Of 24 columns.
    """

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    limits: Sequence[float] = ()
    width: int = 12
    height: int = 8
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard; panels flow from left to right."""

    uid: str
    title: str
    panels: Sequence[Panel]
    tags: Sequence[str] = field(default=("tidegate",))


def stat(title: str, description: str, query: str, unit: str, limits: Sequence[float] = ()) -> Panel:
    """A figure."""
    return Panel(title, description, [(query, "")], unit, "stat", limits, width=4, height=4)


def p99(metric: str, by: str) -> str:
    """The 99th percentile of a histogram."""
    return f"histogram_quantile(0.99, sum by (le, {by}) (rate({metric}_bucket[{RATE}])))"


def share(metric: str) -> list[tuple[str, str]]:
    """Share of values at or below each bound, since the processes run."""
    query = f"sum by (le) ({metric}_bucket) / on () group_left sum({metric}_count)"
    return [(query, "at most {{le}}")]
