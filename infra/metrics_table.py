"""Metrics as a table, from their own declarations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry

_PREFIX = "tidegate_"


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric.

    Attributes:
        name: As it is queried; a counter with its `_total`.
        kind: `counter`, `gauge`, `histogram`.
        shown_by: Programs that have it.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    shown_by: str


def metrics_of(registries: Iterable[tuple[str, CollectorRegistry]]) -> list[MetricRow]:
    """All metrics of this program, each once, with the programs that show it."""
    found: dict[str, MetricRow] = {}
    for program, registry in registries:
        # The library has no public way to ask a declaration for its label names.
        collectors: Any = registry._collector_to_names
        for collector in collectors:
            for family in collector.describe() if hasattr(collector, "describe") else ():
                if not family.name.startswith(_PREFIX):
                    continue
                name = family.name + ("_total" if family.type == "counter" else "")
                programs = f"{found[name].shown_by}, {program}" if name in found else program
                labels = tuple(getattr(collector, "_labelnames", ()))
                found[name] = MetricRow(name, family.type, labels, family.documentation, programs)
    return sorted(found.values(), key=lambda row: row.name)


def markdown(rows: Iterable[MetricRow]) -> str:
    """`docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "Generated from the declarations by `tidegate metrics --markdown`. Worker and sink serve them on",
        "`TIDEGATE_METRICS_PORT`, `tidegate learn` on `--metrics-port`, the API on `/metrics`; each process",
        "is a target of its own. All also show what the Prometheus client knows of a process (`process_*`,",
        "`python_*`). No label names a customer.",
        "",
        "Who accepts OpenMetrics, as Prometheus does, finds exemplars with a `trace_id` on two histograms:",
        "the worker's `tidegate_event_latency_seconds`, of one transaction a chunk, and the API's",
        "`tidegate_http_request_seconds`; both where a sampled `traceparent` came along. Prometheus keeps",
        "them with `--enable-feature=exemplar-storage`. The client's multiprocess mode has none; it is not",
        "used.",
        "",
        "| metric | kind | labels | shown by | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        labels = ", ".join(f"`{label}`" for label in r.labels)
        lines.append(f"| `{r.name}` | {r.kind} | {labels} | {r.shown_by} | {r.meaning} |")
    return "\n".join(lines) + "\n"
