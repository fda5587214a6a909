"""`tidegate worker`."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.given import settings_of
from infra.logs import configure, level_by_signal
from stream_app.app import run_worker
from stream_app.settings import WorkerSettings


def worker(
    bootstrap: Annotated[str | None, typer.Option(help="Kafka brokers, HOST:PORT[,HOST:PORT].")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Redis or Valkey, redis://HOST:PORT/DB.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of the model registry.")] = None,
    group: Annotated[str | None, typer.Option(help="Kafka consumer group.")] = None,
    namespace: Annotated[str | None, typer.Option(help="First part of every Redis key.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus port; 0: none.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Score transactions from Kafka until told to stop.

    Every setting can also come from the environment as TIDEGATE_<NAME>. Waits for Kafka and Redis if
    they are not there. SIGTERM finishes what is under way and exits 0; 3 means that state, log or
    models do not fit and a person must decide.
    """
    given: dict[str, Any] = {
        "bootstrap": bootstrap,
        "redis_url": redis_url,
        "models": models,
        "group": group,
        "namespace": namespace,
        "metrics_port": metrics_port,
        "log_level": log_level,
    }
    settings = settings_of(WorkerSettings, given)
    configure(settings.log_level, settings.log_format)
    level_by_signal(settings.log_level, settings.log_format)
    raise typer.Exit(asyncio.run(run_worker(settings)))
