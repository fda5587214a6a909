"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, Final

import typer

from infra.addresses import check_namespace

BOOTSTRAP: Final = "127.0.0.1:9092"
REDIS_URL: Final = "redis://127.0.0.1:6379/0"
NAMESPACE: Final = "tg"
MODELS: Final = Path(".tidegate/models")

Bootstrap = Annotated[
    str, typer.Option(envvar="TIDEGATE_BOOTSTRAP", help="Kafka brokers, HOST:PORT[,HOST:PORT].")
]
RedisUrl = Annotated[
    str, typer.Option(envvar="TIDEGATE_REDIS_URL", help="Redis or Valkey, redis://HOST:PORT/DB.")
]
Namespace = Annotated[
    str,
    typer.Option(
        envvar="TIDEGATE_NAMESPACE", help="First part of every Redis key.", callback=check_namespace
    ),
]
Models = Annotated[Path, typer.Option(envvar="TIDEGATE_MODELS", help="Folder of the model registry.")]
MlflowUri = Annotated[
    str, typer.Option(envvar="TIDEGATE_MLFLOW_URI", help="MLflow in the place of a folder.")
]
