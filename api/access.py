"""What each route asks for. A route that is not listed is closed."""

from dataclasses import dataclass
from typing import Final

from api.limits import Kind

SCOPES: Final = {
    "customers:read": "Features, scores, profiles and transactions of customers; contact data masked.",
    "customers:contact": "Contact data of customers in clear.",
    "customers:export": "Everything that is kept of a customer.",
    "customers:erase": "Erase a customer.",
    "inference": "Score transactions and customers.",
    "analytics:read": "Figures over all customers.",
    "stream:read": "Scores as they are made.",
    "models:read": "Which models are in use.",
    "models:reload": "Load models again.",
    "operations:read": "Health in detail and metrics.",
}


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks for.

    Attributes:
        scope: Needed in the token; `None`: open to everybody.
        kind: Which quota its requests count against; `None`: not counted.
    """

    scope: str | None
    kind: Kind | None


_OPEN: Final = Access(None, None)
_LOOKUP: Final = Access("customers:read", "read")
_SCORE: Final = Access("inference", "score")
_SCORE_MANY: Final = Access("inference", "bulk")
_FIGURES: Final = Access("analytics:read", "bulk")
_OPERATIONS: Final = Access("operations:read", None)

ACCESS: Final[dict[tuple[str, str], Access]] = {
    ("GET", "/"): _OPEN,
    ("GET", "/live"): _OPEN,
    ("GET", "/ready"): _OPEN,
    ("GET", "/health"): _OPERATIONS,
    ("GET", "/health/detailed"): _OPERATIONS,
    ("GET", "/metrics"): _OPERATIONS,
    # Its own route counts, by client and address: there is no token yet.
    ("POST", "/auth/token"): _OPEN,
    ("GET", "/.well-known/jwks.json"): _OPEN,
    ("GET", "/customers"): Access("customers:read", "bulk"),
    ("GET", "/customers/{customer_id}"): _LOOKUP,
    ("GET", "/customers/{customer_id}/features"): _LOOKUP,
    ("GET", "/customers/{customer_id}/scores"): _LOOKUP,
    ("GET", "/customers/{customer_id}/transactions"): _LOOKUP,
    ("GET", "/customers/{customer_id}/profile"): _LOOKUP,
    ("GET", "/customers/{customer_id}/export"): Access("customers:export", "change"),
    ("DELETE", "/customers/{customer_id}"): Access("customers:erase", "change"),
    ("POST", "/inference/fraud-detection"): _SCORE,
    ("POST", "/inference/churn-score"): _SCORE,
    ("POST", "/inference/segment"): _SCORE,
    ("GET", "/inference/explain"): _SCORE,
    ("POST", "/inference/churn-batch"): _SCORE_MANY,
    ("POST", "/inference/batch-process"): _SCORE_MANY,
    ("GET", "/analytics/customers"): _FIGURES,
    ("GET", "/analytics/transactions"): _FIGURES,
    ("GET", "/models/status"): Access("models:read", "read"),
    ("POST", "/models/reload"): Access("models:reload", "change"),
    ("GET", "/stream/scores"): Access("stream:read", "bulk"),
    ("WEBSOCKET", "/stream/scores"): Access("stream:read", "bulk"),
}
