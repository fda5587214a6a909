"""The API with login: keys, clients and tokens, right ones and forged ones."""

import base64
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import ECKey, OKPKey

from api.access import SCOPES
from api.gate import Security
from api.limits import Limits
from api.tokens import Principal, TokenIssuer, TokenVerifier
from infra.client_store import Client
from schemas.errors import DependencyError
from tests.serving import NOW

ISSUER, AUDIENCE = "https://bank.example", "tidegate"
SECRET = "right-secret"


@dataclass
class Keys:
    """A key set in memory."""

    known: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    away: bool = False

    async def find(self, kid: str) -> Any:
        if self.away:
            raise DependencyError("the issuer does not answer")
        self.asked.append(kid)
        return self.known.get(kid)


@dataclass
class Clients:
    """Clients in memory; every one has the same secret."""

    known: dict[str, Client] = field(default_factory=dict)

    def get(self, client_id: str) -> Client | None:
        return self.known.get(client_id)

    async def authenticate(self, client_id: str, secret: str) -> Client | None:
        return self.known.get(client_id) if secret == SECRET else None


@dataclass
class Login:
    """An issuer with one signing key and one client that may do everything."""

    now: datetime = NOW
    key: Any = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256"}))
    keys: Keys = field(default_factory=Keys)
    clients: Clients = field(default_factory=Clients)
    limits: Limits | None = None

    def __post_init__(self) -> None:
        self.keys.known[self.key.kid] = self.key
        self.clients.known["teller"] = Client(
            client_id="teller", name="Teller", tenant="default", scopes=frozenset(SCOPES), created_at=NOW
        )

    def security(self) -> Security:
        said = {"issuer": ISSUER, "audience": AUDIENCE, "tenant_claim": "tenant"}
        return Security(
            TokenVerifier(self.keys, **said, now=lambda: self.now),
            self.clients,
            TokenIssuer(lambda: self.key, **said, ttl_s=600, now=lambda: self.now),
            lambda: {"keys": [self.key.as_dict(private=False)]},
            self.limits,
        )

    def token(self, scopes: Iterable[str] = tuple(SCOPES), **claims: Any) -> str:
        return self.sign(self.claims(scopes, **claims))

    def claims(self, scopes: Iterable[str] = tuple(SCOPES), **changed: Any) -> dict[str, Any]:
        seconds = int(self.now.timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "teller",
            "client_id": "teller",
            "tenant": "default",
            "scope": " ".join(scopes),
            "iat": seconds,
            "exp": seconds + 600,
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not ...}

    def sign(self, claims: Any, key: Any = None, **header: Any) -> str:
        """A token of these claims, by hand: libraries do not sign some of it. `...` leaves a header out."""
        said = {"alg": "ES256", "typ": "at+jwt", "kid": "k1", **header}
        head = b64({name: value for name, value in said.items() if value is not ...})
        signed = f"{head}.{b64(claims)}"
        return f"{signed}.{b64(signature(key or self.key, signed.encode()))}"

    def bearer(self, scopes: Iterable[str] = tuple(SCOPES), **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(scopes, **claims)}"}

    def principal(self, *scopes: str) -> Principal:
        return Principal("teller", "default", frozenset(scopes))


def signature(key: Any, message: bytes) -> bytes:
    """As JWS has it: by HMAC for bytes, by ECDSA or EdDSA for a key."""
    if isinstance(key, bytes):
        return hmac.digest(key, message, "sha256")
    if isinstance(key, OKPKey):
        return key.private_key.sign(message)
    r, s = decode_dss_signature(key.private_key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def with_header(token: str, **changed: Any) -> str:
    """The same token under a changed header, its signature as it was."""
    header, payload, signature = token.split(".")
    said = {**json.loads(unb64(header)), **changed}
    return ".".join((b64({n: v for n, v in said.items() if v is not ...}), payload, signature))


def forged(login: Login) -> dict[str, str]:
    """Tokens that prove nothing, by what is wrong with them."""
    good, claims = login.token(), login.claims()
    header, payload, sig = good.split(".")
    stranger = ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256"})
    twisted = OKPKey.generate_key("Ed25519", {"kid": "k1"})
    public = login.key.as_pem(private=False)
    seconds = int(login.now.timestamp())
    past, future = seconds - 31, seconds + 31

    def hs256(secret: bytes) -> str:
        return login.sign(claims, secret, alg="HS256")

    def resigned(payload_text: str) -> str:
        return f"{header}.{payload_text}.{sig}"

    def lacking(name: str) -> str:
        return login.sign(login.claims(**{name: ...}))

    return {
        "alg none, no signature": f"{b64({'alg': 'none', 'typ': 'at+jwt', 'kid': 'k1'})}.{payload}.",
        "alg none, a signature": with_header(good, alg="none"),
        "alg None": with_header(good, alg="None"),
        "alg missing": with_header(good, alg=...),
        "alg a list": with_header(good, alg=["ES256"]),
        "HS256 signed with the public key as PEM": hs256(public),
        "HS256 signed with the public key as JWK": hs256(
            json.dumps(login.key.as_dict(private=False)).encode()
        ),
        "HS256 signed with nothing much": hs256(b"tidegate"),
        "another curve's algorithm": with_header(good, alg="ES384"),
        "signed with Ed25519 under the name of a P-256 key": login.sign(claims, twisted, alg="Ed25519"),
        "RS256": with_header(good, alg="RS256"),
        "another key of the same name": login.sign(claims, stranger),
        "unknown kid": login.sign(claims, kid="k2"),
        "no kid": login.sign(claims, kid=...),
        "kid is a path": login.sign(claims, kid="../../dev/null"),
        "kid is an object": with_header(good, kid={"k": 1}),
        "own key in jwk": login.sign(claims, stranger, jwk=stranger.as_dict(private=False)),
        "own key behind jku": login.sign(claims, stranger, jku="https://forger.example/jwks.json"),
        "own key behind x5u": login.sign(claims, stranger, x5u="https://forger.example/cert.pem"),
        "wrong issuer": login.sign(login.claims(iss="https://other.example")),
        "issuer with a slash more": login.sign(login.claims(iss=ISSUER + "/")),
        "issuer a list": login.sign(login.claims(iss=[ISSUER])),
        "wrong audience": login.sign(login.claims(aud="another-api")),
        "no audience of ours in a list": login.sign(login.claims(aud=["a", "b"])),
        "no issuer": lacking("iss"),
        "no audience": lacking("aud"),
        "no expiry": lacking("exp"),
        "no issue time": lacking("iat"),
        "no subject": lacking("sub"),
        "no tenant": lacking("tenant"),
        "an empty tenant": login.sign(login.claims(tenant="")),
        "a tenant that is no text": login.sign(login.claims(tenant=["default"])),
        "scopes as a list": login.sign(login.claims(scope=["inference"])),
        "expired": login.sign(login.claims(iat=past - 600, exp=past)),
        "expiry is text": login.sign(login.claims(exp=str(seconds + 600))),
        "expiry is true": login.sign(login.claims(exp=True)),
        "expiry beyond all numbers": login.sign(login.claims(exp=10**400)),
        "not valid yet": login.sign(login.claims(nbf=future)),
        "not valid before a time before all numbers": login.sign(login.claims(nbf=-(10**400))),
        "issued in the future": login.sign(login.claims(iat=future, exp=future + 600)),
        "an id token": login.sign(claims, typ="JWT"),
        "no typ": login.sign(claims, typ=...),
        "typ is null": with_header(good, typ=None),
        "crit, with an extension": with_header(good, crit=["exp"], exp=1),
        "crit, empty": with_header(good, crit=[]),
        "b64 false": with_header(good, b64=False, crit=["b64"]),
        "compressed": with_header(good, zip="DEF"),
        "oversized": login.sign(login.claims(padding="x" * 4096)),
        "oversized signature": good + "A" * 5000,
        "a million dots": "." * 1_000,
        "no signature": f"{header}.{payload}.",
        "signature cut": good[:-4],
        "signature all zero": f"{header}.{payload}.{b64(bytes(64))}",
        "signature of another token": resigned(b64(login.claims(scope="inference"))),
        "scopes added": resigned(b64({**claims, "scope": "customers:erase"})),
        "two parts": f"{header}.{payload}",
        "four parts": f"{good}.{sig}",
        "five parts, as if encrypted": f"{header}.{payload}.{sig}.{payload}.{sig}",
        "empty signatures in JSON": json.dumps({"payload": payload, "signatures": []}),
        "one signature in JSON": json.dumps(
            {"payload": payload, "signatures": [{"protected": header, "signature": sig}]}
        ),
        "flattened JSON": json.dumps({"payload": payload, "protected": header, "signature": sig}),
        "padded": f"{header}=.{payload}.{sig}",
        "a header that is no JSON": f"{b64(b'{')}.{payload}.{sig}",
        "a header that is a list": f"{b64([1])}.{payload}.{sig}",
        "claims that are no JSON": login.sign(b"{"),
        "claims that are a list": login.sign(b"[]"),
        "nothing": "",
        "a client's secret": SECRET,
    }


def later(login: Login, seconds: float) -> None:
    login.now += timedelta(seconds=seconds)
