"""Who was erased, and until when nothing of them is kept."""

from collections.abc import Mapping

from schemas.erasure import erased_name, read_erasure
from schemas.errors import EventError


class Erasures:
    """Erasures that were read: those of earlier flushes by digest, those of this one by id.

    Args:
        known: By digest of the customer's id, the time in ms of the request.
    """

    def __init__(self, known: Mapping[str, int] | None = None) -> None:
        self._known = dict(known or {})
        self.pending: dict[str, int] = {}

    def add(self, value: bytes | None, published_ms: int) -> bool:
        """Take in a request; false for what is none to the worker either."""
        try:
            erasure = read_erasure(value, published_ms)
        except EventError:
            return False
        customer_id, until_ms = erasure.customer_id, erasure.requested_at_ms
        name = erased_name(customer_id)
        self._known[name] = max(until_ms, self._known.get(name, 0))
        self.pending[customer_id] = self._known[name]
        return True

    def until_ms(self, customer_id: str) -> int:
        """The time of the newest request; -1 for a customer who was never erased."""
        # Most have erased nobody: no digest then.
        return self._known.get(erased_name(customer_id), -1) if self._known else -1

    def take(self) -> dict[str, int]:
        """Customers to erase with this flush."""
        pending, self.pending = self.pending, {}
        return pending
