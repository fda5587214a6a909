"""Access tokens: JWTs of the RFC 9068 profile, made and checked.

What a token says about its own checking is not believed: the algorithm must be one of ours and fit the
key, the key's name is only looked up in a known set, and headers that bring keys or extensions refuse it.
"""

import base64
import hashlib
import re
import secrets
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import orjson
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, OKPKey

LEEWAY_S: Final = 30
MOST_CHARACTERS: Final = 4096
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_HEADERS: Final = frozenset({"alg", "typ", "kid", "cty"})
# Headers that name or bring a key are common and harmless where nobody looks at them; we do not.
_IGNORED: Final = frozenset({"jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"})
_ALGORITHMS: Final[Mapping[str, frozenset[str]]] = {
    "P-256": frozenset({"ES256"}),
    # RFC 9864 names the curve; most issuers still write the older name.
    "Ed25519": frozenset({"Ed25519", "EdDSA"}),
}
_MOST_REMEMBERED: Final = 10_000
Key = ECKey | OKPKey


class InvalidToken(Exception):
    """A token that proves nothing. Its words are for the log, never for the sender."""


class KeySet(Protocol):
    """Keys that tokens may be signed with."""

    async def find(self, kid: str) -> Key | None:
        """The key of this name, if its tokens can be valid now."""
        ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes:
        client_id: The program.
        tenant: Whose customers it may see.
        scopes: What it may do.
    """

    client_id: str
    tenant: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Remembered:
    principal: Principal
    kid: str
    key: Key
    not_before: float
    expires: float


class TokenVerifier:
    """Checks access tokens.

    A token that was found valid is remembered by its digest until it expires: clients send the same one
    for minutes, and a signature costs more than a lookup does. Its key is looked up again each time.

    Args:
        keys: Where keys are found.
        issuer: Exactly the `iss` of tokens.
        audience: One of their `aud`.
        tenant_claim: Claim that names the tenant; empty: every token is of `default`.
        now: Aware UTC time.
    """

    def __init__(
        self, keys: KeySet, *, issuer: str, audience: str, tenant_claim: str, now: Callable[[], datetime]
    ) -> None:
        self._keys = keys
        self._now = now
        self._tenant_claim = tenant_claim
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(now().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )
        self._valid: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """Who a token was given to.

        Raises:
            InvalidToken: It proves nothing.
        """
        if len(token) > MOST_CHARACTERS or not _COMPACT.fullmatch(token):
            raise InvalidToken("not a compact token")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._valid.get(digest)
        if known is not None:
            now = self._now().timestamp()
            in_time = known.not_before - LEEWAY_S <= now < known.expires + LEEWAY_S
            if in_time and await self._keys.find(known.kid) is known.key:
                self._valid.move_to_end(digest)
                return known.principal
            del self._valid[digest]
        checked = await self._check(token)
        self._valid[digest] = checked
        if len(self._valid) > _MOST_REMEMBERED:
            self._valid.popitem(last=False)
        return checked.principal

    async def _check(self, token: str) -> _Remembered:
        header = _header(token)
        key = await self._keys.find(header["kid"])
        if key is None:
            raise InvalidToken("signed by a key that is not known")
        algorithm: str = header["alg"]
        if algorithm not in _ALGORITHMS.get(str(key.get("crv")), ()):
            raise InvalidToken("the algorithm does not fit the key")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)
                claims = jwt.decode(token, key, algorithms=[algorithm]).claims
            self._claims.validate(claims)
            not_before, expires = float(claims.get("nbf") or claims["iat"]), float(claims["exp"])
        except (JoseError, ValueError, TypeError, OverflowError) as error:
            raise InvalidToken(type(error).__name__) from None
        return _Remembered(self._principal(claims), header["kid"], key, not_before, expires)

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        scope, client = claims.get("scope", ""), claims.get("client_id", claims["sub"])
        tenant = claims.get(self._tenant_claim) if self._tenant_claim else "default"
        if not (isinstance(scope, str) and isinstance(client, str) and isinstance(tenant, str)):
            raise InvalidToken("a claim is not text")
        if not client or not tenant:
            raise InvalidToken("client or tenant is empty")
        return Principal(client, tenant, frozenset(scope.split()))


def _header(token: str) -> dict[str, str]:
    """A token's header, if it is one that we would write or can ignore the rest of.

    Raises:
        InvalidToken: It is not.
    """
    try:
        header = jwt_header(token)
    except ValueError:
        raise InvalidToken("the header is not JSON") from None
    if not isinstance(header, dict) or not all(isinstance(header.get(n), str) for n in ("alg", "typ", "kid")):
        raise InvalidToken("the header lacks alg, typ or kid")
    if header["typ"].lower().removeprefix("application/") != "at+jwt":
        raise InvalidToken("not an access token")
    if header["alg"] not in frozenset().union(*_ALGORITHMS.values()):
        raise InvalidToken("the algorithm is not allowed")
    if not header.keys() <= _HEADERS | _IGNORED:
        # "crit", "b64" and whatever else would have to be understood.
        raise InvalidToken("the header has what is not understood")
    return header


def jwt_header(token: str) -> Any:
    """What stands in front, decoded and not checked."""
    first = token.split(".", 1)[0]
    return orjson.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))


class TokenIssuer:
    """Makes access tokens.

    Args:
        current: The key that signs now; raises `ConfigError` where there is none.
        issuer: `iss`.
        audience: `aud`.
        ttl_s: Seconds a token lives.
        tenant_claim: Claim that names the tenant.
        now: Aware UTC time.
    """

    def __init__(
        self,
        current: Callable[[], Key],
        *,
        issuer: str,
        audience: str,
        ttl_s: int,
        tenant_claim: str,
        now: Callable[[], datetime],
    ) -> None:
        self._current, self._now = current, now
        self._issuer, self._audience = issuer, audience
        self._tenant_claim = tenant_claim
        self.ttl_s = ttl_s

    def issue(self, principal: Principal) -> str:
        """A token for a client."""
        key = self._current()
        now = int(self._now().timestamp())
        algorithm = str(key.alg)
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": principal.client_id,
            "client_id": principal.client_id,
            "scope": " ".join(sorted(principal.scopes)),
            "iat": now,
            "exp": now + self.ttl_s,
            "jti": secrets.token_urlsafe(12),
        }
        if self._tenant_claim:
            claims[self._tenant_claim] = principal.tenant
        header = {"alg": algorithm, "typ": "at+jwt", "kid": str(key.kid)}
        return jwt.encode(header, claims, key, algorithms=[algorithm])
