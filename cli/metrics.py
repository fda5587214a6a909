"""`tidegate metrics`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from api.main import new_registry
from api.middleware import RequestMetrics
from cli.console import out, print_json
from infra.learning_metrics import LearningMetrics
from infra.metrics import WorkerMetrics
from infra.metrics_table import MetricRow, markdown, metrics_of
from infra.sink_metrics import SinkMetrics


def all_metrics() -> list[MetricRow]:
    """Every metric of worker, sink, API and what learns."""
    api, *_ = new_registry()
    RequestMetrics(api)
    return metrics_of(
        [
            ("worker", WorkerMetrics().registry),
            ("sink", SinkMetrics().registry),
            ("learn", LearningMetrics().registry),
            ("API", api),
        ]
    )


def metrics(
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As docs/metrics.md.")] = False,
) -> None:
    """Print every metric with its labels and meaning."""
    found = all_metrics()
    if as_markdown:
        print(markdown(found), end="")
    elif json:
        print_json([asdict(row) for row in found])
    else:
        table = Table("metric", "kind", "labels", "shown by", "meaning")
        for row in found:
            table.add_row(row.name, row.kind, ", ".join(row.labels), row.shown_by, row.meaning)
        out.print(table)
