"""What routes need for customers' own data besides the store of histories."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from schemas.customer import SealedContact
from schemas.erasure import Erasure


@dataclass(frozen=True, slots=True)
class Personal:
    """Of one tenant; `None` where it is not set up.

    Attributes:
        open: Contact data of a customer in clear; raises `HistoryError`.
        erase: Has a customer erased by the stream; raises `DependencyError`.
    """

    open: Callable[[str, SealedContact], Awaitable[dict[str, str]]] | None = None
    erase: Callable[[Erasure], Awaitable[None]] | None = None
