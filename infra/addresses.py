"""Addresses as operators write them: what cannot be one is said before anything connects."""

import re
from urllib.parse import urlsplit

from schemas.errors import ConfigError
from schemas.fields import NAMESPACE_PATTERN


def check_redis_url(url: str) -> None:
    """Refuse what is no address of Redis. The clients raise errors of their own, or take database 0.

    Raises:
        ConfigError: It is none. The message does not repeat it: it may hold a password.
    """
    wanted = "TIDEGATE_REDIS_URL is redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix://PATH"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{wanted}; this one has a port that is no number from 0 to 65535") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(f"{wanted}; this one begins otherwise")
    if parts.scheme == "unix":
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
