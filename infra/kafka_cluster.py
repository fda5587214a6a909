"""Apache Kafka in KRaft mode without containers, as processes of this one; for development and tests.

One broker or three, each a controller as well. Listens on the loopback interface only, keeps its data and
its cluster id over restarts, and ends with the process that started it, however it ends.
"""

import base64
import contextlib
import socket
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.embedded_part import HOST, EmbeddedPart, free_port
from infra.kafka_jars import FILES, classpath, java
from schemas.errors import DependencyError

_STARTED = b"Kafka Server started"
_FORMAT_TIMEOUT_S = 120.0


class KafkaNode(EmbeddedPart):
    """One broker of a cluster, which also votes as a controller.

    Args:
        data_dir: See `EmbeddedPart`.
        node_id: From 1.
        port: Of the clients' listener; `None` chooses a free one.
        heap_mb: Java's largest heap.
    """

    stop_timeout_s = 30.0

    def __init__(
        self, data_dir: Path | str, node_id: int, port: int | None = None, heap_mb: int = 512
    ) -> None:
        self.name = f"kafka-{node_id}"  # type: ignore[misc]
        super().__init__(data_dir, port)
        self.node_id = node_id
        self.controller_port = free_port()
        self.internal_port = free_port()
        self.heap_mb = heap_mb
        self.properties: dict[str, str] = {}
        self.cluster_id = ""
        self.format_arguments: tuple[str, ...] = ()

    def start(self, timeout_s: float = 60.0) -> None:
        """Format the storage if that was never done, start, and return when the broker serves clients."""
        if not self.running:
            self._prepare()
        super().start(timeout_s)

    @property
    def _settings(self) -> Path:
        return self.directory / "server.properties"

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Passwords of listeners may be among them.
        self._settings.touch(mode=0o600)
        self._settings.write_text("".join(f"{k}={v}\n" for k, v in self.properties.items()))
        if (self.directory / "data" / "meta.properties").exists():
            return
        command = [*self._java(), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        # One argument: an id may begin with a dash.
        command += [
            f"--cluster-id={self.cluster_id}",
            "--config",
            str(self._settings),
            *self.format_arguments,
        ]
        try:
            subprocess.run(
                command,
                check=True,
                timeout=_FORMAT_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self.directory,
            )
        except subprocess.TimeoutExpired:
            raise DependencyError(
                f"{self.name} did not start: formatting its storage took too long"
            ) from None
        except subprocess.CalledProcessError as error:
            said = error.stdout.decode(errors="replace")[-1000:]
            raise DependencyError(
                f"{self.name} did not start: its storage could not be formatted: {said}"
            ) from None

    def _java(self) -> list[str]:
        return [
            java(),
            f"-Xmx{self.heap_mb}m",
            # For a quick start on few cores; a real deployment chooses otherwise.
            *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"),
            f"-Dlog4j2.configurationFile={FILES / 'log4j2.properties'}",
            *("-cp", classpath()),
        ]

    def _command(self) -> list[str]:
        return [*self._java(), "kafka.Kafka", str(self._settings)]

    def _dialogue(self, pid: int) -> tuple[bytes, tuple[bytes, ...]]:
        raise AssertionError("a listener may want TLS: its log says when it serves")

    def _answers(self) -> bool:
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            if _STARTED not in log.read():
                return False
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 0.5):
            return True
        return False


class KafkaCluster:
    """Brokers that start, stop and break together; `nodes` are there to break one.

    Args:
        data_dir: Holds the data and, in `logs/`, what the brokers print.
        brokers: 1 or 3.
        ports: Of the clients' listeners; `None` chooses free ones.
        security_protocol: Of the clients' listener: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
        properties: Broker settings that are added or replace ours, for example those of the listener
            (`listener.name.client.scram-sha-512.sasl.jaas.config`) or `authorizer.class.name`.
        format_arguments: More arguments for formatting the storage, for example
            `("--add-scram", "SCRAM-SHA-512=[name=...,password=...]")`.
    """

    def __init__(
        self,
        data_dir: Path | str,
        brokers: int = 1,
        *,
        ports: Sequence[int] | None = None,
        security_protocol: str = "PLAINTEXT",
        properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
    ) -> None:
        if brokers not in (1, 3):
            raise DependencyError(f"a cluster here has 1 or 3 brokers, not {brokers}")
        if ports is not None and len(ports) != brokers:
            raise DependencyError(f"{brokers} brokers need {brokers} ports, not {len(ports)}")
        self.nodes = [KafkaNode(data_dir, i + 1, ports[i] if ports else None) for i in range(brokers)]
        self.cluster_id = _kept_cluster_id(Path(data_dir).resolve() / "cluster-id")
        for node in self.nodes:
            node.cluster_id = self.cluster_id
            node.format_arguments = tuple(format_arguments)
            node.properties = self._properties(node, security_protocol) | dict(properties or {})

    def _properties(self, node: KafkaNode, security_protocol: str) -> dict[str, str]:
        copies, enough = (3, 2) if len(self.nodes) == 3 else (1, 1)
        clients, internal = f"CLIENT://{node.address}", f"INTERNAL://{HOST}:{node.internal_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": str(node.node_id),
            "controller.quorum.voters": ",".join(
                f"{n.node_id}@{HOST}:{n.controller_port}" for n in self.nodes
            ),
            "listeners": f"{clients},{internal},CONTROLLER://{HOST}:{node.controller_port}",
            "advertised.listeners": f"{clients},{internal}",
            "listener.security.protocol.map": (
                f"CLIENT:{security_protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(node.directory / "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": str(copies),
            "min.insync.replicas": str(enough),
            "offsets.topic.replication.factor": str(copies),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": str(enough),
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "500",
            # A killed broker may come back once the controller has given up its former life.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
        }

    @property
    def bootstrap(self) -> str:
        """All brokers, as Kafka clients want them."""
        return ",".join(node.address for node in self.nodes)

    @property
    def address(self) -> str:
        """The same; `infra.embedded.EmbeddedBroker` calls it so."""
        return self.bootstrap

    def cpu_s(self) -> float:
        """Processor time of all brokers so far."""
        return sum(node.cpu_s() for node in self.nodes)

    @property
    def running(self) -> bool:
        """Whether all brokers live."""
        return all(node.running for node in self.nodes)

    def start(self, timeout_s: float = 90.0) -> None:
        """Start what is not running, side by side: one alone is no majority.

        Raises:
            DependencyError: A broker did not start; its message says which and why.
        """
        # Once, before several want it.
        classpath()
        try:
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(lambda node: node.start(timeout_s), self.nodes))
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop all in order; a majority goes together, since the last one could not hand over."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.stop(), self.nodes))

    def kill(self) -> None:
        """SIGKILL to all."""
        for node in self.nodes:
            node.kill()

    def pause(self) -> None:
        """SIGSTOP to all.

        Raises:
            DependencyError: One is not running.
        """
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        """SIGCONT to all.

        Raises:
            DependencyError: One is not running.
        """
        for node in self.nodes:
            node.resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _kept_cluster_id(path: Path) -> str:
    """The id of the log in this directory; a new one where there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))
    return path.read_text().strip()
