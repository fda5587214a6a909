"""`tidegate kafka`."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from cli.console import err, print_json
from infra.kafka_cluster import KafkaCluster


def kafka(
    data_dir: Annotated[Path, typer.Option(help="Data, cluster id and logs; kept over restarts.")] = Path(
        ".tidegate/kafka"
    ),
    brokers: Annotated[int, typer.Option(min=1, max=3, help="1 or 3.")] = 1,
    port: Annotated[
        int, typer.Option(min=1024, max=65533, help="Of the first broker; then the next.")
    ] = 9092,
) -> None:
    """Run Apache Kafka here, without containers, until Ctrl-C.

    Needs Java 17 and Maven, which resolves the broker's jars at the first start. For development:
    it listens on the loopback interface only, without TLS or login. Prints the address as JSON.
    """
    cluster = KafkaCluster(data_dir, brokers, ports=range(port, port + brokers))
    # SIGTERM ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with cluster:
            print_json({"bootstrap": cluster.bootstrap, "cluster_id": cluster.cluster_id})
            err.print(f"Apache Kafka serves at {cluster.bootstrap}; Ctrl-C stops it")
            signal.pause()
    except KeyboardInterrupt:
        err.print("stopped")
