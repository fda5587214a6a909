"""`tidegate demo`."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from cli.console import err, out, print_json
from cli.generated import bank_settings
from cli.training import TrainingPlan, train_on_bank
from harness.demo import ENTITIES, DemoPlan, run_demo
from harness.view import Screen
from infra.feature_file import load_engine
from models.registry import ModelRegistry
from schemas.errors import ModelError


def demo(
    customers: Annotated[int, typer.Option(min=50, help="Customers of the bank.")] = 1000,
    days: Annotated[int, typer.Option(min=10, help="Days of history, ending today.")] = 75,
    seconds: Annotated[float | None, typer.Option(min=5, help="Length of the live part.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bank.")] = 2026,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Model registry; trained if it is empty.")
    ] = Path(".tidegate/demo-models"),
    json: Annotated[bool, typer.Option("--json", help="Print the summary for machines.")] = False,
) -> None:
    """Run everything here: a bank with fraud in it, broker, Redis, worker and API.

    Needs nothing but this package. On a terminal it shows what happens and stays up until Ctrl-C; else
    it ends by itself. Exits 0 only if every event got exactly one score.
    """
    watched = err.is_terminal and not json
    ensure_models(models, ENTITIES)
    data_dir = Path(tempfile.mkdtemp(prefix="tidegate-demo-"))
    plan = DemoPlan(
        data_dir,
        models,
        bank_settings(customers, days, seed, end=datetime.now(UTC)),
        seconds or (90.0 if watched else 25.0),
        hold=watched,
    )
    summary: dict[str, Any] = {}
    try:
        summary = asyncio.run(_run(plan, watched))
    except KeyboardInterrupt:
        err.print("ended before there was a summary")
        raise typer.Exit(130) from None
    finally:
        if summary.get("ok"):
            shutil.rmtree(data_dir, ignore_errors=True)
        else:
            err.print(f"logs are kept in {data_dir / 'logs'}")
    if json:
        print_json(summary)
    else:
        out.print(_table(summary))
    raise typer.Exit(0 if summary["ok"] else 1)


async def _run(plan: DemoPlan, watched: bool) -> dict[str, Any]:
    hold = asyncio.Event()
    with contextlib.ExitStack() as stack:
        if watched:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, hold.set)
            live = stack.enter_context(Live(console=err, screen=True, refresh_per_second=4))
            return await run_demo(plan, live.update, hold)
        phases: set[str] = set()

        def report(screen: Screen) -> None:
            if screen.phase not in phases:
                phases.add(screen.phase)
                err.print(screen.phase, highlight=False)

        return await run_demo(plan, report, hold)


def ensure_models(models: Path, entities: str = "") -> None:
    """Train unless the registry has models for these declarations."""
    try:
        ModelRegistry(models).load_champions(load_engine(None, entities))
    except ModelError:
        err.print("training models on a generated bank (once; kept under .tidegate)", highlight=False)
        train_on_bank(TrainingPlan(models, entities=entities), bank_settings(1500, 180, 11))


def _table(summary: dict[str, Any]) -> Table:
    table = Table("", "", title="Tidegate demo", show_header=False)
    latency, fraud = summary["latency_ms"], summary["fraud"]
    table.add_row("events in", f"{summary['events_in']:,}")
    table.add_row(
        "fraud scores out", f"{summary['fraud_scores_out']:,} ({summary['repeated_scores']} repeated)"
    )
    table.add_row("churn scores out", f"{summary['churn_scores_out']:,}")
    table.add_row("alerts", ", ".join(f"{n} {k}" for k, n in sorted(summary["alerts"].items())))
    dead = sum(summary["dead_letters"].values())
    table.add_row("dead letters", f"{dead} of {summary['bad_messages_sent']} bad messages")
    table.add_row("events/s over the history", f"{summary['events_per_second']:,}")
    table.add_row("publish to score", f"p50 {latency['p50']} ms, p99 {latency['p99']} ms")
    table.add_row("precision, recall", f"{fraud['precision']}, {fraud['recall']} ({fraud['frauds']} frauds)")
    table.add_row("result", "every event scored once" if summary["ok"] else "NOT every event scored once")
    return table
