"""`tidegate bench`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.bench_latency import latency, start
from cli.console import err, out, print_json
from cli.demo import ensure_models
from harness.bench import Broker, ThroughputPlan, environment, run_throughput
from harness.bench_api import ApiPlan, run_api
from harness.bench_features import markdown as features_markdown
from harness.bench_features import run_features
from harness.bench_memory import RATES, MemoryPlan, run_memory
from harness.bench_steps import StepsPlan, run_steps

app = typer.Typer(no_args_is_help=True, help="Measurements.")
app.command()(latency)
app.command()(start)


@app.callback()
def bench() -> None:
    """Measurements."""


@app.command()
def throughput(
    customers: Annotated[int, typer.Option(min=50, help="Customers of the generated bank.")] = 2000,
    days: Annotated[int, typer.Option(min=1, help="Days of events.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="Of the bank.")] = 3,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions; the figure is their median.")] = 5,
    workers: Annotated[int, typer.Option(min=1, max=4, help="Processes that share the partitions.")] = 1,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/models"),
    entities: Annotated[
        str,
        typer.Option(
            envvar="TIDEGATE_ENTITIES", help="Entities with features: merchant,device,counterparty."
        ),
    ] = "",
    broker: Annotated[
        Broker, typer.Option(help="What is started; auto: Apache Kafka where Java is here.")
    ] = Broker.EMBEDDED,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Scored events per second of workers that drain a backlog, and what each event costs where.

    Starts its own broker and Valkey on this machine. Both models score, scores are published and
    acknowledged, histories are appended to Redis. Steps are times by the clock, waiting included, of which
    partitions have theirs side by side; processor time is that of each process.
    """
    ensure_models(models, entities)
    err.print(f"{runs} runs; each publishes a backlog, then starts {workers} worker(s)", highlight=False)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        plan = ThroughputPlan(Path(folder), models, customers, days, seed, runs, entities, workers, broker)
        result = run_throughput(plan)
    if json:
        print_json(result)
        return
    out.print(f"[bold]{result['events_per_second']:,} scored events/s[/] (median of {result['runs']})")
    title = f"{result['events']:,} events in chunks of {result['chunk_records_mean']}"
    for what, key in (("step", "step_microseconds_per_event"), ("processor", "cpu_microseconds_per_event")):
        table = Table(what, "µs per event", title=title)
        for name, microseconds in result[key].items():
            table.add_row(name, f"{microseconds:.2f}")
        out.print(table)
    out.print(result["environment"])


@app.command()
def api(
    customers: Annotated[int, typer.Option(min=1000, help="Customers loaded before.")] = 20_000,
    days: Annotated[int, typer.Option(min=2, help="Days of their events.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the bank.")] = 3,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second on each endpoint.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="On each endpoint.")] = 10,
    login: Annotated[
        bool, typer.Option("--login", help="With tokens, rate limits and audit trail on every endpoint.")
    ] = False,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/models"),
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As in docs/benchmarks.md.")] = False,
) -> None:
    """Latency of each endpoint of one API process at a fixed rate, over a bank that was processed before.

    Latency counts from the time a request was due. Batches, and loading models, are asked less often.
    """
    ensure_models(models)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        plan = ApiPlan(Path(folder), models, customers, days, seed, rate, seconds, login)
        result = run_api(plan, lambda text: err.print(text, highlight=False))
    if json:
        print_json(result)
        return
    rows = [
        (
            e["endpoint"],
            f"{e['rate']:g}",
            str(e["requests"]),
            str(e["failed"]),
            f"{e['p50_ms']:g}",
            f"{e['p99_ms']:g}",
            f"{e['aim_ms']:g}",
            f"{e['cpu_ms']:g}",
            "yes" if e["within"] else "no",
        )
        for e in result["endpoints"]
    ]
    names = ("endpoint", "requests/s", "requests", "failed", "p50 ms", "p99 ms", "aim ms", "CPU ms", "within")
    if markdown:
        for row in (names, ("---",) * len(names), *rows):
            print(f"| {' | '.join(row)} |")
    else:
        table = Table(
            *names, title=f"{result['transactions']:,} transactions of {result['customers']:,} customers"
        )
        for row in rows:
            table.add_row(*row)
        out.print(table)
    err.print(result["environment"])


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
        print(features_markdown(result), end="")
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
