from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from infra.access import KafkaAccess, RedisAccess, expires, from_environment
from schemas.errors import ConfigError


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    return path


def test_nothing_set_is_plaintext_without_login():
    assert KafkaAccess().options() == {"security_protocol": "PLAINTEXT"}
    assert RedisAccess().options("redis://localhost:6379/0") == {}


def test_sasl_over_tls(pem, password):
    access = KafkaAccess(
        kafka_security="sasl_ssl", kafka_ca=pem, kafka_username="tidegate", kafka_password_file=password
    )
    options = access.options()
    assert options["security_protocol"] == "SASL_SSL"
    assert options["ssl_context"].check_hostname
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("tidegate", "s3cret")
    assert list(access.certificates()) == [("kafka authority", pem)]


def test_redis_over_tls_checks_the_server(pem, password):
    access = RedisAccess(redis_ca=pem, redis_username="tidegate", redis_password_file=password)
    options = access.options("rediss://redis:6379/0")
    assert options["ssl_ca_certs"] == str(pem)
    assert options["ssl_cert_reqs"] == "required"
    assert options["ssl_check_hostname"] is True
    assert options["password"] == "s3cret"


def test_login_that_is_only_half_there_is_refused(password):
    with pytest.raises(ConfigError, match="TIDEGATE_KAFKA_USERNAME and TIDEGATE_KAFKA_PASSWORD_FILE"):
        KafkaAccess(kafka_security="sasl_ssl", kafka_password_file=password).options()
    with pytest.raises(ConfigError, match="has no login: use sasl_ssl"):
        KafkaAccess(kafka_security="ssl", kafka_username="tidegate").options()


def test_certificate_that_would_not_be_used_is_refused(pem):
    with pytest.raises(ConfigError, match="not encrypted: set TIDEGATE_KAFKA_SECURITY"):
        KafkaAccess(kafka_ca=pem).options()
    with pytest.raises(ConfigError, match="rediss://"):
        RedisAccess(redis_ca=pem).options("redis://redis:6379/0")


def test_certificate_without_its_key_is_refused(pem):
    with pytest.raises(ConfigError, match="TIDEGATE_KAFKA_CERTIFICATE and TIDEGATE_KAFKA_KEY go together"):
        KafkaAccess(kafka_security="ssl", kafka_certificate=pem).options()


def test_files_that_are_missing_or_empty_are_named(tmp_path):
    with pytest.raises(ConfigError, match="TIDEGATE_REDIS_PASSWORD_FILE cannot be read"):
        RedisAccess(redis_password_file=tmp_path / "none").options("redis://r")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        RedisAccess(redis_password_file=tmp_path / "empty").options("redis://r")
    with pytest.raises(ConfigError, match="TIDEGATE_REDIS_CA"):
        RedisAccess(redis_ca=tmp_path / "none").options("rediss://r")


def test_expiry_is_that_of_the_first_certificate_to_expire(tmp_path):
    authority = trustme.CA()
    early, late = (
        authority.issue_cert("a.test", not_after=datetime(year, 1, 1, tzinfo=UTC)) for year in (2031, 2033)
    )
    chain = tmp_path / "chain.pem"
    chain.write_bytes(late.cert_chain_pems[0].bytes() + early.cert_chain_pems[0].bytes())
    assert expires(chain) == datetime(2031, 1, 1, tzinfo=UTC)
    chain.write_text("none")
    with pytest.raises(ConfigError, match="no certificate in PEM form"):
        expires(chain)


def test_environment_with_a_wrong_value_is_named(monkeypatch):
    monkeypatch.setenv("TIDEGATE_KAFKA_SECURITY", "tls")
    with pytest.raises(ConfigError, match="TIDEGATE_KAFKA_SECURITY"):
        from_environment()
