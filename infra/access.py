"""How Kafka and Redis are reached: encryption and logins, from the environment, for every client alike.

Passwords come from files: an environment is shown by too many tools.
"""

import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.addresses import check_redis_url
from infra.given import settings_of
from schemas.errors import ConfigError

_CONFIG = SettingsConfigDict(env_prefix="TIDEGATE_", extra="ignore")


class KafkaAccess(BaseSettings):
    """Encryption and login for Kafka."""

    model_config = _CONFIG

    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        default="plaintext", description="Kafka: encryption (ssl) and login (sasl)."
    )
    kafka_ca: Path | None = Field(
        default=None, description="Kafka: authorities to trust, PEM; the system's without."
    )
    kafka_certificate: Path | None = Field(default=None, description="Kafka: client certificate chain, PEM.")
    kafka_key: Path | None = Field(default=None, description="Kafka: the client certificate's key, PEM.")
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="Kafka: how to log in."
    )
    kafka_username: str = Field(default="", description="Kafka: user to log in as.")
    kafka_password_file: Path | None = Field(default=None, description="Kafka: file with the password.")

    @property
    def encrypted(self) -> bool:
        """Whether connections are encrypted."""
        return self.kafka_security in {"ssl", "sasl_ssl"}

    def context(self) -> ssl.SSLContext | None:
        """TLS as configured; `None` without."""
        if not self.encrypted:
            _refuse_unused("kafka", "TIDEGATE_KAFKA_SECURITY=ssl or sasl_ssl", self.certificates())
            return None
        return _context(self.kafka_ca, self.kafka_certificate, self.kafka_key, "TIDEGATE_KAFKA")

    def login(self) -> tuple[str, str] | None:
        """User and password; `None` where there is no login.

        Raises:
            ConfigError: Half of it is missing.
        """
        if not self.kafka_security.startswith("sasl"):
            if self.kafka_username or self.kafka_password_file:
                raise ConfigError(
                    "TIDEGATE_KAFKA_USERNAME is set, but TIDEGATE_KAFKA_SECURITY has no login: use sasl_ssl"
                )
            return None
        if not self.kafka_username or self.kafka_password_file is None:
            raise ConfigError(
                f"TIDEGATE_KAFKA_SECURITY is {self.kafka_security}: set TIDEGATE_KAFKA_USERNAME and "
                "TIDEGATE_KAFKA_PASSWORD_FILE"
            )
        return self.kafka_username, _secret(self.kafka_password_file, "TIDEGATE_KAFKA_PASSWORD_FILE")

    def options(self) -> dict[str, Any]:
        """Arguments of every aiokafka client.

        Raises:
            ConfigError: A file is missing or is none, or half of a login is missing.
        """
        options: dict[str, Any] = {"security_protocol": self.kafka_security.upper()}
        if (context := self.context()) is not None:
            options["ssl_context"] = context
        if (login := self.login()) is not None:
            options["sasl_mechanism"] = self.kafka_sasl_mechanism
            options["sasl_plain_username"], options["sasl_plain_password"] = login
        return options

    def certificates(self) -> Iterator[tuple[str, Path]]:
        """Certificate files by what they are for."""
        yield from _named("kafka", self.kafka_ca, self.kafka_certificate)


class RedisAccess(BaseSettings):
    """Encryption and login for Redis. A `rediss://` address is encrypted."""

    model_config = _CONFIG

    redis_ca: Path | None = Field(
        default=None, description="Redis: authorities to trust, PEM; the system's without."
    )
    redis_certificate: Path | None = Field(default=None, description="Redis: client certificate chain, PEM.")
    redis_key: Path | None = Field(default=None, description="Redis: the client certificate's key, PEM.")
    redis_username: str = Field(default="", description="Redis: user to log in as; an address may name one.")
    redis_password_file: Path | None = Field(default=None, description="Redis: file with the password.")

    def options(self, url: str) -> dict[str, Any]:
        """Arguments of every Redis client for an address.

        Raises:
            ConfigError: It is no address, a file is missing or is none, or certificates are set for an
                address without TLS.
        """
        check_redis_url(url)
        options: dict[str, Any] = {}
        if self.redis_username:
            options["username"] = self.redis_username
        if self.redis_password_file is not None:
            options["password"] = _secret(self.redis_password_file, "TIDEGATE_REDIS_PASSWORD_FILE")
        if not url.startswith("rediss://"):
            _refuse_unused("redis", "an address that starts with rediss://", self.certificates())
            return options
        # Made for its checks: a wrong file is said here and not as a connection that does not come about.
        _context(self.redis_ca, self.redis_certificate, self.redis_key, "TIDEGATE_REDIS")
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
        for name, path in (
            ("ssl_ca_certs", self.redis_ca),
            ("ssl_certfile", self.redis_certificate),
            ("ssl_keyfile", self.redis_key),
        ):
            if path is not None:
                options[name] = str(path)
        return options

    def certificates(self) -> Iterator[tuple[str, Path]]:
        """Certificate files by what they are for."""
        yield from _named("redis", self.redis_ca, self.redis_certificate)


def from_environment() -> tuple[KafkaAccess, RedisAccess]:
    """Both, as the environment says.

    Raises:
        ConfigError: A value is none of those allowed.
    """
    return settings_of(KafkaAccess), settings_of(RedisAccess)


def expires(path: Path) -> datetime:
    """When the first certificate of a file to expire does.

    Raises:
        ConfigError: The file has no certificate.
    """
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} has no certificate in PEM form: {error}") from error
    return min(certificate.not_valid_after_utc for certificate in found)


def _context(ca: Path | None, certificate: Path | None, key: Path | None, prefix: str) -> ssl.SSLContext:
    if (certificate is None) != (key is None):
        raise ConfigError(f"{prefix}_CERTIFICATE and {prefix}_KEY go together")
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if certificate is not None and key is not None:
            context.load_cert_chain(str(certificate), str(key))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{prefix}_CA, _CERTIFICATE or _KEY cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _secret(path: Path, variable: str) -> str:
    try:
        secret = path.read_text().strip("\r\n")
    except OSError as error:
        raise ConfigError(f"{variable} cannot be read: {error}") from error
    except ValueError:
        raise ConfigError(f"{variable}: {path} is no text in UTF-8") from None
    if not secret:
        raise ConfigError(f"{variable}: {path} is empty")
    return secret


def _named(server: str, ca: Path | None, certificate: Path | None) -> Iterator[tuple[str, Path]]:
    if ca is not None:
        yield f"{server} authority", ca
    if certificate is not None:
        yield f"{server} client", certificate


def _refuse_unused(server: str, wanted: str, given: Iterator[tuple[str, Path]]) -> None:
    """A certificate without encryption is a mistake that nobody would notice."""
    if any(given):
        raise ConfigError(
            f"certificates for {server} are set, but connections are not encrypted: set {wanted}"
        )
