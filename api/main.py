"""Where the API is put together and run."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from api.deps import Services
from api.errors import add_error_handlers
from api.failure_policy import FailurePolicy
from api.middleware import BodyLimit, Measured
from api.routes import customers, health, inference
from api.settings import ApiSettings
from features.engine import Engine
from features.entities import entity_features
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
    services.policy.register(app.state.registry)
    app.add_middleware(BodyLimit)
    app.add_middleware(Measured, registry=app.state.registry)
    add_error_handlers(app)
    for module in (health, customers, inference):
        app.include_router(module.router)
    return app


def build(settings: ApiSettings) -> FastAPI:
    """The application against Redis.

    Raises:
        ModelError: A model is missing or does not fit.
    """
    engine = Engine(entities=entity_features(settings.entities))
    store = RedisHistoryStore(
        settings.redis_url, namespace=settings.namespace, timeout_s=settings.http_redis_timeout_s
    )
    models = ModelRegistry(settings.models).load_champions(engine)
    policy = FailurePolicy(settings.on_redis_away, settings.on_history_unreadable)
    services = Services(store, models, store.ping, lambda: datetime.now(UTC), policy)
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
