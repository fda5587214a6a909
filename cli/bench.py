"""`tidegate bench`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.console import err, out, print_json
from cli.demo import ensure_models
from harness.bench import ThroughputPlan, run_throughput

app = typer.Typer(no_args_is_help=True, help="Measurements.")


@app.callback()
def bench() -> None:
    """Measurements."""


@app.command()
def throughput(
    customers: Annotated[int, typer.Option(min=50, help="Customers of the generated bank.")] = 2000,
    days: Annotated[int, typer.Option(min=5, help="Days of events.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="Of the bank.")] = 3,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions; the figure is their median.")] = 3,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/models"),
    entities: Annotated[
        str,
        typer.Option(
            envvar="TIDEGATE_ENTITIES", help="Entities with features: merchant, device, both or none."
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Scored events per second of one worker that drains a backlog, with the cost of each step.

    Starts its own broker and Valkey on this machine. Both models score, scores are published and
    acknowledged, histories are appended to Redis.
    """
    ensure_models(models, entities)
    err.print(f"{runs} runs; each publishes a backlog, then starts a worker", highlight=False)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        plan = ThroughputPlan(Path(folder), models, customers, days, seed, runs, entities)
        result = run_throughput(plan)
    if json:
        print_json(result)
        return
    out.print(f"[bold]{result['events_per_second']:,} scored events/s[/] (median of {result['runs']})")
    table = Table(
        "step",
        "µs per event",
        title=f"{result['events']:,} events in chunks of {result['chunk_records_mean']}",
    )
    for step, microseconds in result["step_microseconds_per_event"].items():
        table.add_row(step, f"{microseconds:.2f}")
    out.print(table)
    out.print(result["environment"])
