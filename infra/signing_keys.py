"""The keys that sign access tokens: a file that `tidegate keys` writes and every API process reads.

A new key is published before it signs, and verifies for as long after the last token it signed lives:
at every moment each process knows every key that a valid token can name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, import_key

from infra.private_files import Watched, changing, read_json, write_private
from schemas.errors import ConfigError

FILE = "signing-keys.json"
ALGORITHMS = ("ES256", "Ed25519")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair.

    Attributes:
        signs_from: When it begins to sign.
        verifies_until: When tokens it signed are not valid any more; `None` while it is the newest.
    """

    key: ECKey | OKPKey
    created_at: datetime
    signs_from: datetime
    verifies_until: datetime | None = None

    @property
    def kid(self) -> str:
        """Its name, the RFC 7638 thumbprint."""
        return str(self.key.kid)

    def state(self, now: datetime) -> str:
        """`waiting` to sign, `known` (its tokens can be valid) or `over`."""
        if self.verifies_until is not None and now >= self.verifies_until:
            return "over"
        return "waiting" if now < self.signs_from else "known"


class SigningKeys:
    """Signing keys in a folder.

    Args:
        folder: Holds `signing-keys.json`.
        now: Aware UTC time.
        check_s: How often a running process looks for a change.
    """

    def __init__(
        self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), check_s: float = 1.0
    ) -> None:
        self.path = folder / FILE
        self._now = now
        self._keys: Watched[tuple[SigningKey, ...]] = Watched(self.path, _parse, (), check_s=check_s)

    def all(self) -> Sequence[SigningKey]:
        """Every key that is kept."""
        return self._keys.get()

    def current(self) -> SigningKey:
        """The key that signs now.

        Raises:
            ConfigError: There is none.
        """
        now = self._now()
        usable = [k for k in self.all() if k.signs_from <= now and k.state(now) != "over"]
        if not usable:
            raise ConfigError(f"{self.path} has no key that signs: run 'tidegate keys rotate'")
        return max(usable, key=lambda k: k.signs_from)

    async def find(self, kid: str) -> ECKey | OKPKey | None:
        """The key of this name, if its tokens can be valid now."""
        now = self._now()
        return next((k.key for k in self.all() if k.kid == kid and k.state(now) != "over"), None)

    def public(self) -> dict[str, Any]:
        """The key set as others may know it, RFC 7517."""
        now = self._now()
        return {"keys": [k.key.as_dict(private=False) for k in self.all() if k.state(now) != "over"]}

    def rotate(self, *, algorithm: str = "ES256", wait_s: float, keep_s: float) -> SigningKey:
        """Make a new key, which signs after a while.

        Args:
            algorithm: One of `ALGORITHMS`.
            wait_s: Seconds until it signs: longer than any verifier keeps a key set it has fetched. The
                first key signs at once.
            keep_s: Seconds that the key before it verifies on from then: a token's life and leeway.
        """
        now = self._now()
        made = _generate(algorithm)
        with changing(self.path):
            kept = [k for k in self._stored() if k.state(now) != "over"]
            signs_from = now + timedelta(seconds=wait_s) if kept else now
            last = signs_from + timedelta(seconds=keep_s)
            before = [
                k if k.verifies_until is not None else SigningKey(k.key, k.created_at, k.signs_from, last)
                for k in kept
            ]
            new = SigningKey(made, now, signs_from)
            self._write([*before, new])
        return new

    def revoke(self, kid: str) -> None:
        """Forget a key that became known to others: its tokens are refused from now on.

        Raises:
            ConfigError: There is no such key, or no other that signs.
        """
        now = self._now()
        with changing(self.path):
            stored = self._stored()
            rest = [k for k in stored if k.kid != kid]
            if len(rest) == len(stored):
                raise ConfigError(f"there is no key {kid}: 'tidegate keys list' shows them")
            if not [k for k in rest if k.state(now) != "over"]:
                raise ConfigError("it is the only key: run 'tidegate keys rotate' first")
            usable = [k for k in rest if k.state(now) != "over"]
            newest = max(usable, key=lambda k: k.signs_from)
            # What is left signs at once and without an end: nothing else does.
            signs_from = min(newest.signs_from, now)
            renewed = SigningKey(newest.key, newest.created_at, signs_from)
            self._write([renewed if k.kid == newest.kid else k for k in rest])

    def _stored(self) -> list[SigningKey]:
        return list(_parse(read_json(self.path))) if self.path.exists() else []

    def _write(self, keys: Sequence[SigningKey]) -> None:
        rows = [
            {
                "jwk": k.key.as_dict(private=True),
                "created_at": k.created_at.isoformat(),
                "signs_from": k.signs_from.isoformat(),
                "verifies_until": k.verifies_until.isoformat() if k.verifies_until else None,
            }
            for k in keys
        ]
        write_private(self.path, orjson.dumps({"keys": rows}, option=orjson.OPT_INDENT_2))
        self._keys.refresh()


def _generate(algorithm: str) -> ECKey | OKPKey:
    made = _made(algorithm)
    while made.thumbprint().startswith("-"):
        # `tidegate keys revoke` would take its id for an option.
        made = _made(algorithm)
    said = {"alg": algorithm, "use": "sig", "kid": made.thumbprint()}
    return _named(made.as_dict(private=True) | said)


def _made(algorithm: str) -> ECKey | OKPKey:
    if algorithm == "ES256":
        return ECKey.generate_key("P-256")
    if algorithm == "Ed25519":
        return OKPKey.generate_key("Ed25519")
    raise ConfigError(f"signing keys are {' or '.join(ALGORITHMS)}, not {algorithm}")


def _named(jwk: dict[str, Any]) -> ECKey | OKPKey:
    try:
        key = import_key(jwk)
    except JoseError as error:
        # Not its words: they may quote the key.
        raise ConfigError(f"a signing key cannot be read: {type(error).__name__}") from None
    if not isinstance(key, ECKey | OKPKey):
        raise ConfigError("a signing key is an elliptic curve key")
    return key


def _parse(document: Any) -> tuple[SigningKey, ...]:
    return tuple(
        SigningKey(
            _named(row["jwk"]),
            datetime.fromisoformat(row["created_at"]),
            datetime.fromisoformat(row["signs_from"]),
            datetime.fromisoformat(row["verifies_until"]) if row["verifies_until"] else None,
        )
        for row in document["keys"]
    )
