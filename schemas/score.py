"""What goes out: fraud scores, churn scores and alerts."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.fields import Identifier, Message, Moment, Part, Proba

Decision = Literal["allow", "review", "block"]
Band = Literal["low", "medium", "high"]
Flag = Literal["late", "cold_start", "history_cut", "degraded", "corrected"]
Role = Literal["champion", "challenger", "shadow"]


class ModelRef(Part):
    """Which model made a score."""

    name: str
    version: str
    role: Role = "champion"


class Source(Part):
    """Where the scored message stood: the deterministic identity of its score."""

    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class Reason(Part):
    """One feature's share in a score.

    Contributions are exact tree contributions (SHAP values) to the calibrated log-odds of the score. Of an
    anomaly they are minus the logarithm of the share of transactions that are as far out.
    """

    feature: str
    value: float | None = Field(description="Null where unknown.")
    contribution: float = Field(description="Signed, in log-odds: positive raises the score.")
    text: str = Field(description="In an analyst's words.")


class Anomaly(Part):
    """How unusual a transaction is, by a model that knows no labels."""

    score: Proba = Field(description="Share of the transactions learned from that were less unusual.")
    model: ModelRef


class FraudScore(Message):
    """One for each accepted transaction, in the order of its partition."""

    transaction_id: Identifier
    customer_id: Identifier
    event_time: Moment
    scored_at: Moment
    score: Proba = Field(description="Calibrated probability of fraud.")
    decision: Decision
    reasons: tuple[Reason, ...] = Field(default=(), description="Given for review and block.")
    model: ModelRef
    flags: tuple[Flag, ...] = ()
    anomaly: Anomaly | None = Field(default=None, description="Where an anomaly model is in use.")
    features: dict[str, float | None] | None = Field(default=None, description="Only by setting.")
    source: Source | None = Field(default=None, description="Absent in answers to synchronous requests.")


class ChurnScore(Message):
    """Sent when a customer's churn probability was recomputed; the latest `as_of` counts."""

    customer_id: Identifier
    as_of: Moment
    scored_at: Moment
    churn_probability: Proba
    band: Band
    horizon_days: int
    drivers: tuple[Reason, ...] = Field(
        default=(),
        description="Above the lowest band what raises the probability; in the lowest, where only answers to "
        "requests have any, what lowers it.",
    )
    model: ModelRef
    value_at_risk: Annotated[float, Field(ge=0)] = Field(
        description="Probability times what the customer spends a year, in major units of the newest "
        "transaction's currency: of the whole life, and at the last 90 days' pace the more days confirm it."
    )
    recommended_action: Literal["none", "watch", "contact"]
    trigger: Literal["event", "sweep", "request"] = "event"


class Alert(Message):
    """Something a person should look at."""

    alert_id: str = Field(description="Deterministic: a repeat after a crash has the same id.")
    kind: Literal["fraud", "churn", "anomaly"] = Field(
        description="An anomaly is sent only of a transaction that the fraud model allows."
    )
    customer_id: Identifier
    event_time: Moment
    severity: Literal["review", "block", "medium", "high"]
    score: Proba
    transaction_id: Identifier | None = None
    amount: float | None = None
    currency: str | None = None
    reasons: tuple[Reason, ...] = ()
    model: ModelRef


class ShadowScore(Message):
    """What a model in the role of a shadow would have said. Nobody is to act on it."""

    kind: Literal["fraud", "churn"]
    customer_id: Identifier
    transaction_id: Identifier | None = Field(default=None, description="Of a fraud score.")
    as_of: Moment = Field(description="Event time of the transaction, or the moment churn was asked for.")
    scored_at: Moment
    score: Proba
    decision: Decision | Band = Field(description="By the shadow's own thresholds.")
    model: ModelRef
    source: Source | None = Field(default=None, description="Of a fraud score.")
