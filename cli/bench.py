"""`tidegate bench`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.console import err, out, print_json
from cli.demo import ensure_models
from harness.bench import ThroughputPlan, run_throughput
from harness.bench_memory import RATES, MemoryPlan, run_memory
from harness.bench_steps import StepsPlan, run_steps

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
def steps(
    customers: Annotated[int, typer.Option(min=50, help="Customers of the generated bank.")] = 1000,
    days: Annotated[int, typer.Option(min=5, help="Days of events.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="Of the bank.")] = 3,
    chunk: Annotated[int, typer.Option(min=1, help="Records of a chunk.")] = 1000,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions; figures are medians.")] = 5,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/models"),
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Processor time of the worker's own steps, per event: no broker, no Redis, no waiting."""
    ensure_models(models)
    result = run_steps(StepsPlan(models, customers, days, seed, chunk, runs))
    if json:
        print_json(result)
        return
    table = Table("step", "µs per event", title=f"{result['events']:,} events in chunks of {chunk}")
    for step, microseconds in result["cpu_microseconds_per_event"].items():
        table.add_row(step, f"{microseconds:.2f}")
    table.add_row("sum", f"{result['sum']:.2f}")
    out.print(table)
    out.print(result["environment"])


@app.command()
def memory(
    seed: Annotated[int, typer.Option(min=0, help="Of the bank.")] = 3,
    rate: Annotated[list[int] | None, typer.Option(min=1, help="Events of a customer in 90 days.")] = None,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/models"),
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Bytes that Redis holds of one customer, by events in 90 days.

    Starts its own Valkey. Everything of a customer is counted: history, newest scores, churn score,
    share of the index; only the profile is not.
    """
    ensure_models(models)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        result = run_memory(MemoryPlan(Path(folder), models, seed, tuple(rate or RATES)))
    if json:
        print_json(result)
        return
    parts = list(result["customers"][0]["parts_mean"])
    table = Table("events in 90 days", "bytes, mean", "most", *parts, title="Redis memory of one customer")
    for row in result["customers"]:
        shown = [row["events_in_90_days"], row["bytes_mean"], row["bytes_max"], *row["parts_mean"].values()]
        table.add_row(*(f"{number:,}" for number in shown))
    out.print(table)
    out.print(result["server"] | result["environment"])
