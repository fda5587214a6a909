from pathlib import Path

import pytest
from pydantic import ValidationError

from api.settings import ApiSettings


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("TIDEGATE_REDIS_URL", "redis://elsewhere:6380/2")
    monkeypatch.setenv("TIDEGATE_MODELS", "/models")
    monkeypatch.setenv("TIDEGATE_HTTP_PORT", "9000")
    settings = ApiSettings()
    assert (settings.redis_url, settings.models, settings.http_port) == (
        "redis://elsewhere:6380/2",
        Path("/models"),
        9000,
    )


def test_it_listens_on_loopback_unless_told(monkeypatch):
    monkeypatch.delenv("TIDEGATE_HTTP_HOST", raising=False)
    assert ApiSettings().http_host == "127.0.0.1"


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValidationError, match="http_port"):
        ApiSettings(http_port=port)
