"""What of each request goes into the audit trail, and what holds while the trail cannot be written."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Protocol

import structlog

from api.tokens import Principal
from schemas.errors import DependencyError

_log = structlog.get_logger()
_SYNC_S: Final = 1.0
_ANCHOR_EVERY: Final = 10
_DRAIN_S: Final = 3.0
_MOST_SUBJECTS: Final = 1000
_subjects: ContextVar[list[str] | None] = ContextVar("subjects", default=None)

ACTIONS: Final = {
    "customers:export": "export",
    "customers:erase": "erase",
    "models:reload": "reload",
    "inference": "score",
}
"""Of scopes; the others read."""


class Trail(Protocol):
    """An append-only trail; see `infra.audit_log.AuditLog`."""

    def subject(self, tenant: str, customer_id: str) -> str:
        """A customer's pseudonym."""
        ...

    def append(self, record: Mapping[str, Any]) -> bytes:
        """Add a record and return it as it was written; raises `DependencyError`."""
        ...

    def sync(self) -> None:
        """Have it on the disk; raises `DependencyError`."""
        ...

    def anchor(self) -> None:
        """Note its end elsewhere."""
        ...

    def close(self) -> None:
        """Anchor the end and let go."""
        ...


class Copies(Protocol):
    """Copies of records elsewhere; see `infra.audit_topic.AuditTopic`. Nothing waits for them."""

    def offer(self, actor: str, record: bytes) -> None:
        """Have a record copied soon."""
        ...

    async def run(self) -> None:
        """Copy until cancelled."""
        ...

    async def drain(self, seconds: float) -> None:
        """Copy what waits, for a time."""
        ...


def about(customer_id: str) -> None:
    """Note that the request under way is about a customer."""
    subjects = _subjects.get()
    if subjects is not None and len(subjects) < _MOST_SUBJECTS:
        subjects.append(customer_id)


class Auditor:
    """Writes requests into a trail.

    What changes something or hands out everything is written, to the disk, before it is done, and refused
    where that fails. Reads are written when they were answered; where that fails they are counted.

    Args:
        trail: Where to.
        note: Told `written` or `failed`.
        copies: Where copies go, if anywhere.
    """

    def __init__(self, trail: Trail, note: Callable[[str], None], copies: Copies | None = None) -> None:
        self._trail, self._note, self._copies = trail, note, copies

    def begin(self) -> list[str]:
        """Collect the customers that the request under way is about."""
        subjects: list[str] = []
        _subjects.set(subjects)
        return subjects

    async def before(self, who: Principal, scope: str, route: str, subjects: Sequence[str]) -> None:
        """Write what is about to be done.

        Raises:
            DependencyError: It cannot be written, so it must not be done.
        """
        self._write(who, scope, route, subjects, {"event": "asked"})
        try:
            await asyncio.to_thread(self._trail.sync)
        except DependencyError:
            self._note("failed")
            raise

    def after(
        self, who: Principal, scope: str, route: str, subjects: Sequence[str], status: int, request_id: str
    ) -> None:
        """Write what was answered."""
        said: dict[str, Any] = {"event": "answered", "status": status}
        if request_id:
            said["request_id"] = request_id
        with contextlib.suppress(DependencyError):
            self._write(who, scope, route, subjects, said)

    def token(self, client_id: str, address: str, outcome: str) -> None:
        """Write that a token was given out or refused to a client that exists."""
        record = {"event": "token", "actor": client_id, "address": address, "outcome": outcome}
        with contextlib.suppress(DependencyError):
            self._append(record)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Bring the trail to the disk every second and anchor it every ten."""
        tasks = [asyncio.create_task(self._run())]
        if self._copies is not None:
            tasks.append(asyncio.create_task(self._copies.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._copies is not None:
                await self._copies.drain(_DRAIN_S)
            self._trail.close()

    async def _run(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(_SYNC_S)
            turn += 1
            try:
                await asyncio.to_thread(self._trail.sync)
                if turn % _ANCHOR_EVERY == 0:
                    await asyncio.to_thread(self._trail.anchor)
            except Exception as error:
                # Whatever it is: without the next turn nothing would be brought to the disk any more.
                self._note("failed")
                _log.error("the audit trail is not on the disk", error=str(error))

    def _write(
        self, who: Principal, scope: str, route: str, subjects: Sequence[str], said: Mapping[str, Any]
    ) -> None:
        record = {
            "actor": who.client_id,
            "tenant": who.tenant,
            "action": ACTIONS.get(scope, "read"),
            "route": route,
            "subjects": [self._trail.subject(who.tenant, s) for s in dict.fromkeys(subjects)],
            **said,
        }
        self._append(record)

    def _append(self, record: Mapping[str, Any]) -> None:
        try:
            written = self._trail.append(record)
        except DependencyError as error:
            self._note("failed")
            _log.error("an audit record is lost", error=str(error))
            raise
        self._note("written")
        if self._copies is not None:
            self._copies.offer(str(record["actor"]), written)
