"""Addresses as operators write them: what cannot be one is said before anything connects."""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from schemas.errors import ConfigError
from schemas.fields import NAMESPACE_PATTERN


def _is_seconds(text: str) -> bool:
    with suppress(ValueError):
        return 0 < float(text) < math.inf
    return False


def _is_positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


_REDIS_OPTIONS: Final[Mapping[str, Callable[[str], bool]]] = {
    "db": str.isdecimal,
    "username": bool,
    "password": bool,
    "client_name": str.isidentifier,
    "max_connections": _is_positive,
    "health_check_interval": str.isdecimal,
    "socket_timeout": _is_seconds,
    "socket_connect_timeout": _is_seconds,
}
"""What may stand behind the ? of an address, and what its value is. The client would take more, and before
what is set elsewhere: `ssl_cert_reqs=none` would have servers believed that prove nothing."""


def check_redis_url(url: str, setting: str = "TIDEGATE_REDIS_URL") -> None:
    """Refuse what is no address of Redis. The clients raise errors of their own, or take database 0.

    Raises:
        ConfigError: It is none. The message does not repeat it: it may hold a password.
    """
    wanted = f"{setting} is redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix://PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{wanted}; this one has a port that is no number from 0 to 65535") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(f"{wanted}; this one begins otherwise")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _REDIS_OPTIONS:
            # Not its name: where a password has a ? in it, it is a part of that.
            known = ", ".join(_REDIS_OPTIONS)
            raise ConfigError(
                f"{wanted}; this one has an option behind its ? that is none of {known} (TLS is set by "
                "rediss:// and TIDEGATE_REDIS_CA; a ? in a password is written %3F)"
            )
        if not _REDIS_OPTIONS[name](value):
            raise ConfigError(f"{wanted}; what this one says of {name} cannot be")
    if parts.scheme == "unix":
        if not parts.path:
            raise ConfigError(f"{wanted}; this one has no path")
        return
    if not parts.hostname or port == 0:
        raise ConfigError(f"{wanted}; this one has no host or no port")
    if not (parts.path in ("", "/") or parts.path[1:].isdecimal()):
        raise ConfigError(f"{wanted}; the database of this one is no number")


def check_namespace(namespace: str) -> str:
    """A namespace of Redis keys, as settings take it.

    Raises:
        ConfigError: It is none.
    """
    if not re.fullmatch(NAMESPACE_PATTERN, namespace):
        raise ConfigError("TIDEGATE_NAMESPACE (--namespace) is a name without braces and spaces")
    return namespace


def check_bootstrap(bootstrap: str, setting: str = "TIDEGATE_BOOTSTRAP (--bootstrap)") -> None:
    """Refuse what is no list of Kafka brokers.

    Raises:
        ConfigError: It is none.
    """
    for broker in bootstrap.split(","):
        host, _, port = broker.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ConfigError(f"{setting} is HOST:PORT[,HOST:PORT], not {bootstrap[:200]!r}")
