"""The application over given services: middleware, routes, and what runs from its start to its end."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deps import Services
from api.document import add_document
from api.errors import add_error_handlers
from api.exchange import Conditional, Deadline, RequestIds
from api.gate import Admission, Gate, Security, authorise
from api.headers import SecurityHeaders, browser_headers
from api.idempotency import KeepReplies, Replayed, replay
from api.middleware import BodyLimit, Measured, RequestMetrics
from api.paths import keep_slashes
from api.personal import Personal
from api.quick import QuickLane, QuickLookup, QuickScore
from api.routes import analytics, auth, batch, customers, explain, health, inference, root, stream
from api.routes import models as model_routes
from api.routes import personal as personal_routes
from api.routes.docs import add_docs
from api.settings import ApiSettings
from features import lifetime, retention

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
        keep_slashes(scope)
        if self.lane is None:
            await self.whole(scope, receive, send)
            return
        scope["app"] = self
        await self.lane(scope, receive, send)

    async def whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by middleware and routes."""
        await super().__call__(scope, receive, send)


def settle() -> None:
    """Keep what is loaded, and other threads, out of the way of answers."""
    # What is there now stays: a full collection that looks through it stops every answer for 0.1 s.
    gc.collect()
    gc.freeze()
    # Questions to the database run in threads; at Python's 5 ms one of them holds up an answer for as long
    # as a lookup may take.
    sys.setswitchinterval(0.001)


def create_app(
    services: Services | Mapping[str, Services],
    close: Callable[[], Awaitable[None]] | None = None,
    security: Security | None = None,
    settings: ApiSettings | None = None,
    registry: CollectorRegistry | None = None,
    personal: Mapping[str, Personal] | None = None,
    beside: Callable[[], Coroutine[None, None, None]] | None = None,
    settled: Callable[[], None] | None = None,
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
        settled: Called when everything is loaded, before the first request.
    """
    tenants = {"default": services} if isinstance(services, Services) else dict(services)
    security = security or Security()
    settings = settings or ApiSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        next(iter(tenants.values())).models.engine.warm_up()
        lifetime.warm_up()
        retention.warm_up()
        if settled is not None:
            settled()
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
    app.state.admission = admission
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
