"""`tidegate bench latency` and `tidegate bench start`."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.console import err, out, print_json
from cli.demo import ensure_models
from harness.bench import Broker
from harness.bench_latency import STEPS, LatencyPlan, run_latency
from harness.bench_start import StartPlan, run_start
from schemas.errors import ConfigError

RATES = (2_000.0, 10_000.0)


def latency(
    rate: Annotated[
        list[float] | None,
        typer.Option(min=1, help="Events a second; several are measured one after another."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Of each rate, after two that do not count.")] = 15,
    customers: Annotated[int, typer.Option(min=50, help="Customers of the generated bank.")] = 4000,
    days: Annotated[int, typer.Option(min=5, help="Days of their events, processed before.")] = 14,
    seed: Annotated[int, typer.Option(min=0, help="Of the bank.")] = 3,
    bootstrap: Annotated[
        str, typer.Option(help="Kafka brokers instead of the embedded one; with --redis-url.")
    ] = "",
    redis_url: Annotated[str, typer.Option(help="Redis or Valkey there.")] = "",
    broker: Annotated[
        Broker,
        typer.Option(help="What is started without --bootstrap; auto: Apache Kafka where Java is here."),
    ] = Broker.AUTO,
    metrics_url: Annotated[
        str, typer.Option(help="Metrics of a worker that runs there; none is started then.")
    ] = "",
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/models"),
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency over rate into this file (.svg, .png).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As in docs/benchmarks.md.")] = False,
) -> None:
    """Time from a transaction being due to its score being readable, at fixed rates.

    The schedule waits for nobody: what comes late counts as late from the time it was due. A publisher
    and an independent reader run as processes of their own; a run whose publisher was late says so.
    Without addresses, a broker and Valkey are started.
    """
    if bool(bootstrap) != bool(redis_url or metrics_url):
        raise ConfigError("give --bootstrap together with --redis-url, or with the --metrics-url of a worker")
    if plot is not None:
        from harness.latency_plot import require_matplotlib

        require_matplotlib()
    if not metrics_url:
        ensure_models(models)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        plan = LatencyPlan(
            data_dir=Path(folder),
            models=models,
            customers=customers,
            days=days,
            seed=seed,
            rates=tuple(rate or RATES),
            seconds=seconds,
            bootstrap=bootstrap,
            redis_url=redis_url,
            metrics_url=metrics_url,
            broker=broker,
        )
        result = run_latency(plan, lambda text: err.print(text, highlight=False))
    if plot is not None:
        from harness.latency_plot import draw

        draw(result, plot)
    if json:
        print_json(result)
        return
    _show(result, markdown)
    err.print(result["environment"])


def _show(result: dict[str, Any], markdown: bool) -> None:
    names = ("events/s", "p50", "p90", "p99", "p99.9", "max", "published p99", "publisher late p99", "note")
    rows = [_row(measured) for measured in result["rates"]]
    if markdown:
        for row in (names, ("---:",) * len(names), *rows):
            print(f"| {' | '.join(row)} |")
    else:
        table = Table(*names, title="milliseconds from due to readable")
        for row in rows:
            table.add_row(*row)
        out.print(table)
    steps = ("events/s", "records a chunk", *STEPS, "worker's processor")
    rows = [
        (
            f"{m['rate']:,.0f}",
            f"{m['chunk_records_mean']:g}",
            *(f"{m['step_microseconds_per_event'][step]:g}" for step in STEPS),
            f"{m['worker_cpu_microseconds_per_event']:g}",
        )
        for m in result["rates"]
    ]
    if markdown:
        print()
        for row in (steps, ("---:",) * len(steps), *rows):
            print(f"| {' | '.join(row)} |")
    else:
        table = Table(*steps, title="microseconds per event; publish and commit are waiting")
        for row in rows:
            table.add_row(*row)
        out.print(table)


def _row(measured: dict[str, Any]) -> tuple[str, ...]:
    notes = [
        *(["publisher late"] if measured["publisher_late"] else []),
        *(["saturated"] if measured["saturated"] else []),
        *([f"{measured['missing']:,} missing"] if measured["missing"] else []),
    ]
    shown = ["never" if value is None else f"{value:g}" for value in measured["latency_ms"].values()]
    return (
        f"{measured['rate']:,.0f}",
        *shown,
        f"{measured['acknowledged_ms']['p99']:g}",
        f"{measured['publisher_late_ms']['p99']:g}",
        ", ".join(notes),
    )


def start(
    runs: Annotated[int, typer.Option(min=1, help="Starts with compiled kernels; figures are medians.")] = 3,
    compiling: Annotated[bool, typer.Option(help="Also start once with nothing compiled.")] = True,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/models"),
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Time from starting a worker's process to its first score being readable.

    The transactions are in the log before. Starts its own broker and Valkey.
    """
    ensure_models(models)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        plan = StartPlan(Path(folder), models, runs, compiling)
        result = run_start(plan, lambda text: err.print(text, highlight=False))
    if json:
        print_json(result)
        return
    table = Table("seconds", "first score", "metrics answer", "worker's processor time")
    for name in ("compiling", "cached"):
        if found := result.get(name):
            table.add_row(
                f"kernels {name}",
                f"{found['first_score_s']:g}",
                f"{found['metrics_answer_s']:g}",
                f"{found['worker_cpu_s']:g}",
            )
    out.print(table)
    err.print(result["environment"])
