"""Programs that may ask for access tokens: a file that `tidegate clients` writes and the API reads.

A file and not a database: the API cannot write it, so whoever takes over the API cannot add a client;
it is there while Redis is away; and it fits a mounted secret. Processes see a change within a second.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pydantic import BaseModel, ConfigDict

from infra.private_files import Watched, changing, read_json, write_private
from schemas.errors import ConfigError

FILE = "clients.json"
_MOST_SECRETS = 2
_MOST_REMEMBERED = 1000
# OWASP's second choice for Argon2id: 19 MiB, two passes; about 40 ms.
_PASSES, _MEMORY_KIB = 2, 19 * 1024


class ClientSecret(BaseModel):
    """A secret, of which only the hash is kept."""

    model_config = ConfigDict(frozen=True)

    hash: str
    created_at: datetime
    expires_at: datetime | None = None


class Client(BaseModel):
    """A program of a tenant, and what it may do."""

    model_config = ConfigDict(frozen=True)

    client_id: str
    name: str
    tenant: str
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None = None
    secrets: tuple[ClientSecret, ...] = ()


class ClientStore:
    """Clients in a folder.

    Args:
        folder: Holds `clients.json`.
        now: Aware UTC time.
        check_s: How often a running process looks for a change.
    """

    def __init__(
        self, folder: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), check_s: float = 1.0
    ) -> None:
        self.path = folder / FILE
        self._now = now
        self._clients: Watched[dict[str, Client]] = Watched(self.path, _parse, {}, check_s=check_s)
        self._nobody = _hash(secrets.token_urlsafe(32))
        # Secrets that were right, under a key of this process. They are random, 256 bits: nobody finds one
        # by its digest, and a program that fetches a token each minute is not to cost a core for it.
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._digest_key = secrets.token_bytes(32)
        # Each check takes 19 MiB and a core: as many as the machine has are not to wait for one another.
        self._checking = asyncio.Semaphore(2)

    def all(self) -> Sequence[Client]:
        """Every client, revoked ones too."""
        return list(self._clients.get().values())

    def get(self, client_id: str) -> Client | None:
        """A client that is not revoked."""
        client = self._clients.get().get(client_id)
        return None if client is None or client.revoked_at is not None else client

    async def authenticate(self, client_id: str, secret: str) -> Client | None:
        """The client, if this is one of its secrets; takes as long for one that does not exist."""
        client = self.get(client_id)
        now = self._now()
        hashes = [s.hash for s in client.secrets if _usable(s, now)] if client else []
        digests = [self._digest(hashed, secret) for hashed in hashes]
        if not any(digest in self._right for digest in digests):
            async with self._checking:
                found = await asyncio.to_thread(_matching, secret, hashes or [self._nobody])
            if client is None or found is None or not hashes:
                return None
            self._right[digests[found]] = None
            if len(self._right) > _MOST_REMEMBERED:
                self._right.popitem(last=False)
        return client

    def _digest(self, hashed: str, secret: str) -> bytes:
        return blake2b(f"{hashed} {secret}".encode(), key=self._digest_key, digest_size=32).digest()

    def add(self, name: str, tenant: str, scopes: Iterable[str]) -> tuple[Client, str]:
        """A new client and its secret, which is not kept."""
        secret, hashed = self._new_secret()
        client = Client(
            client_id=f"tg-{secrets.token_hex(8)}",
            name=name,
            tenant=tenant,
            scopes=frozenset(scopes),
            created_at=self._now(),
            secrets=(hashed,),
        )
        with changing(self.path):
            self._write(self._stored() | {client.client_id: client})
        return client, secret

    def rotate(self, client_id: str, *, overlap_s: float) -> str:
        """A new secret for a client; those before it work on for a while.

        Raises:
            ConfigError: There is no such client.
        """
        secret, hashed = self._new_secret()
        now = self._now()
        until = now + timedelta(seconds=overlap_s)
        with changing(self.path):
            stored = self._stored()
            client = _required(stored, client_id)
            before = [
                s.model_copy(update={"expires_at": min(s.expires_at or until, until)})
                for s in client.secrets
                if _usable(s, now)
            ][-(_MOST_SECRETS - 1) :]
            stored[client_id] = client.model_copy(update={"secrets": (*before, hashed)})
            self._write(stored)
        return secret

    def revoke(self, client_id: str) -> None:
        """Refuse a client from now on, with the tokens it has.

        Raises:
            ConfigError: There is no such client.
        """
        with changing(self.path):
            stored = self._stored()
            client = _required(stored, client_id)
            stored[client_id] = client.model_copy(update={"revoked_at": self._now(), "secrets": ()})
            self._write(stored)

    def _new_secret(self) -> tuple[str, ClientSecret]:
        secret = secrets.token_urlsafe(32)
        return secret, ClientSecret(hash=_hash(secret), created_at=self._now())

    def _stored(self) -> dict[str, Client]:
        return _parse(read_json(self.path)) if self.path.exists() else {}

    def _write(self, clients: dict[str, Client]) -> None:
        rows = [c.model_dump(mode="json") | {"scopes": sorted(c.scopes)} for c in clients.values()]
        write_private(self.path, orjson.dumps({"clients": rows}, option=orjson.OPT_INDENT_2))
        self._clients.refresh()


def _hash(secret: str) -> str:
    salt = secrets.token_bytes(16)
    kdf = Argon2id(salt=salt, length=32, iterations=_PASSES, lanes=1, memory_cost=_MEMORY_KIB)
    return kdf.derive_phc_encoded(secret.encode())


def _matching(secret: str, hashes: Sequence[str]) -> int | None:
    """Which of the hashes is the secret's; all are tried, so that the time does not tell."""
    right = None
    for number, hashed in enumerate(hashes):
        try:
            Argon2id.verify_phc_encoded(secret.encode(), hashed)
            right = number
        except InvalidKey:
            continue
    return right


def _usable(secret: ClientSecret, now: datetime) -> bool:
    return secret.expires_at is None or now < secret.expires_at


def _required(clients: dict[str, Client], client_id: str) -> Client:
    client = clients.get(client_id)
    if client is None or client.revoked_at is not None:
        raise ConfigError(f"there is no client {client_id}: 'tidegate clients list' shows them")
    return client


def _parse(document: Any) -> dict[str, Client]:
    clients = [Client.model_validate(row) for row in document["clients"]]
    return {client.client_id: client for client in clients}
