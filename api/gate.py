"""Who may come in: every request's token, scope, tenant and rate.

The middleware looks at the token before anything of the request is read. The dependency, which every
route has because the application has it, decides by the route that was really chosen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Counter
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import ACCESS, SCOPES, Access
from api.audit import Auditor
from api.errors import forbidden, problem_response, too_many, unauthorised
from api.limits import Kind, Limits
from api.tokens import InvalidToken, Principal, TokenIssuer, TokenVerifier
from schemas.errors import DependencyError

_log = structlog.get_logger()
PRINCIPAL: Final = "tidegate.principal"
_HEADERS: Final = "tidegate.headers"
_SUBJECTS: Final = "tidegate.subjects"
_FIRST_WORDS: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"}
)
# Closed early, before a body is read. It only ever closes more than the dependency does.
_UNSAFE: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_TOKEN_PATH: Final = "/auth/token"  # noqa: S105
DEVELOPER: Final = Principal("development", "default", frozenset(SCOPES))


class Clients(Protocol):
    """Programs that may ask for tokens."""

    async def authenticate(self, client_id: str, secret: str) -> "KnownClient | None":
        """The client, if this is one of its secrets."""
        ...

    def get(self, client_id: str) -> "KnownClient | None":
        """A client that is not revoked."""
        ...


class KnownClient(Protocol):
    """A program of a tenant, and what it may do."""

    @property
    def client_id(self) -> str:
        """Its name."""
        ...

    @property
    def tenant(self) -> str:
        """Whose customers it may see."""
        ...

    @property
    def scopes(self) -> frozenset[str]:
        """What it may do."""
        ...


@dataclass(frozen=True, slots=True)
class Security:
    """How the API is closed; all `None`: open, for development.

    Attributes:
        verifier: Checks tokens.
        clients: Of our own issuer.
        issuer: Makes tokens, where we are the issuer.
        public_keys: Our key set.
        limits: Counts requests.
        auditor: Writes down who did what.
    """

    verifier: TokenVerifier | None = None
    clients: Clients | None = None
    issuer: TokenIssuer | None = None
    public_keys: Callable[[], Mapping[str, object]] | None = None
    limits: Limits | None = None
    auditor: Auditor | None = None


class Admission:
    """Who sends a request, and the record of what they were answered.

    Attributes:
        security: How the API is closed.
        outcomes: Counts tokens by what became of them.
    """

    def __init__(self, security: Security, registry: CollectorRegistry) -> None:
        self.security = security
        self.outcomes = Counter(
            "tidegate_auth_total", "Tokens looked at, by what became of them.", ["outcome"], registry=registry
        )

    def begin(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Prepare a request, once; returns the headers that its answer will have besides its own."""
        known: list[tuple[bytes, bytes]] | None = scope.get(_HEADERS)
        if known is not None:
            return known
        added: list[tuple[bytes, bytes]] = []
        scope[_HEADERS] = added
        if self.security.auditor is not None:
            scope[_SUBJECTS] = self.security.auditor.begin()
        return added

    async def principal(self, scope: Scope) -> Principal | None:
        """Who sends a request; `None` where it does not say.

        Raises:
            InvalidToken: What it says proves nothing.
        """
        found = await self._principal(scope)
        if found is not None and self.security.verifier is not None:
            self.outcomes.labels("accepted").inc()
        return found

    async def is_still(self, scope: Scope) -> bool:
        """Whether who was let in by `authorise` would be let in now, by the same token."""
        asked = _asked(scope)[1]
        before: Principal = scope[PRINCIPAL]
        try:
            now = await self._principal(scope)
        except InvalidToken:
            return False
        except DependencyError:
            # Who keeps the keys is away; a request would be refused for that, not for the token.
            return True
        if now is None or now.tenant != before.tenant:
            return False
        return self.security.verifier is None or (asked is not None and asked.scope in now.scopes)

    async def _principal(self, scope: Scope) -> Principal | None:
        if self.security.verifier is None:
            return DEVELOPER
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            return None
        if len(given) > 1:
            raise InvalidToken("more than one Authorization header")
        method, _, token = given[0].decode("latin-1").partition(" ")
        if method.lower() != "bearer":
            raise InvalidToken("not a bearer token")
        principal = await self.security.verifier.verify(token.strip(" "))
        clients = self.security.clients
        if clients is not None:
            client = clients.get(principal.client_id)
            if client is None:
                raise InvalidToken("the client was revoked")
            # Scopes taken away since count at once; scopes added count with the next token.
            principal = Principal(principal.client_id, principal.tenant, principal.scopes & client.scopes)
            if principal.tenant != client.tenant:
                raise InvalidToken("the client is of another tenant now")
        return principal

    def write_down(self, scope: Scope, answer: Message) -> None:
        """Add to the audit trail, where there is one, what a request was answered."""
        auditor, principal = self.security.auditor, scope.get(PRINCIPAL)
        if auditor is None:
            return
        route, access = _asked(scope)
        if principal is None or access is None or access.scope in (None, "operations:read"):
            return
        # 101: a socket was opened; 500: nobody foresaw what happened.
        status = answer.get("status", 101 if answer.get("type") == "websocket.accept" else 500)
        request_id = next(
            (value for name, value in answer.get("headers", ()) if name == b"x-request-id"), b""
        )
        subjects = _subjects_of(scope)
        auditor.after(principal, access.scope or "", route, subjects, status, request_id.decode("latin-1"))


class Gate:
    """Refuses what has no valid token, and adds the headers that a route's rate limit asks for."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with who sent it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        admission = self._admission
        added = admission.begin(scope)
        answer: Message = {}

        async def with_headers(message: Message) -> None:
            nonlocal answer
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), *added]
            if message["type"] in _FIRST_WORDS and not answer:
                answer = message
            await send(message)

        # At the token route the header is a client's name and secret.
        if admission.security.verifier is None or scope["path"] != _TOKEN_PATH:
            try:
                if PRINCIPAL not in scope:
                    scope[PRINCIPAL] = await admission.principal(scope)
            except InvalidToken as invalid:
                admission.outcomes.labels("refused").inc()
                # Why stays here: a forger must not learn how far it came.
                _log.info("token refused", reason=str(invalid))
                await problem_response(unauthorised("invalid_token"))(scope, receive, send)
                return
            if scope[PRINCIPAL] is None and scope.get("method") in _UNSAFE:
                await problem_response(unauthorised(None))(scope, receive, send)
                return
        try:
            await self._app(scope, receive, with_headers)
        finally:
            admission.write_down(scope, answer)


def principal_of(connection: HTTPConnection) -> Principal:
    """Who sent a request that came through `authorise`."""
    found: Principal = connection.scope[PRINCIPAL]
    return found


async def who_asks(connection: HTTPConnection) -> Principal:
    """`principal_of` as a dependency; not a plain function, which FastAPI would run in another thread."""
    return principal_of(connection)


async def authorise(connection: HTTPConnection) -> None:
    """Let a request through to its route, or not."""
    scope = connection.scope
    security: Security = connection.app.state.security
    route, access = _asked(scope)
    if access is not None and access.scope is None:
        return
    principal: Principal | None = scope.get(PRINCIPAL)
    if principal is None:
        raise unauthorised(None)
    if security.verifier is not None:
        if access is None or access.scope is None:
            raise forbidden("nobody may use this route: it declares no scope", None)
        if access.scope not in principal.scopes:
            raise forbidden(f"the token lacks the scope {access.scope}", access.scope)
        if principal.tenant not in connection.app.state.tenants:
            raise forbidden("the token's tenant is not served here", None)
    if security.limits is not None and access is not None and access.kind is not None:
        # Another issuer may give clients of two tenants one name.
        who = f"{principal.tenant}/{principal.client_id}"
        await count(connection, security.limits, access.kind, who, route)
    if security.auditor is not None and access is not None and access.kind == "change":
        await security.auditor.before(principal, access.scope or "", route, _subjects_of(scope))


def _asked(scope: Scope) -> tuple[str, Access | None]:
    """The route that was chosen, in words, and what it asks for."""
    method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
    path = getattr(scope.get("route"), "path_format", "")
    return f"{method} {path}", ACCESS.get(("GET" if method == "HEAD" else method, path))


def _subjects_of(scope: Scope) -> list[str]:
    """The customers that a request is about: named in its path, or noted by its route."""
    named = scope.get("path_params", {}).get("customer_id")
    return [*([named] if isinstance(named, str) else []), *scope.get(_SUBJECTS, ())]


async def count(connection: HTTPConnection, limits: Limits, kind: Kind, who: str, route: str) -> None:
    """Count a request; its answer will say what is left.

    Raises:
        Problem: 429 where nothing is; 503 where it cannot be counted and must be.
    """
    try:
        answer = await limits.take(kind, who, route)
    except DependencyError:
        _log.warning("requests cannot be counted, refused", kind=kind)
        raise
    connection.scope[_HEADERS].extend(answer.headers)
    if not answer.allowed:
        raise too_many(answer.retry_s)
