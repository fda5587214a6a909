"""The worker's settings, from the environment: prefix `TIDEGATE_`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.fields import Namespace


class WorkerSettings(BaseSettings):
    """Everything a worker can be told."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="ignore")

    bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka brokers, HOST:PORT[,HOST:PORT].")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Redis or Valkey.")
    namespace: Namespace = Field(default="tg", description="First part of every Redis key.")
    group: str = Field(default="tidegate", description="Kafka consumer group.")
    instance_id: str = Field(
        default="",
        description="Name of this worker that stays over restarts; Kafka gives its partitions back to it.",
    )
    models: Path = Field(default=Path(".tidegate/models"), description="Folder of the model registry.")
    mlflow_uri: str = Field(
        default="", description="MLflow with the models, in the place of TIDEGATE_MODELS; empty for none."
    )
    models_watch_s: float = Field(
        default=5.0, gt=0, description="How often the registry is asked which models are to be in use."
    )
    partitions: int = Field(default=4, ge=1, description="Partitions of topics that the worker creates.")
    create_topics: bool = Field(default=True, description="Create missing topics at start.")

    chunk_records: int = Field(default=2000, ge=1, le=5000, description="Most records of one chunk.")
    fetch_wait_ms: int = Field(
        default=20,
        ge=1,
        description="How long the broker may hold an empty fetch; 5 ms at most while records come.",
    )
    session_timeout_s: float = Field(default=10.0, ge=6, description="Kafka drops a silent worker after it.")
    redis_timeout_s: float = Field(default=5.0, gt=0, description="Limit of one Redis call.")
    publish_timeout_s: float = Field(default=30.0, gt=0, description="Limit of one publish.")
    transactions: bool = Field(
        default=False,
        description="Publish in Kafka transactions: readers of committed messages see each score once. "
        "Apache Kafka only.",
    )
    retry_first_s: float = Field(default=0.1, gt=0, description="First wait after a failed call.")
    retry_most_s: float = Field(default=5.0, gt=0, description="Longest wait between tries.")
    give_up_s: float = Field(
        default=900.0, gt=0, description="A dependency away for as long ends the worker with an error."
    )
    drain_s: float = Field(default=8.0, gt=0, description="Limit of a graceful stop.")
    cached_records: int = Field(
        default=2_000_000, ge=1000, description="History records cached per partition, 56 bytes each."
    )
    recent_scores: int = Field(default=10, ge=1, description="Fraud scores kept per customer for lookups.")
    features: Path | None = Field(
        default=None, description="YAML file of your own features (docs/declarations.md), as in training."
    )
    entities: str = Field(
        default="",
        description="Features over all customers: merchant, device, counterparty, with commas between, as in "
        "training.",
    )
    attributes: str = Field(
        default="",
        description="What models read of a message besides: balance_before, balance_after and names of "
        "attributes, with commas between, as in training.",
    )
    score_features: bool = Field(default=False, description="Put the feature vector into fraud scores.")

    silent_days: int = Field(default=7, ge=1, description="Silence after which the sweep rescores churn.")
    forget_days: int = Field(default=90, ge=1, description="Silence after which the sweep gives up.")
    security_dir: Path = Field(default=Path(".tidegate/security"), description="Folder of keys and clients.")
    data_keys: SecretStr = Field(
        default=SecretStr(""), description="NAME:BASE64,...; empty: data-keys.json in TIDEGATE_SECURITY_DIR."
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Prometheus port on loopback; 0: none.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of the metrics port.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important log lines shown."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: for people on a terminal, else JSON."
    )
    tracing: bool = Field(
        default=False, description="Send spans by OpenTelemetry (extra `trace`; OTEL_* says where)."
    )
    # Test seam, documented in docs/operations.md: the process kills itself at a named point.
    crash_point: str = Field(default="", description="For fault tests: where to stop without a word.")
