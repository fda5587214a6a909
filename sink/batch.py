"""What the sink has read and not yet written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from schemas.customer import Profile
from schemas.fields import to_epoch_ms
from schemas.score import ChurnScore
from schemas.transaction import Transaction
from sink.join import Joined


class EventRow(Protocol):
    """Makes a row of the event log."""

    def __call__(
        self, transaction: Transaction, score: dict[str, Any], partition: int, offset: int
    ) -> dict[str, Any]:
        """The row of a transaction and its score."""


@dataclass(slots=True)
class Batch:
    """Rows for the event log, and what they and other messages change in the customer index.

    Attributes:
        rows: For the event log.
        activity: By customer, counts to add and the newest score.
        churn: By customer, the newest churn score.
        profiles: By customer, the newest profile; empty words where it was removed.
        unreadable: Messages that are not what their topic holds.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    activity: dict[str, dict[str, Any]] = field(default_factory=dict)
    churn: dict[str, dict[str, Any]] = field(default_factory=dict)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: int = 0

    def add(self, joined: Joined, partition: int, event_row: EventRow) -> None:
        """Take in a transaction and its score."""
        transaction = Transaction.model_validate_json(joined.transaction)
        score, decision = joined.score["score"], joined.score["decision"]
        self.rows.append(event_row(transaction, joined.score, partition, joined.offset))
        time_ms = transaction.event_time_ms
        mine = self.activity.setdefault(
            transaction.customer_id,
            {
                "first_event_ms": time_ms,
                "last_event_ms": 0,
                "transactions": 0,
                "flagged": 0,
                "blocked": 0,
            },
        )
        mine["transactions"] += 1
        mine["flagged"] += decision != "allow"
        mine["blocked"] += decision == "block"
        mine["first_event_ms"] = min(mine["first_event_ms"], time_ms)
        if time_ms >= mine["last_event_ms"]:
            mine |= {"last_event_ms": time_ms, "last_score": score, "last_decision": decision}

    def add_churn(self, value: bytes | None) -> None:
        """Take in a churn score: the latest moment counts."""
        try:
            score = ChurnScore.model_validate_json(value or b"")
        except ValidationError:
            self.unreadable += 1
            return
        as_of_ms = to_epoch_ms(score.as_of)
        known = self.churn.get(score.customer_id)
        if known is None or as_of_ms >= known["churn_as_of_ms"]:
            self.churn[score.customer_id] = {
                "churn_probability": score.churn_probability,
                "churn_band": score.band,
                "churn_as_of_ms": as_of_ms,
                "value_at_risk": score.value_at_risk,
            }

    def add_profile(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a profile, or its removal. Contact data is not looked at."""
        if not value:
            customer_id = (key or b"").decode(errors="replace")
            profile: Mapping[str, Any] = {}
        else:
            try:
                profile = Profile.model_validate(orjson.loads(value)).model_dump(mode="json")
            except ValueError:
                self.unreadable += 1
                return
            customer_id = profile["customer_id"]
        if 0 < len(customer_id) <= 64:
            self.profiles[customer_id] = {
                name: profile.get(name) or "" for name in ("country", "segment", "opened_on")
            }
