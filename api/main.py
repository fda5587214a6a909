"""Where the API is put together and run."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, Counter

from api.application import Api, create_app, settle
from api.audit import Auditor
from api.deps import Loaded, Services
from api.failure_policy import FailurePolicy
from api.gate import Security
from api.limits import Limits, LocalLimiter
from api.listening import bound, check_tls, run
from api.live import LiveHub
from api.personal import Personal
from api.ports import InvalidPosition, Kept, Page
from api.production import check
from api.reloading import ModelReload
from api.settings import ApiSettings
from api.tokens import TokenIssuer, TokenVerifier
from infra.access import KafkaAccess, RedisAccess, expires, from_environment
from infra.addresses import check_bootstrap, check_redis_url
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
from infra.metrics_server import process_registry
from infra.model_store import open_registry
from infra.private_files import is_exposed
from infra.rate_limits import RedisLimiter
from infra.redis_rights import Asked, RedisRights
from infra.remote_keys import RemoteKeys, check_key_set_url
from infra.replies import RedisReplies
from infra.score_feed import KafkaScores
from infra.signing_keys import SigningKeys
from infra.spans import trace_requests
from models.in_use import ModelsInUse
from schemas.errors import ConfigError, DependencyError
from schemas.topics import FRAUD_SCORES

_log = structlog.get_logger()


def new_registry() -> tuple[CollectorRegistry, DependencyMetrics, ModelMetrics]:
    """A registry with what an API process shows besides its requests."""
    registry = process_registry()
    return registry, DependencyMetrics(registry), ModelMetrics(registry)


def build(settings: ApiSettings) -> Api:
    """The application against Redis.

    Raises:
        ConfigError: Settings are for development only, or do not fit.
        ModelError: A model is missing or does not fit.
    """
    check(settings)
    _check_places(settings)
    registry, calls, shown = new_registry()
    kafka, redis = from_environment()
    closing: list[Callable[[], Awaitable[None]]] = []
    asked: list[Asked] = []
    security = _security(settings, registry, redis, kafka, closing, asked)
    engine = load_engine(settings.features, settings.entities, settings.attributes)
    for use, path in (*kafka.certificates(), *redis.certificates(), *settings.certificates()):
        calls.certificate(use, expires(path))
    in_use = ModelsInUse(open_registry(settings.models, settings.mlflow_uri), engine, shadows=False)

    def load() -> Loaded:
        refused = in_use.refresh().refused
        if refused is not None:
            raise refused
        refused = in_use.refresh_segments().refused
        return Loaded(in_use.current, in_use.segments, refused)

    models = in_use.current
    shown.show(models)
    for what, refused in (
        ("models", in_use.refused),
        ("segments", in_use.refresh_segments().refused),
    ):
        if refused is not None:
            shown.refused(True)
            _log.error(f"{what} refused, the rest goes on", error=str(refused))
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
        kept=Kept.of,
        timeout_s=settings.http_redis_timeout_s,
        options=redis.options(settings.redis_url),
    )
    closing.append(replies.close)
    rights = RedisRights([*asked, replies.refused, *(store.refused for store in stores.values())])
    counted = sorted({feature.entity for feature in engine.entities})

    async def usable(store: RedisHistoryStore) -> None:
        await rights.require()
        await store.require_usable(counted)

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
            partial(usable, store),
            _now,
            segments=in_use.segments,
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
    app = create_app(services, close, security, settings, registry, personal, watch.run, settle)
    if settings.tracing:
        trace_requests(app, "tidegate-api")
        # Spans are made by a middleware.
        app.lane = None
    return app


def _check_places(settings: ApiSettings) -> None:
    """Refuse addresses and files that cannot be any."""
    check_redis_url(settings.redis_url)
    if settings.rate_limits_redis_url:
        check_redis_url(settings.rate_limits_redis_url, "TIDEGATE_RATE_LIMITS_REDIS_URL")
    if settings.auth == "issuer":
        check_key_set_url(settings.auth_jwks_url)
    if settings.bootstrap:
        check_bootstrap(settings.bootstrap)
    tenants = settings.tenants or {"default": settings.namespace}
    for tenant, brokers in settings.tenant_bootstrap.items():
        if tenant not in tenants:
            raise ConfigError(f"TIDEGATE_TENANT_BOOTSTRAP: there is no tenant {tenant!r} in TIDEGATE_TENANTS")
        check_bootstrap(brokers, "each value of TIDEGATE_TENANT_BOOTSTRAP")


def _add_sink(services: Services, settings: ApiSettings, kafka: KafkaAccess) -> Callable[[], Awaitable[None]]:
    """Give a tenant what the sink keeps, and live scores; returns how that is closed."""
    database = Database(settings.database_url, damaged=DependencyError)
    events = EventQueries(database, settings.events, Page)
    services.index, services.events = SqlCustomerIndex(database, Page), events
    if settings.bootstrap:
        scores = KafkaScores(settings.bootstrap, FRAUD_SCORES.name, InvalidPosition, options=kafka.options())
        services.feed = LiveHub(scores, kept=settings.live_kept, waiting=settings.live_clients_wait)

    async def close() -> None:
        events.close()
        database.close()

    return close


def _security(
    settings: ApiSettings,
    registry: CollectorRegistry,
    redis: RedisAccess,
    kafka: KafkaAccess,
    closing: list[Callable[[], Awaitable[None]]],
    asked: list[Asked],
) -> Security:
    """How settings close the API; adds what is to be closed at the end, and what rights it needs."""
    if settings.api_mode == "production" and settings.security_dir.is_dir():
        for path in settings.security_dir.glob("*.json"):
            if is_exposed(path):
                raise ConfigError(f"{path} can be read or changed by others: run 'chmod 600 {path}'")
    limiter = None
    if settings.rate_limits == "on" or (settings.rate_limits == "auto" and settings.auth != "off"):
        url = settings.rate_limits_redis_url or settings.redis_url
        counter = RedisLimiter(
            url,
            prefix=f"{settings.namespace}:limit",
            timeout_s=settings.rate_limits_timeout_s,
            options=redis.options(url),
        )
        closing.append(counter.close)
        asked.append(counter.refused)
        noted = Counter(
            "tidegate_rate_limit_total",
            "Requests limited or not counted together.",
            ["event"],
            registry=registry,
        )
        limiter = Limits(settings.quotas(), counter, LocalLimiter(), lambda event: noted.labels(event).inc())
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
        return Security(limits=limiter, auditor=auditor)
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
        return Security(verifier, limits=limiter, auditor=auditor)
    keys = SigningKeys(settings.security_dir)
    clients = ClientStore(settings.security_dir)
    keys.current()
    issuer = TokenIssuer(lambda: keys.current().key, **said, ttl_s=settings.auth_token_ttl_s, now=_now)
    verifier = TokenVerifier(keys, **said, now=_now)
    return Security(verifier, clients, issuer, keys.public, limiter, auditor)


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


def serve(settings: ApiSettings) -> None:
    """Run until told to stop.

    Raises:
        ConfigError: Settings do not fit, or the port cannot be had.
    """
    check_tls(settings)
    listening = bound(settings.http_host, settings.http_port)
    run(build(settings), listening, settings)


def _now() -> datetime:
    return datetime.now(UTC)
