"""The sink's settings, from the environment: prefix `TIDEGATE_`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SinkSettings(BaseSettings):
    """Everything the sink can be told. `bootstrap` and the `metrics_*` and `log_*` are as the worker's."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="ignore")

    bootstrap: str = Field(default="127.0.0.1:9092", description="Kafka brokers, HOST:PORT[,HOST:PORT].")
    database_url: str = Field(
        default="sqlite:///.tidegate/tidegate.db",
        description="Customer index and manifest of the event log, as an SQLAlchemy URL.",
    )
    events: Path = Field(default=Path(".tidegate/events"), description="Folder of the event log.")
    flush_rows: int = Field(default=50_000, ge=1, description="Rows that the sink writes at the latest.")
    flush_s: float = Field(default=2.0, gt=0, description="Seconds after which the sink writes what it has.")
    compact_files: int = Field(
        default=8, ge=2, description="Small files of a day that are merged into one at the latest."
    )
    file_rows: int = Field(
        default=1_000_000,
        ge=1,
        description="A file of so many rows is left as it is; no merge makes a larger one.",
    )
    retired_s: float = Field(
        default=600.0, ge=0, description="Merged files stay as long for readers that still have them open."
    )
    give_up_s: float = Field(
        default=900.0, gt=0, description="A dependency away for as long ends the worker with an error."
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Prometheus port on loopback; 0: none.")
    metrics_host: str = Field(default="127.0.0.1", description="Address of the metrics port.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important log lines shown."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: for people on a terminal, else JSON."
    )
    # Test seam, documented in docs/operations.md: the process kills itself at a named point.
    crash_point: str = Field(default="", description="For fault tests: where to stop without a word.")
