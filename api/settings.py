"""The API's settings, from the environment: prefix `TIDEGATE_`."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ApiSettings(BaseSettings):
    """Everything the API can be told. `redis_url`, `namespace` and `models` are the worker's."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="ignore")

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Redis or Valkey.")
    namespace: str = Field(default="tg", description="First part of every Redis key.")
    models: Path = Field(default=Path(".tidegate/models"), description="Folder of the model registry.")
    entities: str = Field(
        default="",
        description="Features over all customers: merchant, device or merchant,device, as in training.",
    )
    http_redis_timeout_s: float = Field(
        default=2.0, gt=0, description="Limit of one Redis call of a request."
    )
    on_redis_away: Literal["hold", "open"] = Field(
        default="hold", description="hold: 503; open: a fraud score without history, flagged degraded."
    )
    on_history_unreadable: Literal["hold", "open"] = Field(
        default="hold", description="The same for a stored history that cannot be read."
    )
    http_host: str = Field(default="127.0.0.1", description="Address to listen on. There is no login yet.")
    http_port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important log lines shown."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: for people on a terminal, else JSON."
    )
