"""`tidegate bench`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.console import err, out, print_json
from cli.demo import ensure_models
from harness.bench import ThroughputPlan, environment, run_throughput
from harness.bench_features import markdown, run_features

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
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Scored events per second of one worker that drains a backlog, with the cost of each step.

    Starts its own broker and Valkey on this machine. Both models score, scores are published and
    acknowledged, histories are appended to Redis.
    """
    ensure_models(models)
    err.print(f"{runs} runs; each publishes a backlog, then starts a worker", highlight=False)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        plan = ThroughputPlan(Path(folder), models, customers, days, seed, runs)
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


@app.command()
def features(
    runs: Annotated[
        int, typer.Option(min=1, help="Rounds; each measures everything once, figures are medians.")
    ] = 21,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As docs/benchmarks.md.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Cost of one event's features, by the length of the history and by the number of features.

    Processor time of this process, so that others on the machine count little. The first run compiles a
    kernel for each number of features, which takes a minute.
    """
    result = {**run_features(runs), "environment": environment()}
    if json:
        print_json(result)
    elif as_markdown:
        print(markdown(result), end="")
    else:
        table = Table("events in the history", "µs per event", "fastest", "ns per record")
        for row in result["by_history_length"]:
            table.add_row(
                f"{row['events']:,}",
                f"{row['microseconds']:.2f}",
                f"{row['fastest']:.2f}",
                f"{row['nanoseconds_per_record']:.1f}",
            )
        out.print(table)
        table = Table("features", "µs per event", "of that of all", title="history of 300 events")
        for row in result["by_number_of_features"]:
            table.add_row(f"{row['features']}", f"{row['microseconds']:.2f}", f"{row['to_all']:.2f}")
        out.print(table)
        out.print(result["environment"])
