"""Trying again: a dependency that is away is waited for, with growing pauses, and said so."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from schemas.errors import DependencyError

T = TypeVar("T")
_log = structlog.get_logger()


class Interrupted(Exception):
    """The worker stops, or the partition is taken over, while a dependency is waited for."""


class Signal(Protocol):
    """What ends a wait: an `asyncio.Event` or `AnyOf` several."""

    async def wait(self) -> object:
        """Return when it was set."""
        ...


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Set when one of several events is."""

    events: Sequence[asyncio.Event]

    async def wait(self) -> None:
        """Return when one was set."""
        waits = [asyncio.ensure_future(event.wait()) for event in self.events]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


@dataclass(slots=True)
class Retry:
    """Waits for a dependency instead of losing what needs it.

    Attributes:
        first_s, most_s: First and longest pause; pauses double and are spread at random.
        give_up_s: After this long the process ends with an error: whoever restarts it is told.
        on_retry: Called with the dependency's name for each failed try.
    """

    first_s: float
    most_s: float
    give_up_s: float
    on_retry: Callable[[str], None] = field(default=lambda dependency: None)

    async def until_done(self, dependency: str, call: Callable[[], Awaitable[T]], interrupted: Signal) -> T:
        """Call until it succeeds.

        Raises:
            Interrupted: The event was set during a pause.
            DependencyError: The dependency stayed away for `give_up_s`.
        """
        # The machinery of tries costs as much as a fast call: it is made when one has failed.
        try:
            return await call()
        except DependencyError as error:
            failures = [error]

        def failed(state: RetryCallState) -> None:
            self.on_retry(dependency)
            error = state.outcome.exception() if state.outcome else None
            again = round(state.next_action.sleep, 1) if state.next_action else 0
            _log.warning("waiting", dependency=dependency, error=str(error), again_in_s=again)

        async def pause(seconds: float) -> None:
            try:
                await asyncio.wait_for(interrupted.wait(), seconds)
            except TimeoutError:
                return
            raise Interrupted

        tries = AsyncRetrying(
            retry=retry_if_exception_type(DependencyError),
            wait=wait_random_exponential(multiplier=self.first_s, max=self.most_s),
            stop=stop_after_delay(self.give_up_s),
            sleep=pause,
            before_sleep=failed,
            reraise=True,
        )
        async for attempt in tries:
            with attempt:
                if failures:
                    raise failures.pop()
                return await call()
        raise AssertionError("unreachable")
