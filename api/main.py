"""Where the API is put together and run."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram

from api.deps import Services
from api.errors import add_error_handlers
from api.routes import customers, health, inference
from api.settings import ApiSettings
from features.engine import Engine
from infra.history_store import RedisHistoryStore
from models.registry import ModelRegistry

_DESCRIPTION = """
Lookups and synchronous scores from the state that the stream keeps. There is no login yet: keep it on
a loopback or private address.
"""


def create_app(services: Services, close: Callable[[], Awaitable[None]] | None = None) -> FastAPI:
    """The application over given services.

    Args:
        services: What routes use.
        close: Called when the application ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services.models.engine.warm_up()
        yield
        if close is not None:
            await close()

    app = FastAPI(title="Tidegate", version="0.1.0", description=_DESCRIPTION, lifespan=lifespan)
    app.state.services = services
    app.state.registry = CollectorRegistry()
    _measure(app)
    add_error_handlers(app)
    for module in (health, customers, inference):
        app.include_router(module.router)
    return app


def _measure(app: FastAPI) -> None:
    requests = Counter(
        "tidegate_http_requests_total",
        "Requests.",
        ["method", "route", "status"],
        registry=app.state.registry,
    )
    seconds = Histogram(
        "tidegate_http_request_seconds",
        "Time to answer.",
        ["route"],
        buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
        registry=app.state.registry,
    )

    @app.middleware("http")
    async def measure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        response = await call_next(request)
        # The route's pattern, never the path: paths name customers.
        route = getattr(request.scope.get("route"), "path", "unmatched")
        requests.labels(request.method, route, str(response.status_code)).inc()
        seconds.labels(route).observe(time.perf_counter() - started)
        return response


def build(settings: ApiSettings) -> FastAPI:
    """The application against Redis.

    Raises:
        ModelError: A model is missing or does not fit.
    """
    engine = Engine()
    store = RedisHistoryStore(
        settings.redis_url, namespace=settings.namespace, timeout_s=settings.http_redis_timeout_s
    )
    models = ModelRegistry(settings.models).load_champions(engine)
    services = Services(store, models, store.ping, lambda: datetime.now(UTC))
    return create_app(services, store.close)


def serve(settings: ApiSettings) -> None:
    """Run until told to stop."""
    uvicorn.run(
        build(settings),
        host=settings.http_host,
        port=settings.http_port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
