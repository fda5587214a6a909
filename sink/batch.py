"""What the sink has read and not yet written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from schemas.customer import Customer
from schemas.errors import EventError
from schemas.fields import to_epoch_ms
from schemas.parse import parse_message
from schemas.score import ChurnScore
from schemas.transaction import Transaction
from sink.erasures import Erasures
from sink.join import Joined


class EventRow(Protocol):
    """Makes a row of the event log."""

    def __call__(
        self, transaction: Transaction, score: dict[str, Any], partition: int, offset: int
    ) -> dict[str, Any]:
        """The row of a transaction and its score."""


@dataclass(slots=True)
class Batch:
    """Rows for the event log, and what other messages change in the customer index.

    Attributes:
        erasures: What is not to be taken in.
        rows: For the event log.
        churn: By customer, the newest churn score.
        profiles: By customer, the newest profile; empty words where it was removed.
        unreadable: Messages that are not what their topic holds.
        erased: Rows and messages of erased customers, which were left out.
        moved: Scores from before their customer belonged to another partition, which were left out.
    """

    erasures: Erasures = field(default_factory=Erasures)
    rows: list[dict[str, Any]] = field(default_factory=list)
    churn: dict[str, dict[str, Any]] = field(default_factory=dict)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: int = 0
    erased: int = 0
    moved: int = 0

    def add(self, joined: Joined, partition: int, event_row: EventRow) -> None:
        """Take in a transaction and its score."""
        try:
            row = event_row(joined.transaction, joined.score, partition, joined.offset)
        except (EventError, TypeError, ValueError):
            self.unreadable += 1
            return
        if self._is_erased(row):
            self.erased += 1
        else:
            self.rows.append(row)

    def flushed(self) -> dict[str, int]:
        """What was taken is stored; returns how many were left out, by reason."""
        return {"unreadable": self.unreadable, "erased": self.erased, "moved": self.moved}

    @property
    def activity(self) -> dict[str, dict[str, Any]]:
        """By customer, counts to add and the newest score."""
        return activity_of(self.rows)

    def add_churn(self, value: bytes | None) -> None:
        """Take in a churn score: the latest moment counts."""
        try:
            score = ChurnScore.model_validate_json(value or b"")
        except ValidationError:
            self.unreadable += 1
            return
        as_of_ms = to_epoch_ms(score.as_of)
        if as_of_ms <= self.erasures.until_ms(score.customer_id):
            self.erased += 1
            return
        known = self.churn.get(score.customer_id)
        if known is None or as_of_ms >= known["churn_as_of_ms"]:
            self.churn[score.customer_id] = {
                "churn_probability": score.churn_probability,
                "churn_band": score.band,
                "churn_as_of_ms": as_of_ms,
                "value_at_risk": score.value_at_risk,
            }

    def add_profile(self, key: bytes | None, value: bytes | None, published_ms: int) -> None:
        """Take in a profile, or its removal, as the worker does. Contact data is not kept.

        Args:
            key: Of the message: the customer, where there is no value.
            value: `None` takes the profile back.
            published_ms: Counts where the profile does not say when it was updated.
        """
        words = dict.fromkeys(("country", "segment", "opened_on"), "")
        if value is None:
            customer_id, updated_ms = (key or b"").decode(errors="replace"), published_ms
        else:
            try:
                profile = parse_message(Customer, value)
            except EventError:
                self.unreadable += 1
                return
            customer_id = profile.customer_id
            updated_ms = to_epoch_ms(profile.updated_at) if profile.updated_at else published_ms
            words = {name: str(getattr(profile, name) or "") for name in words}
            if updated_ms <= self.erasures.until_ms(customer_id):
                self.erased += 1
                return
        if 0 < len(customer_id) <= 64:
            self.profiles[customer_id] = {**words, "profile_ms": updated_ms}

    def add_erasure(self, value: bytes | None, published_ms: int) -> None:
        """Take in a request to erase a customer, and leave out what waits of them."""
        if not self.erasures.add(value, published_ms):
            self.unreadable += 1
            return
        before = len(self.rows) + len(self.churn) + len(self.profiles)
        self.rows = [row for row in self.rows if not self._is_erased(row)]
        for customer_id, until_ms in self.erasures.pending.items():
            if self.churn.get(customer_id, {}).get("churn_as_of_ms", until_ms + 1) <= until_ms:
                del self.churn[customer_id]
            if self.profiles.get(customer_id, {}).get("profile_ms", until_ms + 1) <= until_ms:
                del self.profiles[customer_id]
        self.erased += before - len(self.rows) - len(self.churn) - len(self.profiles)

    def _is_erased(self, row: Mapping[str, Any]) -> bool:
        until_ms = self.erasures.until_ms(row["customer_id"])
        # An event that claims a later time was there all the same when it had a score before the request.
        return until_ms >= min(int(row["event_time"]), to_epoch_ms(row["scored_at"]))


def activity_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By customer, how many transactions there are and which is the newest: a row of the customer index."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        time_ms, decision = row["event_time"], row["decision"]
        mine = found.setdefault(
            row["customer_id"],
            {
                "first_event_ms": time_ms,
                "last_event_ms": 0,
                "transactions": 0,
                "flagged": 0,
                "blocked": 0,
            },
        )
        # A correction is a row of its own, of a transaction that was counted.
        mine["transactions"] += "corrected" not in row["flags"]
        mine["flagged"] += decision != "allow"
        mine["blocked"] += decision == "block"
        mine["first_event_ms"] = min(mine["first_event_ms"], time_ms)
        if time_ms >= mine["last_event_ms"]:
            mine |= {"last_event_ms": time_ms, "last_score": row["score"], "last_decision": decision}
    return found
