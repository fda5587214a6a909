"""What must be set before the API may be used for real."""

from urllib.parse import urlsplit

from api.settings import ApiSettings
from schemas.errors import ConfigError

_LOCAL_ISSUER = "tidegate"


def missing_for_production(settings: ApiSettings) -> list[str]:
    """Sentences that say what to set, for each development default that is left."""
    return [*_auth(settings), *_transport(settings)]


def _auth(settings: ApiSettings) -> list[str]:
    found = []
    if settings.auth == "off":
        found.append("TIDEGATE_AUTH: set own (then run 'tidegate keys rotate') or issuer")
    if settings.auth_issuer == _LOCAL_ISSUER or not settings.auth_issuer.startswith("https://"):
        found.append("TIDEGATE_AUTH_ISSUER: set the https:// address that tokens name as iss")
    if settings.auth == "issuer" and not settings.auth_jwks_url.startswith("https://"):
        found.append("TIDEGATE_AUTH_JWKS_URL: set the https:// address of the issuer's key set")
    if settings.rate_limits == "off":
        found.append("TIDEGATE_RATE_LIMITS: set on or auto")
    if settings.audit == "off":
        found.append("TIDEGATE_AUDIT: set on or auto")
    elif settings.audit_anchor is None:
        found.append("TIDEGATE_AUDIT_ANCHOR: set a file on another disk or machine than TIDEGATE_AUDIT_DIR")
    return found


def _transport(settings: ApiSettings) -> list[str]:
    found = []
    urls = {"TIDEGATE_REDIS_URL": settings.redis_url}
    if settings.rate_limits_redis_url:
        urls["TIDEGATE_RATE_LIMITS_REDIS_URL"] = settings.rate_limits_redis_url
    for name, url in urls.items():
        try:
            parts = urlsplit(url)
        except ValueError:
            # No address at all, which is said where it is used.
            continue
        secret = parts.password or "password=" in parts.query
        if parts.scheme != "unix" and not (parts.scheme == "rediss" and secret):
            found.append(f"{name}: set rediss://USER:PASSWORD@HOST:PORT/DB (TLS and an ACL user), or unix://")
    if settings.tls_cert is None and not settings.trusted_proxies:
        found.append(
            "TIDEGATE_TLS_CERT and TIDEGATE_TLS_KEY: set both; or TIDEGATE_TRUSTED_PROXIES where TLS ends "
            "at a proxy"
        )
    if settings.trusted_proxies == "*":
        found.append("TIDEGATE_TRUSTED_PROXIES: name the proxies; anybody could say who they are with *")
    if "*" in settings.cors_origins:
        found.append("TIDEGATE_CORS_ORIGINS: name the origins; * lets every web page read answers")
    return found


def check(settings: ApiSettings) -> None:
    """Refuse settings that do not fit, and in production mode every development default.

    Raises:
        ConfigError: With all that is to be set.
    """
    wrong = []
    if settings.auth == "issuer" and not settings.auth_jwks_url:
        wrong.append("TIDEGATE_AUTH_JWKS_URL: set the address of the issuer's key set")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        wrong.append("TIDEGATE_TLS_CERT and TIDEGATE_TLS_KEY: set both or neither")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        wrong.append("TIDEGATE_TLS_CLIENT_CA: needs TIDEGATE_TLS_CERT")
    if len(set(settings.tenants.values())) < len(settings.tenants):
        wrong.append(
            "TIDEGATE_TENANTS: two tenants share a namespace, so each would see the other's customers"
        )
    if wrong:
        raise ConfigError("; ".join(wrong))
    if settings.api_mode == "production" and (found := missing_for_production(settings)):
        listed = "".join(f"\n  - {sentence}" for sentence in found)
        raise ConfigError(f"production mode does not start with development defaults:{listed}")
