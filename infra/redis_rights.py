"""Whether Redis lets its user do what a program needs, asked without writing anything."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from redis import exceptions

from schemas.errors import RightsError

PROBE: Final = "-"
"""Last part of the keys that are asked with. What is only read may be there; nothing else is named so."""
_SOON_S: Final = 1.0
Command = tuple[str | int, ...]
Asked = Callable[[], Awaitable[Sequence[str] | None]]


async def refused(client: Any, commands: Mapping[str, Command]) -> list[str] | None:
    """What the user of a client may not do; `None` where Redis does not say.

    Args:
        client: Of redis-py, for asyncio.
        commands: By what a person is told of each. They are sent, so they are such that change nothing.
    """
    pipe = client.pipeline(transaction=False)
    for command in commands.values():
        pipe.execute_command(*command)
    try:
        answers = await pipe.execute(raise_on_error=False)
    except (exceptions.RedisError, TimeoutError, OSError):
        return None
    return [
        what
        for what, answer in zip(commands, answers, strict=True)
        if isinstance(answer, exceptions.NoPermissionError)
    ]


class RedisRights:
    """Remembers what the users of some clients may not do.

    Args:
        asked: Each says what is refused; `None` where its server does not answer, which is not what is
            looked for here.
        every_s: How long an answer is believed; what was refused is asked again after a second.
        clock: Monotonic seconds.
    """

    def __init__(
        self, asked: Sequence[Asked], *, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._asked, self._every_s, self._clock = asked, every_s, clock
        self._missing: list[Sequence[str]] = [()] * len(asked)
        self._due = float("-inf")

    async def require(self) -> None:
        """Raise unless everything is allowed, as far as is known.

        Raises:
            RightsError: With what is not.
        """
        if self._clock() >= self._due:
            # Before the answer: who comes meanwhile goes by what was known.
            self._due = self._clock() + self._every_s
            answers = await asyncio.gather(*(ask() for ask in self._asked))
            self._missing = [
                before if answer is None else answer
                for before, answer in zip(self._missing, answers, strict=True)
            ]
        missing = list(dict.fromkeys(right for part in self._missing for right in part))
        if missing:
            self._due = min(self._due, self._clock() + _SOON_S)
            raise RightsError(f"the Redis user may not: {', '.join(missing)}")
