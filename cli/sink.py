"""`tidegate sink`."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from infra.logs import configure
from schemas.errors import ConfigError
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
    try:
        settings = SinkSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as invalid:
        problems = [f"TIDEGATE_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in invalid.errors()]
        raise ConfigError("; ".join(problems)) from None
    configure(settings.log_level, settings.log_format)
    raise typer.Exit(asyncio.run(run_sink(settings)))
