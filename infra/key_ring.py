"""Secret keys with names, the newest first in use: for the audit trail and for customers' data.

From a file that `tidegate keys` writes, or from text in the environment.
"""

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from infra.private_files import changing, read_json, write_private
from schemas.errors import ConfigError

PURPOSES = ("audit", "data")
_BYTES = 32


@dataclass(frozen=True, slots=True)
class NamedKey:
    """32 random bytes and what they are called."""

    key_id: str
    secret: bytes = field(repr=False)


class KeyRing:
    """Keys of one purpose, newest last."""

    def __init__(self, keys: Sequence[NamedKey]) -> None:
        if not keys:
            raise ConfigError("a key ring needs at least one key")
        self._keys = {key.key_id: key for key in keys}
        self.current = keys[-1]

    def find(self, key_id: str) -> NamedKey | None:
        """The key of this name."""
        return self._keys.get(key_id)

    @property
    def names(self) -> list[str]:
        """Names of all keys, newest last."""
        return list(self._keys)

    @classmethod
    def of_text(cls, text: str) -> "KeyRing":
        """From `NAME:BASE64[,NAME:BASE64...]`, newest last.

        Raises:
            ConfigError: It is not. The text is not repeated.
        """
        keys = []
        for number, part in enumerate(text.split(","), start=1):
            name, colon, encoded = part.strip().partition(":")
            try:
                secret = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                secret = b""
            if not colon or not name or len(secret) != _BYTES:
                raise ConfigError(f"audit or data keys: key {number} is not NAME:BASE64 of {_BYTES} bytes")
            keys.append(NamedKey(name, secret))
        return cls(keys)

    @classmethod
    def of_file(cls, folder: Path, purpose: str) -> "KeyRing":
        """From the folder that `tidegate keys` writes.

        Raises:
            ConfigError: There is no such key.
        """
        path = file_of(folder, purpose)
        if not path.exists():
            raise ConfigError(f"{path} does not exist: run 'tidegate keys rotate --for {purpose}'")
        return cls.of_text(_text(path))


def data_keys(text: str, folder: Path) -> KeyRing | None:
    """Master keys of contact data, from text or else from the folder; `None` where there are none.

    Raises:
        ConfigError: They cannot be used.
    """
    if text:
        return KeyRing.of_text(text)
    return KeyRing.of_file(folder, "data") if file_of(folder, "data").exists() else None


def file_of(folder: Path, purpose: str) -> Path:
    """Where the keys of a purpose are."""
    return folder / f"{purpose}-keys.json"


def add_key(folder: Path, purpose: str) -> str:
    """Make a new key, which is used from the next start on; returns its name."""
    path = file_of(folder, purpose)
    with changing(path):
        kept = [_text(path)] if path.exists() else []
        name = secrets.token_hex(4)
        made = f"{name}:{base64.b64encode(secrets.token_bytes(_BYTES)).decode()}"
        write_private(path, orjson.dumps({"keys": ",".join([*kept, made])}))
    return name


def remove_key(folder: Path, purpose: str, key_id: str) -> None:
    """Forget a key: what it protects cannot be read any more.

    Raises:
        ConfigError: It is not there, or it is in use.
    """
    path = file_of(folder, purpose)
    with changing(path):
        parts = _text(path).split(",")
        rest = [part for part in parts if not part.startswith(f"{key_id}:")]
        if len(rest) == len(parts):
            raise ConfigError(f"there is no {purpose} key {key_id}")
        if parts[-1].startswith(f"{key_id}:"):
            raise ConfigError(f"{key_id} is in use: run 'tidegate keys rotate --for {purpose}' first")
        write_private(path, orjson.dumps({"keys": ",".join(rest)}))


def _text(path: Path) -> str:
    document = read_json(path)
    text = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise ConfigError(f"{path} cannot be used")
    return text
