"""Metrics over HTTP, for processes that answer nothing else."""

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from schemas.errors import ConfigError


def process_registry() -> CollectorRegistry:
    """A registry with what the client library knows of a process: memory, processor time, files."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer `GET /metrics` from a thread until the process ends.

    Raises:
        ConfigError: The port cannot be had.
    """
    try:
        start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(
            f"TIDEGATE_METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror or error}"
        ) from error
