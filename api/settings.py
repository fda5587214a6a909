"""The API's settings, from the environment: prefix `TIDEGATE_`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.limits import Kind, Quota
from schemas.fields import Namespace


def _rate(text: str) -> str:
    Quota.of(text)
    return text


Rate = Annotated[str, AfterValidator(_rate)]


class ApiSettings(BaseSettings):
    """Everything the API can be told. `redis_url`, `namespace` and `models` are the worker's."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", extra="ignore")

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="Redis or Valkey.")
    namespace: Namespace = Field(default="tg", description="First part of every Redis key.")
    models: Path = Field(default=Path(".tidegate/models"), description="Folder of the model registry.")
    features: Path | None = Field(
        default=None, description="YAML file of your own features (docs/declarations.md), as in training."
    )
    mlflow_uri: str = Field(
        default="", description="MLflow with the models, in the place of TIDEGATE_MODELS; empty for none."
    )
    models_watch_s: float = Field(
        default=5.0, gt=0, description="How often the registry is asked which models are to be in use."
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
    http_redis_timeout_s: float = Field(
        default=2.0, gt=0, description="Limit of one Redis call of a request."
    )
    on_redis_away: Literal["hold", "open"] = Field(
        default="open", description="hold: 503; open: a fraud score without history, flagged degraded."
    )
    on_history_unreadable: Literal["hold", "open"] = Field(
        default="hold", description="The same for a stored history that cannot be read."
    )
    http_timeout_s: float = Field(
        default=10.0, gt=0, description="Limit of a request until its answer begins."
    )
    database_url: str = Field(
        default="sqlite:///.tidegate/tidegate.db",
        description="Customer index and manifest of the event log, as an SQLAlchemy URL.",
    )
    events: Path = Field(default=Path(".tidegate/events"), description="Folder of the event log.")
    live_clients_wait: int = Field(
        default=2000, ge=10, description="Scores that wait for one live client before it is dropped."
    )
    live_kept: int = Field(
        default=20_000, ge=0, description="Newest scores in memory for live clients that come back."
    )
    http_host: str = Field(default="127.0.0.1", description="Address to listen on.")
    http_port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    tracing: bool = Field(
        default=False, description="Send spans by OpenTelemetry (extra `trace`; OTEL_* says where)."
    )
    http_docs: bool = Field(default=True, description="Serve /docs, /redoc and /openapi.json.")
    api_mode: Literal["development", "production"] = Field(
        default="development", description="production: refuse to start with development defaults."
    )
    auth: Literal["off", "own", "issuer"] = Field(
        default="off", description="own: /auth/token gives out tokens; issuer: another server does."
    )
    auth_issuer: str = Field(default="tidegate", description="Exactly the iss of access tokens.")
    auth_audience: str = Field(default="tidegate", description="The aud of access tokens for this API.")
    auth_jwks_url: str = Field(default="", description="Key set of the other issuer.")
    auth_tenant_claim: str = Field(
        default="tenant", description="Claim that names the tenant; empty: every token is of `default`."
    )
    auth_token_ttl_s: int = Field(default=600, ge=60, le=3600, description="Life of a token of /auth/token.")
    auth_keys_refresh_s: float = Field(
        default=300.0, gt=0, description="Age at which the other issuer's keys are fetched again."
    )
    auth_keys_interval_s: float = Field(
        default=10.0, gt=0, description="Least time between two fetches, whatever tokens name."
    )
    auth_keys_stale_s: float = Field(
        default=3600.0, gt=0, description="How long keys are used while the other issuer is away."
    )
    security_dir: Path = Field(default=Path(".tidegate/security"), description="Folder of keys and clients.")
    tenants: dict[Annotated[str, Field(min_length=1)], Namespace] = Field(
        default_factory=dict,
        description='JSON, tenant to namespace of its histories; empty: {"default": TIDEGATE_NAMESPACE}.',
    )
    rate_limits: Literal["auto", "on", "off"] = Field(default="auto", description="auto: on with auth.")
    rate_limits_redis_url: str = Field(
        default="", description="Redis that counts requests; empty: TIDEGATE_REDIS_URL."
    )
    rate_limits_timeout_s: float = Field(
        default=0.25, gt=0, description="Limit of one count; requests wait for it."
    )
    rate_auth: Rate = Field(default="30/60s", description="Tokens, per client and address.")
    rate_read: Rate = Field(default="2000/1s", description="Lookups, per client and route.")
    rate_score: Rate = Field(default="1000/1s", description="Synchronous scores, per client and route.")
    rate_bulk: Rate = Field(default="60/60s", description="Lists, batches, figures, per client and route.")
    rate_change: Rate = Field(
        default="60/60s", description="Exports, erasures, reloads, per client and route."
    )
    bootstrap: str = Field(
        default="127.0.0.1:9092",
        description="Kafka brokers, HOST:PORT[,HOST:PORT]; empty: no live scores and no erasures.",
    )
    tenant_bootstrap: dict[str, str] = Field(
        default_factory=dict,
        description="JSON, tenant to Kafka brokers for erasures; empty: TIDEGATE_BOOTSTRAP, for one tenant.",
    )
    data_keys: SecretStr = Field(
        default=SecretStr(""), description="NAME:BASE64,...; empty: data-keys.json in TIDEGATE_SECURITY_DIR."
    )
    audit: Literal["auto", "on", "off"] = Field(
        default="auto", description="Audit trail; auto: on with auth."
    )
    audit_dir: Path = Field(default=Path(".tidegate/audit"), description="Folder of the audit trail.")
    audit_anchor: Path | None = Field(
        default=None, description="File for its anchors, on another disk or machine."
    )
    audit_topic: bool = Field(
        default=True, description="Publish copies of audit records on the topic `audit` as well."
    )
    audit_keys: SecretStr = Field(
        default=SecretStr(""), description="NAME:BASE64,...; empty: audit-keys.json in TIDEGATE_SECURITY_DIR."
    )
    cors_origins: list[str] = Field(
        default_factory=list, description="JSON list of web origins that may read answers; empty: none."
    )
    tls_cert: Path | None = Field(default=None, description="Certificate chain to answer HTTPS with, PEM.")
    tls_key: Path | None = Field(default=None, description="Its private key, PEM.")
    tls_client_ca: Path | None = Field(
        default=None, description="Ask clients for a certificate of this authority, PEM."
    )
    trusted_proxies: str = Field(
        default="", description="Addresses of proxies that end TLS and whose X-Forwarded-* count."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important log lines shown."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: for people on a terminal, else JSON."
    )

    def certificates(self) -> list[tuple[str, Path]]:
        """Certificate files of the API itself by what they are for."""
        named = (("api server", self.tls_cert), ("api client authority", self.tls_client_ca))
        return [(use, path) for use, path in named if path is not None]

    def quotas(self) -> dict[Kind, Quota]:
        """The rates, by kind of route."""
        return {
            "auth": Quota.of(self.rate_auth),
            "read": Quota.of(self.rate_read),
            "score": Quota.of(self.rate_score),
            "bulk": Quota.of(self.rate_bulk),
            "change": Quota.of(self.rate_change),
        }
