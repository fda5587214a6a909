"""Topics as data: what `tidegate topics create` applies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from schemas.audit import AuditRecord
from schemas.customer import Customer
from schemas.dead_letter import DeadLetter
from schemas.erasure import Erasure
from schemas.fields import Message
from schemas.label import Label
from schemas.score import Alert, ChurnScore, FraudScore, ShadowScore
from schemas.transaction import Transaction

_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic's definition.

    Attributes:
        name: As on the broker, before any prefix.
        direction: `in` is written by others and read here, `out` the other way.
        meaning: One line for documents.
        copartitioned: Has the number of partitions of `transactions`, with the same keys.
        config: Topic settings of the broker.
    """

    name: str
    message: type[Message]
    direction: str
    meaning: str
    copartitioned: bool = True
    config: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def _kept(days: int) -> Mapping[str, str]:
    return MappingProxyType({"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)})


# The log must outlive the longest window (90 days) and the longest lateness (30 days): state is
# rebuilt from it.
TRANSACTIONS = Topic("transactions", Transaction, "in", "Transaction events.", config=_kept(180))
LABELS = Topic("labels", Label, "in", "Fraud labels and churn outcomes, when known.", config=_kept(365))
CUSTOMERS = Topic(
    "customers", Customer, "in", "Customer profiles.", config=MappingProxyType({"cleanup.policy": "compact"})
)
# Longer than every log it erases from: a replay must know of it.
ERASURES = Topic("erasures", Erasure, "in", "Requests to erase a customer.", config=_kept(400))
FRAUD_SCORES = Topic("scores.fraud", FraudScore, "out", "One score per transaction.", config=_kept(90))
CHURN_SCORES = Topic("scores.churn", ChurnScore, "out", "Recomputed churn probabilities.", config=_kept(90))
SHADOW_SCORES = Topic(
    "scores.shadow", ShadowScore, "out", "What shadow models would have said.", config=_kept(30)
)
ALERTS = Topic("alerts", Alert, "out", "What a person should look at.", config=_kept(90))
DEAD_LETTERS = Topic(
    "transactions.dlq", DeadLetter, "out", "What could not be accepted, with the reason.", config=_kept(90)
)
AUDIT = Topic(
    "audit",
    AuditRecord,
    "out",
    "Who read, changed or erased what; keyed by the program that asked.",
    copartitioned=False,
    config=_kept(400),
)

TOPICS = (
    TRANSACTIONS,
    LABELS,
    CUSTOMERS,
    ERASURES,
    FRAUD_SCORES,
    CHURN_SCORES,
    SHADOW_SCORES,
    ALERTS,
    DEAD_LETTERS,
    AUDIT,
)
