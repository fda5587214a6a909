"""Where the API answers: address, TLS, and the server itself."""

import socket
import ssl
import sys
from contextlib import ExitStack
from typing import Any

import uvicorn

from api.application import Api
from api.connections import Http, Socket
from api.settings import ApiSettings
from schemas.errors import ConfigError


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address; nobody is answered there yet.

    Raises:
        ConfigError: The address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as opened:
            made = opened.enter_context(socket.socket(family, kind, protocol))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            opened.pop_all()
            return made
    except OSError as error:
        raise ConfigError(
            f"TIDEGATE_HTTP_HOST, TIDEGATE_HTTP_PORT: {host}:{port} cannot be listened on: "
            f"{error.strerror or error}"
        ) from error


def check_tls(settings: ApiSettings) -> None:
    """Look at certificate and key before anything else is begun.

    Raises:
        ConfigError: They cannot be used.
    """
    if settings.tls_cert is not None:
        try:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=settings.tls_client_ca)
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        except (OSError, ValueError) as error:
            raise ConfigError(
                "TIDEGATE_TLS_CERT, TIDEGATE_TLS_KEY or TIDEGATE_TLS_CLIENT_CA cannot be used: "
                f"{getattr(error, 'strerror', None) or error}"
            ) from error


def tls_options(settings: ApiSettings) -> dict[str, Any]:
    """What uvicorn is told about TLS; nothing where there is none."""
    if settings.tls_cert is None:
        return {}
    given: dict[str, Any] = {
        "ssl_certfile": settings.tls_cert,
        "ssl_keyfile": settings.tls_key,
        "ssl_ciphers": "ECDHE+AESGCM:ECDHE+CHACHA20",
    }
    if settings.tls_client_ca is not None:
        given |= {"ssl_ca_certs": str(settings.tls_client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return given


def run(app: Api, listening: socket.socket, settings: ApiSettings) -> None:
    """Answer until told to stop; ends the process with 3 where that could not begin."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
        http=Http,
        ws=Socket,
        # What clients say on a socket is not looked at.
        ws_max_size=4096,
        # A compressor for each of hundreds of clients costs more than what it saves.
        ws_per_message_deflate=False,
        # Only a proxy that is named may say who its clients are.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        **tls_options(settings),
    )
    server = uvicorn.Server(config)
    server.run([listening])
    if not server.started:
        sys.exit(3)
