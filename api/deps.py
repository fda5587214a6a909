"""What routes are given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, NamedTuple

from fastapi import Depends
from fastapi.requests import HTTPConnection
from pydantic import AfterValidator

from api.audit import about
from api.errors import UnknownCustomer
from api.failure_policy import FailurePolicy
from api.gate import PRINCIPAL
from api.ports import CustomerIndex, EventLog, LiveFeed, ReplyStore
from api.tokens import Principal
from features.codec import History, decode
from features.entity_counts import Entities
from features.ports import CustomerState, HistoryStore
from features.record import Records
from models.model_set import Models
from models.segments import SegmentModel
from schemas.card_number import is_card_number
from schemas.errors import DependencyError, ModelError
from schemas.fields import Identifier


class Loaded(NamedTuple):
    """What the registry names, as far as it can be used.

    Attributes:
        refused: Why the segments are the ones from before, or none; `None` where they are not.
    """

    models: Models
    segments: SegmentModel | None
    refused: ModelError | None = None


@dataclass(slots=True)
class Services:
    """Everything a route needs, made once.

    Attributes:
        models: In use; replaced as a whole when they are loaded again, so a request takes them once.
        usable: Raises `DependencyError` or `HistoryError` unless the store can be answered from.
        now: Aware UTC time.
        index, events: What the sink keeps; `None` where this tenant has none.
        segments: In use; `None` where none were trained.
        reload: Loads the models in use again.
        feed: Live scores; `None` where this tenant has none.
        replies: Answers to writes, by idempotency key.
        loaded_at: When the models were loaded.
    """

    store: HistoryStore
    models: Models
    usable: Callable[[], Awaitable[None]]
    now: Callable[[], datetime]
    policy: FailurePolicy = field(default_factory=FailurePolicy)
    index: CustomerIndex | None = None
    events: EventLog | None = None
    segments: SegmentModel | None = None
    reload: Callable[[], Loaded] | None = None
    feed: LiveFeed | None = None
    replies: ReplyStore | None = None
    loaded_at: datetime | None = None

    def require_index(self) -> CustomerIndex:
        """The customer index.

        Raises:
            DependencyError: There is none.
        """
        if self.index is None:
            raise DependencyError("this tenant has no customer index: set TIDEGATE_DATABASE_URL")
        return self.index

    def require_events(self) -> EventLog:
        """The event log.

        Raises:
            DependencyError: There is none.
        """
        if self.events is None:
            raise DependencyError("this tenant has no event log: set TIDEGATE_EVENTS")
        return self.events

    def require_segments(self) -> SegmentModel:
        """The segments in use.

        Raises:
            ModelError: None were trained.
        """
        if self.segments is None:
            raise ModelError(
                "there are no segments yet: run 'tidegate train segments' and load the models again"
            )
        return self.segments


async def services(connection: HTTPConnection) -> Services:
    """The services of the tenant that asks: no other's customers can be found through them.

    Health and metrics are asked for by nobody in particular; they see the first tenant's. Not a plain
    function: FastAPI would run it in another thread, which costs more than all else that a lookup does.
    """
    tenants: Mapping[str, Services] = connection.app.state.tenants
    principal: Principal | None = connection.scope.get(PRINCIPAL)
    if principal is not None and principal.tenant in tenants:
        return tenants[principal.tenant]
    return next(iter(tenants.values()))


Given = Annotated[Services, Depends(services)]


def _no_card_number(value: str) -> str:
    if is_card_number(value):
        raise ValueError("this is a raw card number; send the customer's id")
    return value


CustomerId = Annotated[Identifier, AfterValidator(_no_card_number)]


async def known_state(given: Services, customer_id: str, *, scores: bool = True) -> CustomerState:
    """State of a customer.

    Args:
        given: Services of the tenant.
        customer_id: The customer.
        scores: Whether their newest scores are wanted as well, which costs more.

    Raises:
        UnknownCustomer: There is none.
    """
    about(customer_id)
    state = await given.store.read(customer_id, scores=scores)
    if state is None:
        raise UnknownCustomer("no transaction or profile of this customer was ever accepted")
    return state


async def history_of(given: Services, customer_id: str) -> History:
    """History of a customer; empty for one never seen."""
    about(customer_id)
    state = await given.store.read(customer_id, scores=False)
    return decode(state.history if state else None)


async def entities_of(given: Services, record: Records) -> Entities:
    """The entities of an event (merchant, device, counterparty), with what the stream has counted there."""
    entities = Entities(given.models.engine.entities)
    keys = entities.keys(record)
    entities.put_stored(keys, await given.store.entities(keys))
    return entities
