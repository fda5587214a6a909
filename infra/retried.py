"""Trying a call again until it succeeds, for processes that wait for their dependencies."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from schemas.errors import DependencyError

T = TypeVar("T")
_log = structlog.get_logger()


class Stopped(Exception):
    """The process was told to stop while it waited for something."""


async def retried(
    dependency: str,
    call: Callable[[], Awaitable[T]],
    stop: asyncio.Event,
    on_retry: Callable[[str], None],
    *,
    first_s: float,
    most_s: float,
    give_up_s: float,
    final: type[DependencyError] | tuple[()] = (),
) -> T:
    """Call until it succeeds.

    Args:
        dependency: Its name, for log and metric.
        call: What is tried.
        stop: Ends the waiting.
        on_retry: Told the name for each failed try.
        first_s: First pause; pauses double and are spread at random.
        most_s: Longest pause.
        give_up_s: How long it is tried.
        final: An error that trying again does not help.

    Raises:
        Stopped: `stop` was set during a pause.
        DependencyError: The dependency stayed away for `give_up_s`.
    """

    def failed(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        # A call that needs two of them says which it was.
        name = getattr(error, "dependency", dependency)
        on_retry(name)
        _log.warning("waiting", dependency=name, error=str(error))

    async def pause(seconds: float) -> None:
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    tries = AsyncRetrying(
        retry=retry_if_exception(lambda e: isinstance(e, DependencyError) and not isinstance(e, final)),
        wait=wait_random_exponential(multiplier=first_s, max=most_s),
        stop=stop_after_delay(give_up_s),
        before_sleep=failed,
        sleep=pause,
        reraise=True,
    )

    async def attempt() -> T:
        return await call()

    # Not `call` itself: of a lambda Tenacity does not see that it has to be awaited.
    return await tries(attempt)
