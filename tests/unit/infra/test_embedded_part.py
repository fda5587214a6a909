import pytest

from infra import embedded_part
from infra.embedded_part import free_port


def test_no_port_is_given_twice_although_nobody_has_opened_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # So few that twenty draws without memory would repeat one all but surely.
    monkeypatch.setattr(embedded_part, "_PORTS", range(30_000, 30_060))
    monkeypatch.setattr(embedded_part, "_given", set())
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == 20


def test_ports_do_not_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_part, "_PORTS", range(30_000, 30_060))
    monkeypatch.setattr(embedded_part, "_given", set())
    assert all(port in range(30_000, 30_060) for port in [free_port() for _ in range(200)])
