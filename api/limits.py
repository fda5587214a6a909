"""How many requests a client may make, and what holds while Redis does not count them."""

import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from schemas.errors import DependencyError

Kind = Literal["auth", "read", "score", "bulk", "change"]
"""Of a route: `auth` gives out tokens, `change` exports, erases or reloads."""

REFUSED_WHILE_AWAY: Final[frozenset[Kind]] = frozenset({"auth", "change"})
"""Kinds that fail closed; the others are counted by each process for itself."""

_TEXT: Final = re.compile(r"([1-9]\d{0,6})/([1-9]\d{0,4})s")
_MOST_CELLS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in so many seconds; as many may come at once.

    >>> Quota.of("600/60s").policy("read")
    '"read";q=600;w=60'
    """

    requests: int
    period_s: int

    @classmethod
    def of(cls, text: str) -> "Quota":
        """From `REQUESTS/SECONDSs`.

        Raises:
            ValueError: It is not.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError("a rate is written REQUESTS/SECONDSs, for example 600/60s")
        return cls(int(found[1]), int(found[2]))

    def policy(self, name: str) -> str:
        """For the `RateLimit-Policy` header."""
        return f'"{name}";q={self.requests};w={self.period_s}'


class Verdict(Protocol):
    """What became of one request; see `infra.rate_limits.Taken`."""

    @property
    def allowed(self) -> bool:
        """Whether it may go on."""
        ...

    @property
    def remaining(self) -> int:
        """How many more may at once."""
        ...

    @property
    def retry_s(self) -> float:
        """Seconds until one more may."""
        ...

    @property
    def reset_s(self) -> float:
        """Seconds until the allowance is whole."""
        ...


class Limiter(Protocol):
    """Counts requests."""

    async def take(self, key: str, requests: int, period_s: float) -> Verdict:
        """Count one request.

        Raises:
            DependencyError: It cannot now.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Local:
    allowed: bool
    remaining: int
    retry_s: float
    reset_s: float


class LocalLimiter:
    """Counts in this process: GCRA, as `infra/rate_limit.lua` does it for all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cells: OrderedDict[str, float] = OrderedDict()

    async def take(self, key: str, requests: int, period_s: float) -> Verdict:
        """Count one request."""
        now, interval = self._clock(), period_s / requests
        full = max(self._cells.get(key, now), now)
        after = full + interval
        allowed_at = after - requests * interval
        # A thousandth of an interval: sums of floats must not refuse what comes exactly in time.
        if now < allowed_at - interval / 1000:
            return _Local(False, 0, allowed_at - now, full - now)
        self._cells[key] = after
        self._cells.move_to_end(key)
        if len(self._cells) > _MOST_CELLS:
            self._cells.popitem(last=False)
        return _Local(True, max(0, math.floor((now - allowed_at) / interval + 0.001)), 0.0, after - now)


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a request may go on, with the headers that say so."""

    allowed: bool
    headers: tuple[tuple[bytes, bytes], ...]
    retry_s: int


class Limits:
    """Quotas by kind of route.

    Args:
        quotas: For every kind.
        shared: Counts for all processes.
        local: Counts for this one, where `shared` cannot.
        note: Told `limited`, `local` (counted here) or `refused` (not counted, so refused).
    """

    def __init__(
        self, quotas: dict[Kind, Quota], shared: Limiter, local: Limiter, note: Callable[[str], None]
    ) -> None:
        self._quotas, self._shared, self._local, self._note = quotas, shared, local, note

    async def take(self, kind: Kind, who: str, route: str) -> Answer:
        """Count one request of somebody on a route.

        Raises:
            DependencyError: It cannot be counted, and this kind is not allowed uncounted.
        """
        quota = self._quotas[kind]
        key = f"{kind}:{who}:{route}"
        try:
            verdict = await self._shared.take(key, quota.requests, quota.period_s)
        except DependencyError:
            if kind in REFUSED_WHILE_AWAY:
                self._note("refused")
                raise
            self._note("local")
            verdict = await self._local.take(key, quota.requests, quota.period_s)
        if not verdict.allowed:
            self._note("limited")
        # Until a refused client may come again; until the whole quota is there otherwise.
        seconds = math.ceil(verdict.reset_s if verdict.allowed else verdict.retry_s)
        headers = (
            (b"ratelimit-policy", quota.policy(kind).encode()),
            (b"ratelimit", f'"{kind}";r={verdict.remaining};t={seconds}'.encode()),
        )
        return Answer(verdict.allowed, headers, max(1, seconds))
