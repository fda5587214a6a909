"""The key set of a bank's own issuer, fetched over HTTP and kept for a while."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Literal

import httpx
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, import_key

from schemas.errors import ConfigError

_log = structlog.get_logger()
_MOST_BYTES = 256 * 1024
_CURVES = {"P-256": "ES256", "Ed25519": "Ed25519"}
Counted = Callable[[Literal["fetched", "failed"]], None]


def check_key_set_url(url: str) -> None:
    """Refuse what is no address of a key set.

    Raises:
        ConfigError: It is none.
    """
    try:
        parsed = httpx.URL(url)
        host, port = parsed.host, parsed.port or 1
    except (httpx.InvalidURL, ValueError):
        host, port = "", 0
    if not host or "%" in host or not 0 < port < 65_536 or parsed.scheme not in ("https", "http"):
        raise ConfigError("TIDEGATE_AUTH_JWKS_URL is https://HOST/PATH, the address of the issuer's key set")


class RemoteKeys:
    """A JWKS that somebody else publishes.

    Fetched again in the background when it is older than `refresh_s`, and at once for a key it does not
    have, but never more often than every `interval_s`: a flood of tokens with made-up key names causes
    one request. Keys are used for `stale_s` after the last answer, so that an issuer that is away for a
    while locks nobody out.

    Args:
        url: Of the JWKS.
        timeout_s: Limit of one request, retried once.
        count: Told what became of each request.
        clock: Monotonic seconds.
        transport: For tests.
    """

    def __init__(
        self,
        url: str,
        *,
        refresh_s: float = 300.0,
        interval_s: float = 10.0,
        stale_s: float = 3600.0,
        timeout_s: float = 3.0,
        count: Counted = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._refresh_s, self._interval_s, self._stale_s = refresh_s, interval_s, stale_s
        self._timeout_s = timeout_s
        self._count, self._clock = count, clock
        # No redirects: the set is where the setting says, or nowhere.
        self._http = httpx.AsyncClient(timeout=timeout_s, follow_redirects=False, transport=transport)
        self._keys: dict[str, ECKey | OKPKey] = {}
        self._fetched = self._tried = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> ECKey | OKPKey | None:
        """The key of this name, if the issuer publishes it."""
        now = self._clock()
        usable = now - self._fetched < self._stale_s
        if usable and kid in self._keys:
            if now - self._fetched >= self._refresh_s:
                self._start()
            return self._keys[kid]
        self._start()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        usable = self._clock() - self._fetched < self._stale_s
        return self._keys.get(kid) if usable else None

    async def close(self) -> None:
        """Let go of connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        await self._http.aclose()

    def _start(self) -> None:
        """Begin to fetch, unless that is under way or was done just now."""
        if self._fetching is not None and self._fetching.done():
            self._fetching = None
        now = self._clock()
        if self._fetching is None and now - self._tried >= self._interval_s:
            self._tried = now
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        for last in (False, True):
            try:
                async with asyncio.timeout(self._timeout_s):
                    self._keys = _usable(await self._read())
            except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
                self._count("failed")
                if last:
                    _log.warning("the issuer's keys cannot be fetched", error=type(error).__name__)
            else:
                self._fetched = self._clock()
                self._count("fetched")
                return

    async def _read(self) -> Any:
        async with self._http.stream("GET", self._url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != 200:
                raise ValueError(f"status {answer.status_code}")
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise ValueError("the key set is too long")
        return orjson.loads(bytes(body))


def _usable(document: Any) -> dict[str, ECKey | OKPKey]:
    """Keys that sign with an algorithm we accept, by name; others are left out."""
    keys: dict[str, ECKey | OKPKey] = {}
    for jwk in document["keys"]:
        algorithm = _CURVES.get(jwk.get("crv", ""))
        kid = jwk.get("kid")
        if algorithm is None or not isinstance(kid, str) or jwk.get("use", "sig") != "sig":
            continue
        if jwk.get("alg", algorithm) not in {algorithm, "EdDSA" if algorithm == "Ed25519" else algorithm}:
            continue
        try:
            # Only the public part, whatever was sent.
            public = {name: jwk[name] for name in ("kty", "crv", "x", "y", "kid") if name in jwk}
            key = import_key(public | {"use": "sig"})
        except (JoseError, ValueError, KeyError):
            continue
        if isinstance(key, ECKey | OKPKey):
            keys[kid] = key
    if not keys:
        raise ValueError("no usable key")
    return keys
