"""Where the API is put together and run."""

import asyncio
import contextlib
import gc
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry, Counter, GCCollector, PlatformCollector, ProcessCollector
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.audit import Auditor
from api.connections import Http, Socket
from api.deps import Services
from api.document import add_document
from api.errors import add_error_handlers
from api.exchange import Conditional, Deadline, RequestIds
from api.failure_policy import FailurePolicy
from api.gate import Admission, Gate, Security, authorise
from api.headers import SecurityHeaders, browser_headers
from api.idempotency import KeepReplies, Replayed, replay
from api.limits import Kind, Limits, LocalLimiter, Quota
from api.live import LiveHub
from api.middleware import BodyLimit, Measured, RequestMetrics
from api.personal import Personal
from api.ports import InvalidPosition, Kept, Page, Reply
from api.production import check
from api.quick import QuickLane, QuickLookup, QuickScore
from api.reloading import ModelReload
from api.routes import analytics, auth, batch, customers, explain, health, inference, root, stream
from api.routes import models as model_routes
from api.routes import personal as personal_routes
from api.routes.docs import add_docs
from api.settings import ApiSettings
from api.tokens import TokenIssuer, TokenVerifier
from features import lifetime
from infra.access import KafkaAccess, RedisAccess, expires, from_environment
from infra.audit_log import AuditLog
from infra.audit_topic import AuditTopic
from infra.client_store import ClientStore
from infra.contact_vault import ContactVault
from infra.customer_index import SqlCustomerIndex
from infra.database import Database
from infra.dependency_metrics import DependencyMetrics, ModelMetrics
from infra.erasure_requests import ErasureRequests
from infra.event_queries import EventQueries
from infra.feature_file import load_engine
from infra.history_store import RedisHistoryStore
from infra.key_ring import KeyRing
from infra.kms import TransitKeys, master_keys
from infra.measured import MeasuredHistoryStore
from infra.model_store import open_registry
from infra.private_files import is_exposed
from infra.rate_limits import RedisLimiter
from infra.remote_keys import RemoteKeys
from infra.replies import RedisReplies
from infra.score_feed import KafkaScores
from infra.signing_keys import SigningKeys
from infra.spans import trace_requests
from models.in_use import ModelsInUse
from models.model_set import Models
from models.segments import SegmentModel
from schemas.errors import ConfigError
from schemas.topics import FRAUD_SCORES

_DESCRIPTION = """
Lookups and synchronous scores from the state that the stream keeps. Where login is on, programs get an
access token from `/auth/token`, or from the bank's own issuer, and send it with every request.
"""


class Api(FastAPI):
    """The application, with a way before all of it.

    Attributes:
        lane: Asked first; passes on what it does not answer.
    """

    lane: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if self.lane is None:
            await self.whole(scope, receive, send)
            return
        scope["app"] = self
        await self.lane(scope, receive, send)

    async def whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by middleware and routes."""
        await super().__call__(scope, receive, send)


def create_app(
    services: Services | Mapping[str, Services],
    close: Callable[[], Awaitable[None]] | None = None,
    security: Security | None = None,
    settings: ApiSettings | None = None,
    registry: CollectorRegistry | None = None,
    personal: Mapping[str, Personal] | None = None,
    beside: Callable[[], Coroutine[None, None, None]] | None = None,
    settle: Callable[[], None] | None = None,
) -> Api:
    """The application over given services.

    Args:
        services: What routes use, by tenant; or for the one tenant `default`.
        close: Called when the application ends.
        security: How it is closed; open if left out.
        settings: For documentation pages, browsers and HTTPS.
        registry: Of metrics.
        personal: Customers' own data, by tenant.
        beside: Runs until the application ends.
        settle: Called when everything is loaded, before the first request.
    """
    tenants = {"default": services} if isinstance(services, Services) else dict(services)
    security = security or Security()
    settings = settings or ApiSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        next(iter(tenants.values())).models.engine.warm_up()
        lifetime.warm_up()
        if settle is not None:
            settle()
        feeds = [asyncio.ensure_future(s.feed.run()) for s in tenants.values() if s.feed is not None]
        if beside is not None:
            feeds.append(asyncio.ensure_future(beside()))
        async with security.auditor.running() if security.auditor else contextlib.nullcontext():
            yield
        for feed in feeds:
            feed.cancel()
        await asyncio.gather(*feeds, return_exceptions=True)
        if close is not None:
            await close()

    app = Api(
        title="Tidegate",
        version="0.1.0",
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Every route, also one that is added later, asks who comes in.
        dependencies=[Depends(authorise)],
        # A redirect would go to whatever host the request named.
        redirect_slashes=False,
        # Our own pages, which load nothing from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.http_docs else None,
        # FastAPI's spans and logs would carry paths, which name customers, and errors' own words.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.tenants = tenants
    app.state.security = security
    app.state.personal = personal or {}
    app.state.registry = registry or CollectorRegistry()
    # One for all tenants, where there are several.
    next(iter(tenants.values())).policy.register(app.state.registry)
    app.state.replies = next(iter(tenants.values())).replies
    admission, metrics = Admission(security, app.state.registry), RequestMetrics(app.state.registry)
    https = settings.tls_cert is not None or bool(settings.trusted_proxies)
    app.add_middleware(KeepReplies)
    app.add_middleware(BodyLimit)
    app.add_middleware(Deadline, seconds=settings.http_timeout_s)
    app.add_middleware(Conditional)
    app.add_middleware(Gate, admission=admission)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"],
            expose_headers=["ETag", "RateLimit", "RateLimit-Policy", "Retry-After"],
        )
    app.add_middleware(SecurityHeaders, https=https)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(RequestIds)
    add_error_handlers(app)
    app.add_exception_handler(Replayed, replay)
    # The most asked first: FastAPI looks at one after the other.
    asked = (customers, inference, explain, batch, analytics, health, root, auth, model_routes, stream)
    for module in (*asked, personal_routes):
        app.include_router(module.router)
    app.include_router(customers.whole)
    lookups = [QuickLookup(path, answer) for path, answer in customers.LOOKUPS.items()]
    quick = [*lookups, *(QuickScore(path, answer) for path, answer in inference.SCORES.items())]
    app.router.routes[:0] = quick
    app.lane = QuickLane(
        app.whole,
        quick,
        admission,
        metrics,
        browser_headers(https=https) + ([(b"vary", b"Origin")] if settings.cors_origins else []),
        settings.http_timeout_s,
        origins=bool(settings.cors_origins),
    )
    add_document(app)
    if settings.http_docs:
        add_docs(app)
    return app


def new_registry() -> tuple[CollectorRegistry, DependencyMetrics, ModelMetrics]:
    """A registry with what an API process shows besides its requests."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry, DependencyMetrics(registry), ModelMetrics(registry)


def build(settings: ApiSettings) -> Api:
    """The application against Redis.

    Raises:
        ConfigError: Settings are for development only, or do not fit.
        ModelError: A model is missing or does not fit.
    """
    check(settings)
    registry, calls, shown = new_registry()
    kafka, redis = from_environment()
    security, closing = _security(settings, registry, redis, kafka)
    engine = load_engine(settings.features, settings.entities, settings.attributes)
    for use, path in (*kafka.certificates(), *redis.certificates()):
        calls.certificate(use, expires(path))
    in_use = ModelsInUse(open_registry(settings.models, settings.mlflow_uri), engine, shadows=False)

    def load() -> tuple[Models, SegmentModel | None]:
        segments = in_use.refresh_segments()
        refused = in_use.refresh().refused
        if refused is not None:
            raise refused
        return in_use.current, segments

    models, segments = load()
    shown.show(models)
    stores = {
        tenant: MeasuredHistoryStore(
            settings.redis_url,
            calls,
            namespace=namespace,
            timeout_s=settings.http_redis_timeout_s,
            options=redis.options(settings.redis_url),
        )
        for tenant, namespace in (settings.tenants or {"default": settings.namespace}).items()
    }

    replies = RedisReplies(
        settings.redis_url,
        prefix=f"{settings.namespace}:api",
        kept=_kept,
        timeout_s=settings.http_redis_timeout_s,
        options=redis.options(settings.redis_url),
    )
    closing.append(replies.close)
    personal = _personal(settings, stores, closing, kafka, calls)

    async def close() -> None:
        for store in stores.values():
            await store.close()
        for part in closing:
            await part()

    policy = FailurePolicy(settings.on_redis_away, settings.on_history_unreadable)
    services = {
        tenant: Services(
            store,
            models,
            store.ping,
            _now,
            segments=segments,
            reload=load,
            replies=replies,
            policy=policy,
            loaded_at=_now(),
        )
        for tenant, store in stores.items()
    }
    # Sink and topics are of one namespace: no other tenant sees what they hold.
    for tenant, namespace in (settings.tenants or {"default": settings.namespace}).items():
        if namespace == settings.namespace:
            closing.append(_add_sink(services[tenant], settings, kafka))
    watch = ModelReload(services.values(), load, shown.taken, shown.refused, settings.models_watch_s)
    app = create_app(services, close, security, settings, registry, personal, watch.run, _settle)
    if settings.tracing:
        trace_requests(app, "tidegate-api")
        # Spans are made by a middleware.
        app.lane = None
    return app


def _add_sink(services: Services, settings: ApiSettings, kafka: KafkaAccess) -> Callable[[], Awaitable[None]]:
    """Give a tenant what the sink keeps, and live scores; returns how that is closed."""
    database = Database(settings.database_url)
    events = EventQueries(database, settings.events, Page)
    services.index, services.events = SqlCustomerIndex(database, Page), events
    if settings.bootstrap:
        scores = KafkaScores(settings.bootstrap, FRAUD_SCORES.name, InvalidPosition, options=kafka.options())
        services.feed = LiveHub(scores, kept=settings.live_kept, waiting=settings.live_clients_wait)

    async def close() -> None:
        events.close()
        database.close()

    return close


def _kept(request: str, status: int = 0, content_type: str = "", body: bytes = b"") -> Kept:
    return Kept(request, Reply(status, content_type, body) if status else None)


def _security(
    settings: ApiSettings, registry: CollectorRegistry, redis: RedisAccess, kafka: KafkaAccess
) -> tuple[Security, list[Callable[[], Awaitable[None]]]]:
    """How settings close the API, and what is to be closed at the end."""
    if settings.api_mode == "production" and settings.security_dir.is_dir():
        for path in settings.security_dir.glob("*.json"):
            if is_exposed(path):
                raise ConfigError(f"{path} can be read or changed by others: run 'chmod 600 {path}'")
    limiter = None
    closing: list[Callable[[], Awaitable[None]]] = []
    if settings.rate_limits == "on" or (settings.rate_limits == "auto" and settings.auth != "off"):
        url = settings.rate_limits_redis_url or settings.redis_url
        counter = RedisLimiter(
            url,
            prefix=f"{settings.namespace}:limit",
            timeout_s=settings.rate_limits_timeout_s,
            options=redis.options(url),
        )
        closing.append(counter.close)
        noted = Counter(
            "tidegate_rate_limit_total",
            "Requests limited or not counted together.",
            ["event"],
            registry=registry,
        )
        limiter = Limits(_quotas(settings), counter, LocalLimiter(), lambda event: noted.labels(event).inc())
    auditor = None
    if settings.audit == "on" or (settings.audit == "auto" and settings.auth != "off"):
        told = settings.audit_keys.get_secret_value()
        ring = KeyRing.of_text(told) if told else KeyRing.of_file(settings.security_dir, "audit")
        trail = AuditLog(settings.audit_dir, ring, anchor=settings.audit_anchor)
        audited = Counter("tidegate_audit_total", "Audit records.", ["event"], registry=registry)
        copies = None
        if settings.bootstrap and settings.audit_topic:
            copies = AuditTopic(
                settings.bootstrap, lambda event, n: audited.labels(event).inc(n), options=kafka.options()
            )
        auditor = Auditor(trail, lambda event: audited.labels(event).inc(), copies)
    if settings.auth == "off":
        return Security(limits=limiter, auditor=auditor), closing
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
        verifier = TokenVerifier(remote, **said, now=_now)
        return Security(verifier, limits=limiter, auditor=auditor), closing
    keys = SigningKeys(settings.security_dir)
    clients = ClientStore(settings.security_dir)
    keys.current()
    issuer = TokenIssuer(lambda: keys.current().key, **said, ttl_s=settings.auth_token_ttl_s, now=_now)
    verifier = TokenVerifier(keys, **said, now=_now)
    return Security(verifier, clients, issuer, keys.public, limiter, auditor), closing


def _personal(
    settings: ApiSettings,
    stores: Mapping[str, RedisHistoryStore],
    closing: list[Callable[[], Awaitable[None]]],
    kafka: KafkaAccess,
    calls: DependencyMetrics,
) -> dict[str, Personal]:
    """How customers' own data is opened and erased, by tenant."""
    keys = master_keys(settings.data_keys.get_secret_value(), settings.security_dir, measure=calls.call)
    if isinstance(keys, TransitKeys):
        closing.append(keys.close)
    brokers = settings.tenant_bootstrap
    if not brokers and len(stores) == 1 and settings.bootstrap:
        brokers = dict.fromkeys(stores, settings.bootstrap)
    found = {}
    for tenant, store in stores.items():
        vault = ContactVault(keys, store.namespace) if keys else None
        requests = None
        if tenant in brokers:
            requests = ErasureRequests(brokers[tenant], store, options=kafka.options())
            closing.append(requests.close)
        found[tenant] = Personal(vault.open if vault else None, requests.send if requests else None)
    return found


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
        http=Http,
        ws=Socket,
        # What clients say on a socket is not looked at.
        ws_max_size=4096,
        # A compressor for each of hundreds of clients costs more than what it saves.
        ws_per_message_deflate=False,
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


def _settle() -> None:
    """Keep what is loaded, and other threads, out of the way of answers."""
    # What is there now stays: a full collection that looks through it stops every answer for 0.1 s.
    gc.collect()
    gc.freeze()
    # Questions to the database run in threads; at Python's 5 ms one of them holds up an answer for as long
    # as a lookup may take.
    sys.setswitchinterval(0.001)


def _now() -> datetime:
    return datetime.now(UTC)
