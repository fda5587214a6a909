"""`tidegate sink`."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.given import settings_of
from infra.logs import configure
from sink.app import run_sink
from sink.settings import SinkSettings


def sink(
    bootstrap: Annotated[str | None, typer.Option(help="Kafka brokers, HOST:PORT[,HOST:PORT].")] = None,
    events: Annotated[Path | None, typer.Option(help="Folder of the event log.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus port; 0: none.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Keep accepted transactions with their scores as Parquet, and the customer index in SQL.

    The database is a setting only, TIDEGATE_DATABASE_URL, because there may be a password in it. One
    sink for each database. SIGTERM writes what is complete and exits 0; 3 means that event log,
    database and Kafka do not fit and a person must decide.
    """
    given: dict[str, Any] = {
        "bootstrap": bootstrap,
        "events": events,
        "metrics_port": metrics_port,
        "log_level": log_level,
    }
    settings = settings_of(SinkSettings, given)
    configure(settings.log_level, settings.log_format)
    raise typer.Exit(asyncio.run(run_sink(settings)))
