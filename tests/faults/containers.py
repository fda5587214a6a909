"""Kafka and Valkey in containers, where an engine answers: for the tests, what the processes are otherwise.

The images are those of `docker-compose.yml`. Ports are chosen beforehand and bound, because both must come
back on the same address after they were killed.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from docker.errors import APIError, DockerException
from redis import Redis
from redis.exceptions import RedisError
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from infra.embedded_part import HOST, free_port
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError

_COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"
_LOOK_AGAIN_S = 0.2


def engine_answers() -> bool:
    """Whether there is a container engine that speaks Docker's protocol."""
    try:
        client = DockerClient().client
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


def image(name: str) -> str:
    """The image of a part in `docker-compose.yml`."""
    document = yaml.safe_load(_COMPOSE.read_text())
    found = (document.get(f"x-{name}") or document["services"][name])["image"]
    return str(found)


class ContainerPart:
    """One container that starts, stops, breaks and starts again, with the methods of an `EmbeddedPart`.

    Args:
        image: Name and tag.
        port: Of the server, in the container and on this machine.
        environment: Of the server.
        command: Instead of the image's own.
    """

    pid = None

    def __init__(
        self,
        image: str,
        *,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        command: list[str] | None = None,
    ) -> None:
        # The reaper is one more image to fetch; these are removed by their tests.
        testcontainers_config.ryuk_disabled = True
        self.port = port or free_port()
        self._container = DockerContainer(image).with_bind_ports(self.port, self.port)
        self._container.with_envs(**dict(environment or {}))
        if command:
            self._container.with_command(command)
        self._made = False

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        if not self._made:
            return False
        held = self._container.get_wrapped_container()
        held.reload()
        return bool(held.status in ("running", "paused"))

    def start(self, timeout_s: float = 120.0) -> None:
        """Start it and return when it answers; a killed one with the data that it had."""
        deadline = time.monotonic() + timeout_s
        if not self._made:
            self._container.start()
            self._made = True
        elif not self.running:
            self._container.get_wrapped_container().start()
        while not self._answers():
            if time.monotonic() > deadline:
                raise DependencyError(f"{self._container.image} did not answer within {timeout_s:g} s")
            time.sleep(_LOOK_AGAIN_S)

    def _answers(self) -> bool:
        raise NotImplementedError

    def stop(self, timeout_s: float = 30.0) -> None:
        """SIGTERM, then SIGKILL."""
        if self._made:
            self._container.get_wrapped_container().stop(timeout=int(timeout_s))

    def kill(self) -> None:
        """SIGKILL; it can be started again."""
        if self._made and self.running:
            with contextlib.suppress(APIError):
                self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    def remove(self) -> None:
        """Remove it with its data."""
        if self._made:
            self._made = False
            self._container.stop()


class ContainerRedis(ContainerPart):
    """Valkey with an append-only file."""

    def __init__(self) -> None:
        # An own port in the container too: replicas and proxies see the one that clients see.
        port = free_port()
        command = ["valkey-server", "--port", str(port), "--appendonly", "yes", "--appendfsync", "everysec"]
        command += ["--save", "", "--maxmemory-policy", "noeviction", "--protected-mode", "no"]
        super().__init__(image("redis"), port=port, command=command)

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def _answers(self) -> bool:
        try:
            with Redis(port=self.port, socket_timeout=1, socket_connect_timeout=1) as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False


class ContainerKafka(ContainerPart):
    """One broker of Apache Kafka, a controller as well; what `infra.kafka_cluster` starts as a process."""

    def __init__(self) -> None:
        port = free_port()
        clients, controller = f"CLIENT://0.0.0.0:{port}", "CONTROLLER://0.0.0.0:9093"
        super().__init__(
            image("kafka"),
            port=port,
            environment={
                "KAFKA_NODE_ID": "1",
                "KAFKA_PROCESS_ROLES": "broker,controller",
                "KAFKA_LISTENERS": f"{clients},{controller}",
                "KAFKA_ADVERTISED_LISTENERS": f"CLIENT://{HOST}:{port}",
                "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "KAFKA_INTER_BROKER_LISTENER_NAME": "CLIENT",
                "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
                "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
                "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
                "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
                "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
                "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
                "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            },
        )

    @property
    def nodes(self) -> list[Any]:
        return [self]

    def _answers(self) -> bool:
        # Tests call this with their own loop running.
        with ThreadPoolExecutor(1) as beside:
            asked = beside.submit(asyncio.run, TopicsAdmin(self.address, timeout_s=2.0).partitions())
        return not isinstance(asked.exception(), DependencyError) and asked.result() is not None
