from pathlib import Path

import pytest

from api.main import build
from api.production import check, missing_for_production
from api.settings import ApiSettings
from infra.signing_keys import SigningKeys
from schemas.errors import ConfigError

RIGHT = {
    "api_mode": "production",
    "auth": "own",
    "auth_issuer": "https://scores.bank.example",
    "redis_url": "rediss://api:secret@redis.bank.example:6379/0",
    "tls_cert": Path("cert.pem"),
    "tls_key": Path("key.pem"),
    "audit_anchor": Path("anchors.jsonl"),
}


def settings(**changed) -> ApiSettings:
    return ApiSettings(**{**RIGHT, **changed})


def test_right_settings_lack_nothing():
    check(settings())
    check(
        settings(redis_url="unix:///run/redis.sock", tls_cert=None, tls_key=None, trusted_proxies="10.0.0.2")
    )
    check(settings(auth="issuer", auth_jwks_url="https://login.bank.example/jwks.json"))


def test_an_address_that_is_none_is_left_to_where_it_is_used():
    check(settings(redis_url="rediss://[::1"))


def test_development_defaults_are_listed_all_at_once():
    with pytest.raises(ConfigError) as refused:
        check(ApiSettings(api_mode="production"))
    listed = str(refused.value)
    for name in ("AUTH:", "AUTH_ISSUER:", "REDIS_URL:", "TLS_CERT"):
        assert f"\n  - TIDEGATE_{name}" in listed
    check(ApiSettings())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"auth": "off"}, "TIDEGATE_AUTH:"),
        ({"auth_issuer": "tidegate"}, "TIDEGATE_AUTH_ISSUER:"),
        ({"auth_issuer": "http://scores.bank.example"}, "TIDEGATE_AUTH_ISSUER:"),
        ({"auth": "issuer", "auth_jwks_url": "http://x.example/jwks"}, "TIDEGATE_AUTH_JWKS_URL:"),
        ({"rate_limits": "off"}, "TIDEGATE_RATE_LIMITS:"),
        ({"redis_url": "redis://api:secret@redis.bank.example:6379/0"}, "TIDEGATE_REDIS_URL:"),
        ({"redis_url": "rediss://redis.bank.example:6379/0"}, "TIDEGATE_REDIS_URL:"),
        ({"rate_limits_redis_url": "redis://127.0.0.1:6379/1"}, "TIDEGATE_RATE_LIMITS_REDIS_URL:"),
        ({"tls_cert": None, "tls_key": None}, "TIDEGATE_TLS_CERT"),
        ({"trusted_proxies": "*"}, "TIDEGATE_TRUSTED_PROXIES:"),
        ({"audit": "off"}, "TIDEGATE_AUDIT:"),
        ({"audit_anchor": None}, "TIDEGATE_AUDIT_ANCHOR:"),
        ({"cors_origins": ["*"]}, "TIDEGATE_CORS_ORIGINS:"),
    ],
)
def test_each_development_default_is_refused(changed, named):
    assert [s for s in missing_for_production(settings(**changed)) if s.startswith(named)]
    with pytest.raises(ConfigError, match=named) as refused:
        check(settings(**changed))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"auth": "issuer"},
        {"tls_cert": Path("cert.pem")},
        {"tls_client_ca": Path("ca.pem")},
        {"tenants": {"retail": "tg", "corporate": "tg"}},
    ],
)
def test_settings_that_do_not_fit_are_refused_in_any_mode(changed):
    with pytest.raises(ConfigError, match="TIDEGATE_"):
        check(ApiSettings(**changed))


def test_without_a_signing_key_it_is_not_built(tmp_path, registry):
    with pytest.raises(ConfigError, match="tidegate keys rotate"):
        build(ApiSettings(auth="own", security_dir=tmp_path, models=registry._root))


def test_keys_that_others_can_read_are_refused_in_production(tmp_path, registry):
    keys = SigningKeys(tmp_path)
    keys.rotate(wait_s=0, keep_s=60)
    keys.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        build(settings(security_dir=tmp_path, models=registry._root))
