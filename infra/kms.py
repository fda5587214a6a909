"""Master keys in a key management service: they never leave it, data keys are wrapped and unwrapped there.

Spoken is the transit interface of Vault and OpenBao: `POST ADDRESS/encrypt/KEY` and `/decrypt/KEY`, with
associated data, so the key there must be of an AEAD type (`aes256-gcm96`). Other services are adapters of
their own behind `infra.contact_vault.MasterKeys`.
"""

import asyncio
import base64
import binascii
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.contact_vault import LocalMasterKeys, MasterKeys
from infra.given import settings_of
from infra.key_ring import data_keys
from schemas.errors import ConfigError, DependencyError, HistoryError

_TRIES: Final = 3
_PAUSE_S: Final = 0.2
_MOST_BYTES: Final = 64 * 1024
_PREFIX: Final = "kms:"
Measure = Callable[[str, str], AbstractContextManager[None]]


class KmsAccess(BaseSettings):
    """Where the key management service is; without an address there is none."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="ignore")

    data_kms_url: str = Field(
        default="",
        description="Transit engine that wraps data keys, https://HOST:PORT/v1/transit; empty: none.",
    )
    data_kms_key: str = Field(default="tidegate", description="Name of the master key there.")
    data_kms_token_file: Path | None = Field(
        default=None, description="File with the token for it; read again when it changes."
    )
    data_kms_ca: Path | None = Field(
        default=None, description="Authorities to trust for it, PEM; the usual ones without."
    )
    data_kms_timeout_s: float = Field(default=2.0, gt=0, description="Limit of one call to it.")


def master_keys(
    text: str, folder: Path, access: KmsAccess | None = None, measure: Measure | None = None
) -> MasterKeys | None:
    """What wraps data keys: the service where one is set, else local keys; `None` where there are none.

    Args:
        text: Local keys, `NAME:BASE64,...`; empty: from the folder.
        folder: With `data-keys.json`, if there is one.
        access: From the environment if left out.
        measure: Times calls, as `DependencyMetrics.call`.

    Raises:
        ConfigError: They cannot be used.
    """
    access = access or settings_of(KmsAccess)
    ring = data_keys(text, folder)
    local = LocalMasterKeys(ring) if ring else None
    return TransitKeys(access, local, measure) if access.data_kms_url else local


class TransitKeys:
    """Master keys in a transit engine.

    Args:
        access: Address, key, token.
        local: Unwraps what local keys wrapped before there was a service.
        measure: Times calls.
        transport: For tests.

    Raises:
        ConfigError: The address is none, or the token cannot be read.
    """

    def __init__(
        self,
        access: KmsAccess,
        local: LocalMasterKeys | None = None,
        measure: Measure | None = None,
        *,
        transport: Any = None,
    ) -> None:
        try:
            # Here: most deployments have no service, and a worker's image need not have the client.
            import httpx
        except ImportError:
            raise ConfigError("TIDEGATE_DATA_KMS_URL needs the package httpx") from None
        parts = urlsplit(access.data_kms_url)
        if parts.scheme not in ("https", "http") or not parts.netloc or not access.data_kms_key.strip():
            raise ConfigError("TIDEGATE_DATA_KMS_URL is not like https://HOST:PORT/v1/transit")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError("TIDEGATE_DATA_KMS_URL: keys go over TLS, use https://")
        if access.data_kms_token_file is None:
            raise ConfigError("TIDEGATE_DATA_KMS_TOKEN_FILE: set the file with the token")
        self._httpx, self._access, self._local = httpx, access, local
        self._measure = measure or (lambda dependency, call: nullcontext())
        self._token = _Token(access.data_kms_token_file)
        self._token.read()
        verify: Any = True
        if access.data_kms_ca is not None:
            import ssl

            try:
                verify = ssl.create_default_context(cafile=str(access.data_kms_ca))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"TIDEGATE_DATA_KMS_CA cannot be used: {error}") from error
        self._http = httpx.AsyncClient(
            timeout=access.data_kms_timeout_s, follow_redirects=False, verify=verify, transport=transport
        )

    async def wrap(self, data_key: bytes, about: bytes) -> tuple[str, bytes]:
        """Wrap a key under the newest version of the master key."""
        answer = await self._call("encrypt", {"plaintext": _text(data_key), "associated_data": _text(about)})
        ciphertext = str(answer.get("ciphertext", ""))
        # vault:v3:BASE64, where 3 is the version.
        _, _, rest = ciphertext.partition(":")
        version, colon, _ = rest.partition(":")
        if not colon:
            raise DependencyError("the key management service answered without a wrapped key")
        return f"{_PREFIX}{self._access.data_kms_key}:{version}", ciphertext.encode()

    async def unwrap(self, name: str, wrapped: bytes, about: bytes) -> bytes:
        """The key again."""
        if not name.startswith(_PREFIX):
            if self._local is None:
                raise HistoryError(f"contact data is under the master key {name}, which is not given")
            return await self._local.unwrap(name, wrapped, about)
        key = name.removeprefix(_PREFIX).rpartition(":")[0]
        asked = {"ciphertext": wrapped.decode("ascii", "replace"), "associated_data": _text(about)}
        answer = await self._call("decrypt", asked, key)
        try:
            return base64.b64decode(answer["plaintext"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise DependencyError("the key management service answered without a key") from None

    async def newest(self) -> str:
        """Name of the newest version of the master key."""
        return (await self.wrap(bytes(32), b"which is newest"))[0]

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.aclose()

    async def _call(self, action: str, body: dict[str, str], key: str = "") -> dict[str, Any]:
        path = f"{self._access.data_kms_url.rstrip('/')}/{action}/{key or self._access.data_kms_key}"
        for number in range(1, _TRIES + 1):
            try:
                with self._measure("kms", action):
                    return await self._once(path, body)
            except DependencyError:
                if number == _TRIES:
                    raise
                await asyncio.sleep(_PAUSE_S * number)
        raise AssertionError("unreachable")

    async def _once(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._access.data_kms_timeout_s):
                answer = await self._http.post(path, json=body, headers={"X-Vault-Token": self._token.read()})
        except (self._httpx.HTTPError, TimeoutError) as error:
            raise DependencyError(
                f"the key management service does not answer: {type(error).__name__}"
            ) from error
        if answer.status_code == 400:
            # Its own words may repeat what was sent.
            raise HistoryError(
                "the key management service does not know this wrapped key, or not for this use"
            )
        if answer.status_code != 200 or len(answer.content) > _MOST_BYTES:
            raise DependencyError(f"the key management service answers with status {answer.status_code}")
        try:
            found = answer.json()["data"]
        except (ValueError, KeyError, TypeError):
            raise DependencyError(
                "the key management service answers something else than it should"
            ) from None
        if not isinstance(found, dict):
            raise DependencyError("the key management service answers something else than it should")
        return found


class _Token:
    """A token in a file that something else renews."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed, self._looked = -1, float("-inf")
        self._value = ""

    def read(self) -> str:
        if time.monotonic() - self._looked < 1.0:
            return self._value
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                self._value, self._changed = self._path.read_text().strip(), changed
        except OSError as error:
            if not self._value:
                raise ConfigError(f"TIDEGATE_DATA_KMS_TOKEN_FILE cannot be read: {error.strerror}") from error
        if not self._value:
            raise ConfigError(f"TIDEGATE_DATA_KMS_TOKEN_FILE: {self._path} is empty")
        self._looked = time.monotonic()
        return self._value


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
