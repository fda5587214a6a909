"""Customers' contact data under AES-256-GCM: a data key for each customer, wrapped by a master key.

Whoever erases a customer deletes the wrapped key with what it protects. Each field is bound to its customer
and its name: put elsewhere it cannot be opened. Every update of a profile has a new data key, so a nonce is
never used twice under one key.
"""

import base64
import binascii
import secrets
from collections.abc import Iterable, Mapping
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.key_ring import KeyRing
from schemas.customer import SealedContact
from schemas.errors import HistoryError

_NONCE_BYTES = 12
_KEY_BITS = 256


class MasterKeys(Protocol):
    """Wraps data keys: local keys, or a key management service.

    All methods raise `DependencyError` where a service does not answer.
    """

    async def wrap(self, data_key: bytes, about: bytes) -> tuple[str, bytes]:
        """Wrap a key under the newest master key; returns its name and the wrapped key.

        Args:
            data_key: 32 bytes.
            about: Bound to it; the same is needed to unwrap.
        """
        ...

    async def unwrap(self, name: str, wrapped: bytes, about: bytes) -> bytes:
        """The key again.

        Raises:
            HistoryError: The master key is not there, or this is not what it wrapped.
        """
        ...

    async def newest(self) -> str:
        """Name of the master key that `wrap` uses."""
        ...


class LocalMasterKeys:
    """Master keys from a file or the environment."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    async def wrap(self, data_key: bytes, about: bytes) -> tuple[str, bytes]:
        """Wrap a key under the newest master key."""
        master = self._ring.current
        return master.key_id, _encrypt(master.secret, data_key, b"key\0" + about)

    async def unwrap(self, name: str, wrapped: bytes, about: bytes) -> bytes:
        """The key again."""
        master = self._ring.find(name)
        if master is None:
            raise HistoryError(f"contact data is under the master key {name}, which is not given")
        return _decrypt(master.secret, wrapped, b"key\0" + about)

    async def newest(self) -> str:
        """Name of the newest master key."""
        return self._ring.current.key_id


class ContactVault:
    """Seals and opens contact data.

    Args:
        master: Wraps data keys.
        space: Of the customers, the namespace of their histories: the same id elsewhere is another.
    """

    def __init__(self, master: MasterKeys, space: str) -> None:
        self._master, self._space = master, space

    async def seal(self, customer_id: str, contact: Mapping[str, str]) -> SealedContact:
        """Encrypt a customer's contact data under a new key."""
        data_key = AESGCM.generate_key(_KEY_BITS)
        name, wrapped = await self._master.wrap(data_key, self._about(customer_id))
        return SealedContact(
            key=name,
            wrapped=_text(wrapped),
            fields={
                field: _text(_encrypt(data_key, value.encode(), self._about(customer_id, field)))
                for field, value in contact.items()
            },
        )

    async def open(self, customer_id: str, sealed: SealedContact) -> dict[str, str]:
        """Contact data in clear.

        Raises:
            HistoryError: It was changed, is another customer's, or its master key is gone.
        """
        data_key = await self._master.unwrap(sealed.key, _bytes(sealed.wrapped), self._about(customer_id))
        return {
            field: _decrypt(data_key, _bytes(value), self._about(customer_id, field)).decode()
            for field, value in sealed.fields.items()
        }

    async def rewrap(self, customer_id: str, sealed: SealedContact) -> SealedContact:
        """The same contact data, its key under the newest master key.

        Raises:
            HistoryError: The key cannot be unwrapped.
        """
        about = self._about(customer_id)
        data_key = await self._master.unwrap(sealed.key, _bytes(sealed.wrapped), about)
        name, wrapped = await self._master.wrap(data_key, about)
        return sealed.model_copy(update={"key": name, "wrapped": _text(wrapped)})

    def _about(self, *names: str) -> bytes:
        return _joined((self._space, *names))


def _joined(names: Iterable[str]) -> bytes:
    """Names with their lengths, so that no two lists of names give the same bytes."""
    encoded = [name.encode() for name in names]
    return b"".join(len(name).to_bytes(4) + name for name in encoded)


def _encrypt(key: bytes, plain: bytes, about: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def _decrypt(key: bytes, sealed: bytes, about: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
    except (InvalidTag, ValueError):
        raise HistoryError("sealed contact data was changed, or is another customer's") from None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise HistoryError("sealed contact data was changed, or is another customer's") from None
