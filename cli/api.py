"""`tidegate api`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.main import serve
from api.production import check
from api.settings import ApiSettings
from cli.console import err
from infra.given import settings_of
from infra.logs import configure, level_by_signal


def api(
    redis_url: Annotated[str | None, typer.Option(help="Redis or Valkey, redis://HOST:PORT/DB.")] = None,
    models: Annotated[Path | None, typer.Option(help="Folder of the model registry.")] = None,
    namespace: Annotated[str | None, typer.Option(help="First part of every Redis key.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Answer lookups and synchronous scores over HTTP; documentation at /docs."""
    given: dict[str, Any] = {
        "redis_url": redis_url,
        "models": models,
        "namespace": namespace,
        "http_host": host,
        "http_port": port,
    }
    settings = settings_of(ApiSettings, given)
    configure(settings.log_level, settings.log_format)
    check(settings)
    level_by_signal(settings.log_level, settings.log_format)
    scheme = "https" if settings.tls_cert else "http"
    err.print(f"API on {scheme}://{settings.http_host}:{settings.http_port}/docs", highlight=False)
    serve(settings)
