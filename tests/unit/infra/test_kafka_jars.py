import pytest

from infra.kafka_jars import FILES, is_available


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with nothing on its path, and a way to put Java there."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)

    def put_java(version):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
        java.chmod(0o755)

    return put_java


def test_kafka_is_not_available_without_java(machine, tmp_path):
    assert FILES.is_dir()
    assert not is_available(tmp_path / "cache")


@pytest.mark.parametrize(("version", "enough"), [("17.0.15", True), ("21", True), ("11.0.2", False)])
def test_kafka_is_available_with_a_java_that_is_new_enough_and_its_jars(machine, tmp_path, version, enough):
    machine(version)
    assert not is_available(tmp_path), "neither jars nor Maven"
    from infra import kafka_jars

    kafka_jars._jars(tmp_path).mkdir(parents=True)
    assert is_available(tmp_path) is enough
