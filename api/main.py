"""Where the API is put together and run."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry, Counter
from starlette.middleware.cors import CORSMiddleware

from api.deps import Services
from api.document import add_document
from api.errors import add_error_handlers
from api.gate import Gate, Security, authorise
from api.headers import SecurityHeaders
from api.limits import Kind, Limits, LocalLimiter, Quota
from api.middleware import BodyLimit, Measured
from api.production import check
from api.routes import auth, customers, health, inference
from api.routes.docs import add_docs
from api.settings import ApiSettings
from api.tokens import TokenIssuer, TokenVerifier
from features.engine import Engine
from infra.client_store import ClientStore
from infra.history_store import RedisHistoryStore
from infra.private_files import is_exposed
from infra.rate_limits import RedisLimiter
from infra.remote_keys import RemoteKeys
from infra.signing_keys import SigningKeys
from models.registry import ModelRegistry
from schemas.errors import ConfigError

_DESCRIPTION = """
Lookups and synchronous scores from the state that the stream keeps. Where login is on, programs get an
access token from `/auth/token`, or from the bank's own issuer, and send it with every request.
"""


def create_app(
    services: Services | Mapping[str, Services],
    close: Callable[[], Awaitable[None]] | None = None,
    security: Security | None = None,
    settings: ApiSettings | None = None,
    registry: CollectorRegistry | None = None,
) -> FastAPI:
    """The application over given services.

    Args:
        services: What routes use, by tenant; or for the one tenant `default`.
        close: Called when the application ends.
        security: How it is closed; open if left out.
        settings: For documentation pages, browsers and HTTPS.
        registry: Of metrics.
    """
    tenants = {"default": services} if isinstance(services, Services) else dict(services)
    security = security or Security()
    settings = settings or ApiSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        next(iter(tenants.values())).models.engine.warm_up()
        yield
        if close is not None:
            await close()

    app = FastAPI(
        title="Tidegate",
        version="0.1.0",
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Every route, also one that is added later, asks who comes in.
        dependencies=[Depends(authorise)],
        # Our own pages, which load nothing from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.http_docs else None,
        # FastAPI's spans and logs would carry paths, which name customers, and errors' own words.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.tenants = tenants
    app.state.security = security
    app.state.registry = registry or CollectorRegistry()
    app.add_middleware(BodyLimit)
    app.add_middleware(Gate, security=security, registry=app.state.registry)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"],
            expose_headers=["ETag", "RateLimit", "RateLimit-Policy", "Retry-After"],
        )
    app.add_middleware(SecurityHeaders, https=settings.tls_cert is not None or bool(settings.trusted_proxies))
    app.add_middleware(Measured, registry=app.state.registry)
    add_error_handlers(app)
    for module in (health, auth, customers, inference):
        app.include_router(module.router)
    add_document(app)
    if settings.http_docs:
        add_docs(app)
    return app


def build(settings: ApiSettings) -> FastAPI:
    """The application against Redis.

    Raises:
        ConfigError: Settings are for development only, or do not fit.
        ModelError: A model is missing or does not fit.
    """
    check(settings)
    registry = CollectorRegistry()
    security, closing = _security(settings, registry)
    engine = Engine()
    models = ModelRegistry(settings.models).load_champions(engine)
    stores = {
        tenant: RedisHistoryStore(
            settings.redis_url, namespace=namespace, timeout_s=settings.http_redis_timeout_s
        )
        for tenant, namespace in (settings.tenants or {"default": settings.namespace}).items()
    }

    async def close() -> None:
        for store in stores.values():
            await store.close()
        for part in closing:
            await part()

    services = {tenant: Services(store, models, store.ping, _now) for tenant, store in stores.items()}
    return create_app(services, close, security, settings, registry)


def _security(
    settings: ApiSettings, registry: CollectorRegistry
) -> tuple[Security, list[Callable[[], Awaitable[None]]]]:
    """How settings close the API, and what is to be closed at the end."""
    limiter = None
    closing: list[Callable[[], Awaitable[None]]] = []
    if settings.rate_limits == "on" or (settings.rate_limits == "auto" and settings.auth != "off"):
        url = settings.rate_limits_redis_url or settings.redis_url
        counter = RedisLimiter(url, prefix=f"{settings.namespace}:limit")
        closing.append(counter.close)
        noted = Counter(
            "tidegate_rate_limit_total",
            "Requests limited or not counted together.",
            ["event"],
            registry=registry,
        )
        limiter = Limits(_quotas(settings), counter, LocalLimiter(), lambda event: noted.labels(event).inc())
    if settings.auth == "off":
        return Security(limits=limiter), closing
    said = {
        "issuer": settings.auth_issuer,
        "audience": settings.auth_audience,
        "tenant_claim": settings.auth_tenant_claim,
    }
    if settings.auth == "issuer":
        fetched = Counter("tidegate_key_fetches_total", "Key sets asked for.", ["outcome"], registry=registry)
        remote = RemoteKeys(
            settings.auth_jwks_url,
            refresh_s=settings.auth_keys_refresh_s,
            interval_s=settings.auth_keys_interval_s,
            stale_s=settings.auth_keys_stale_s,
            count=lambda outcome: fetched.labels(outcome).inc(),
        )
        closing.append(remote.close)
        return Security(TokenVerifier(remote, **said, now=_now), limits=limiter), closing
    keys = SigningKeys(settings.security_dir)
    clients = ClientStore(settings.security_dir)
    for path in (keys.path, clients.path):
        if path.exists() and is_exposed(path) and settings.api_mode == "production":
            raise ConfigError(f"{path} can be read or changed by others: run 'chmod 600 {path}'")
    keys.current()
    issuer = TokenIssuer(lambda: keys.current().key, **said, ttl_s=settings.auth_token_ttl_s, now=_now)
    verifier = TokenVerifier(keys, **said, now=_now)
    return Security(verifier, clients, issuer, keys.public, limiter), closing


def _quotas(settings: ApiSettings) -> dict[Kind, Quota]:
    return {
        "auth": Quota.of(settings.rate_auth),
        "read": Quota.of(settings.rate_read),
        "score": Quota.of(settings.rate_score),
        "bulk": Quota.of(settings.rate_bulk),
        "change": Quota.of(settings.rate_change),
    }


def serve(settings: ApiSettings) -> None:
    """Run until told to stop."""
    uvicorn.run(
        build(settings),
        host=settings.http_host,
        port=settings.http_port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
        # Only a proxy that is named may say who its clients are.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        **tls_options(settings),
    )


def tls_options(settings: ApiSettings) -> dict[str, Any]:
    """What uvicorn is told about TLS; nothing where there is none."""
    if settings.tls_cert is None:
        return {}
    given: dict[str, Any] = {
        "ssl_certfile": settings.tls_cert,
        "ssl_keyfile": settings.tls_key,
        "ssl_ciphers": "ECDHE+AESGCM:ECDHE+CHACHA20",
    }
    if settings.tls_client_ca is not None:
        given |= {"ssl_ca_certs": str(settings.tls_client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return given


def _now() -> datetime:
    return datetime.now(UTC)
