"""What a synchronous fraud score does when its history cannot be had: hold, or answer without it.

An answer without history is flagged `degraded`: every velocity is zero and everything is new, so it says
little more than what the transaction itself tells. Nothing is stored, and the stream scores the transaction
exactly when it comes.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter

from features.codec import History
from schemas.errors import DependencyError, HistoryError, HistoryIncomplete

Policy = Literal["hold", "open"]
_log = structlog.get_logger()


@dataclass(slots=True)
class FailurePolicy:
    """By cause: `hold` answers 503, `open` scores without history.

    Attributes:
        redis_away: Redis does not answer, or not within its time limit; or histories are being built.
        history_unreadable: What is stored is no history that this program reads.
    """

    redis_away: Policy = "open"
    history_unreadable: Policy = "hold"
    _degraded: Counter | None = field(default=None, init=False)

    def register(self, registry: CollectorRegistry) -> None:
        """Count answers without history in a registry."""
        self._degraded = Counter(
            "tidegate_degraded_total", "Scores given without history.", ["cause"], registry=registry
        )

    async def history(self, read: Callable[[], Awaitable[History]]) -> tuple[History, bool]:
        """A history, and whether it is an empty one in place of what could not be had.

        Raises:
            DependencyError: Redis does not answer, and that is held.
            HistoryError: The history cannot be read, and that is held.
        """
        try:
            return await read(), False
        except HistoryIncomplete as error:
            return self._without("history_incomplete", self.redis_away, error)
        except DependencyError as error:
            return self._without("redis_away", self.redis_away, error)
        except HistoryError as error:
            return self._without("history_unreadable", self.history_unreadable, error)

    def _without(self, cause: str, policy: Policy, error: Exception) -> tuple[History, bool]:
        if policy == "hold":
            raise error
        _log.warning("scored without history", cause=cause, error=str(error))
        if self._degraded is not None:
            self._degraded.labels(cause).inc()
        return History.empty(), True
