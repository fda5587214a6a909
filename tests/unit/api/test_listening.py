import socket

import pytest
from pytest_socket import enable_socket

from api.listening import bound, check_tls
from api.settings import ApiSettings
from schemas.errors import ConfigError


@pytest.fixture(autouse=True)
def _sockets(_no_sockets):
    enable_socket()


def test_a_port_that_is_taken_is_said_by_its_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"TIDEGATE_HTTP_PORT: 127\.0\.0\.1:{port} cannot be listened on"
        ):
            bound("127.0.0.1", port)


def test_nobody_is_answered_at_an_address_before_the_server_runs():
    with bound("127.0.0.1", 0) as waiting, pytest.raises(ConnectionRefusedError):
        socket.create_connection(waiting.getsockname(), 5)


def test_certificates_that_are_none_are_said_by_their_setting(tmp_path):
    check_tls(ApiSettings())
    missing = ApiSettings(tls_cert=tmp_path / "none.pem", tls_key=tmp_path / "none.pem")
    with pytest.raises(ConfigError, match=r"TIDEGATE_TLS_CERT, .* cannot be used: No such file"):
        check_tls(missing)
    (tmp_path / "text.pem").write_text("no certificate")
    text = ApiSettings(tls_cert=tmp_path / "text.pem", tls_key=tmp_path / "text.pem")
    with pytest.raises(ConfigError, match=r"TIDEGATE_TLS_CERT, .* cannot be used"):
        check_tls(text)
