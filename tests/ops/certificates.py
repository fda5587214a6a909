"""Certificates, made for a test, and servers that want them."""

import os
import time
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from redis import Redis
from redis.exceptions import RedisError

from infra.embedded import EmbeddedRedis
from infra.kafka_cluster import KafkaCluster
from schemas.errors import DependencyError
from tests.ops.monitoring import tool


class Certificates:
    """An authority, a server's and a client's certificate in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.server, self.server_key = folder / "server.pem", folder / "server.key"
        self.client, self.client_key = folder / "client.pem", folder / "client.key"
        for names, chain, key in (
            (("127.0.0.1", "localhost"), self.server, self.server_key),
            (("worker@tidegate.test",), self.client, self.client_key),
        ):
            issued = authority.issue_cert(*names)
            chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
            issued.private_key_pem.write_to_path(key)
            key.chmod(0o600)


class SecuredRedis(EmbeddedRedis):
    """Debian's Redis with TLS only, a client certificate asked for, and no user without a password."""

    def __init__(self, data_dir: Path, certificates: Certificates, users: Path) -> None:
        super().__init__(data_dir)
        self.certificates = certificates
        self.users = users

    @property
    def url(self) -> str:
        return f"rediss://{self.address}/0"

    def _command(self) -> list[str]:
        program = Path(tool("redis-server"))
        libraries = ":".join(str(p) for p in (program.parents[1] / "lib").glob("*-linux-gnu"))
        return [
            "/usr/bin/env",
            f"LD_LIBRARY_PATH={libraries}",
            str(program),
            *("--bind", "127.0.0.1", "--port", "0", "--tls-port", str(self.port)),
            *("--tls-cert-file", str(self.certificates.server)),
            *("--tls-key-file", str(self.certificates.server_key)),
            *("--tls-ca-cert-file", str(self.certificates.ca)),
            *("--tls-auth-clients", "yes", "--aclfile", str(self.users)),
            *("--dir", str(self.directory), "--appendonly", "yes", "--save", ""),
            *("--maxmemory-policy", "noeviction"),
        ]

    def _wait_until_it_answers(self, deadline: float) -> None:
        # Plain bytes get no answer; that it takes a client with certificate and password does.
        password = (self.users.parent / "redis_password").read_text()
        while True:
            try:
                with Redis.from_url(
                    self.url,
                    username="tidegate",
                    password=password,
                    ssl_ca_certs=str(self.certificates.ca),
                    ssl_certfile=str(self.certificates.client),
                    ssl_keyfile=str(self.certificates.client_key),
                ) as client:
                    client.ping()
                    return
            except (RedisError, OSError) as error:
                if not self.running or time.monotonic() > deadline:
                    raise DependencyError(
                        f"redis did not start: {error}; {self.log_path.read_text()[-2000:]}"
                    ) from error
                time.sleep(0.05)


def secured_kafka(folder: Path, certificates: Certificates, password: str) -> KafkaCluster:
    """Apache Kafka whose clients need TLS, a certificate and a password."""
    # Kafka reads keys in PKCS #8 only, in one file with their chain.
    key = load_pem_private_key(certificates.server_key.read_bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    store = folder / "kafka-server.pem"
    store.write_bytes(pem + certificates.server.read_bytes())
    listener = "listener.name.client"
    return KafkaCluster(
        folder,
        security_protocol="SASL_SSL",
        properties={
            f"{listener}.ssl.keystore.type": "PEM",
            f"{listener}.ssl.keystore.location": str(store),
            f"{listener}.ssl.truststore.type": "PEM",
            f"{listener}.ssl.truststore.location": str(certificates.ca),
            f"{listener}.ssl.client.auth": "required",
            f"{listener}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{listener}.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        },
        format_arguments=("--add-scram", f"SCRAM-SHA-512=[name=tidegate,password={password}]"),
    )


def environment() -> dict[str, str]:
    """The environment without settings of a developer."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
