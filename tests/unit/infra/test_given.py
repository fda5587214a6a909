import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.given import settings_of
from schemas.errors import ConfigError


class Some(BaseSettings):
    """Of a program."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="ignore")

    port: int = Field(default=1, le=9)
    tenants: dict[str, str] = Field(default_factory=dict)


def test_options_come_before_the_environment(monkeypatch):
    monkeypatch.setenv("TIDEGATE_PORT", "2")
    assert settings_of(Some, {"port": None}).port == 2
    assert settings_of(Some, {"port": 3}).port == 3


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TIDEGATE_PORT", "secret", "TIDEGATE_PORT: Input should be a valid integer"),
        ("TIDEGATE_PORT", "10", "TIDEGATE_PORT: Input should be less than or equal to 9"),
        ("TIDEGATE_TENANTS", "secret", "TIDEGATE_TENANTS: this is not JSON"),
        ("TIDEGATE_TENANTS", '{"a": 1}', r"TIDEGATE_TENANTS\.A: Input should be a valid string"),
    ],
)
def test_a_wrong_setting_is_named_and_not_repeated(monkeypatch, name, value, words):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words) as refused:
        settings_of(Some)
    assert "secret" not in str(refused.value)
