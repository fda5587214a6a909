"""Customers' own data: their profile, everything that is kept of them, and its end."""

import uuid
from contextlib import suppress
from typing import Annotated, Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Depends
from fastapi.requests import HTTPConnection
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.deps import CustomerId, Given, known_state
from api.errors import problems
from api.gate import principal_of, who_asks
from api.idempotency import idempotent
from api.paths import ID, ID_BEFORE
from api.personal import Personal
from api.tokens import Principal
from features.codec import decode
from features.record import RECORD
from models.messages import named_features
from schemas.customer import Profile
from schemas.erasure import Erasure
from schemas.errors import HistoryError, HistoryIncomplete
from schemas.fields import Moment, from_epoch_ms, to_epoch_ms
from schemas.score import ChurnScore, FraudScore

router = APIRouter(
    prefix="/customers",
    tags=["customers"],
    responses=problems(
        unknown_customer="No transaction or profile of this customer was ever accepted.",
        refused="The request is refused: not an id.",
        away="Redis, Kafka or the audit trail does not answer, or what is stored cannot be read.",
    ),
)
MASK: Final = "***"
_IN_CLEAR: Final = "customers:contact"
# What a record's numbers mean is in features/record.py; times are told as moments.
_FIELDS: Final = tuple(name for name in RECORD.names or () if name not in {"time_ms"})


class CustomerProfile(BaseModel):
    """A profile, as the bank's own systems published it."""

    customer_id: str
    profile: dict[str, Any] = Field(description="Without contact data; empty where there is none.")
    contact: dict[str, str] = Field(
        description=f"Contact data; {MASK} for who lacks the scope customers:contact."
    )


class CustomerExport(BaseModel):
    """Everything that is kept of a customer."""

    customer_id: str
    exported_at: Moment
    profile: dict[str, Any]
    contact: dict[str, str]
    totals: dict[str, Any] = Field(description="Counts and sums over the whole life.")
    history: list[dict[str, Any]] = Field(
        description="Recent events as they are kept: ids only as digests, newest last."
    )
    features: dict[str, float | None] = Field(description="As of the export.")
    fraud: list[FraudScore]
    churn: ChurnScore | None


class ErasureAccepted(BaseModel):
    """The customer will be erased."""

    erasure_id: str
    requested_at: Moment


async def _personal(connection: HTTPConnection) -> Personal:
    found: Personal = connection.app.state.personal.get(principal_of(connection).tenant, Personal())
    return found


Own = Annotated[Personal, Depends(_personal)]
Who = Annotated[Principal, Depends(who_asks)]


@router.get(f"/{ID_BEFORE}/profile")
async def profile(customer_id: CustomerId, given: Given, own: Own, who: Who) -> CustomerProfile:
    """The newest profile; contact data masked unless the token may see it."""
    state = await known_state(given, customer_id, scores=False)
    kept, contact = await _profile(state.profile, customer_id, own, in_clear=_IN_CLEAR in who.scopes)
    return CustomerProfile(customer_id=customer_id, profile=kept, contact=contact)


@router.get(f"/{ID_BEFORE}/export")
async def export(customer_id: CustomerId, given: Given, own: Own) -> CustomerExport:
    """Everything that is kept of a customer, contact data in clear."""
    state = await known_state(given, customer_id)
    history = decode(state.history)
    now = given.now()
    kept, contact = await _profile(state.profile, customer_id, own, in_clear=True)
    if own.open is None and contact:
        # Whoever asks for everything must not take this for it.
        raise HistoryError("contact data is sealed, and this API has no data keys: set TIDEGATE_DATA_KEYS")
    row = given.models.engine.compute(history.records, None, to_epoch_ms(now))
    totals = history.totals
    return CustomerExport(
        customer_id=customer_id,
        exported_at=now,
        profile=kept,
        contact=contact,
        totals={
            "count": totals.count,
            "debit_minor": totals.debit_minor,
            "credit_minor": totals.credit_minor,
        },
        history=[_told(record) for record in history.records],
        features=named_features(row, given.models),
        fraud=[FraudScore.model_validate_json(score) for score in reversed(state.scores)],
        churn=ChurnScore.model_validate_json(state.churn) if state.churn else None,
    )


@router.delete(
    f"/{ID}",
    status_code=202,
    dependencies=[Depends(idempotent)],
    responses=problems(
        conflict="The same key is being worked on.",
        refused="The request is refused: not an id, or the key was used for another request.",
    ),
)
async def erase(customer_id: CustomerId, given: Given, own: Own, who: Who) -> ErasureAccepted:
    """Have the stream erase a customer: history, scores, profile, contact data and their key.

    Done when lookups answer 404, usually within a second. What the customer did before the request is not
    taken again, also when everything is built anew from the log.
    """
    # Whether there is such a customer cannot be said while histories are built: nobody's end harms nobody.
    with suppress(HistoryIncomplete):
        await known_state(given, customer_id, scores=False)
    if own.erase is None:
        raise HTTPException(404, "customers of this tenant cannot be erased here: no broker is set")
    request = Erasure(
        erasure_id=f"e-{uuid.uuid4().hex}",
        customer_id=customer_id,
        requested_at=given.now(),
        requested_by=who.client_id[:64],
    )
    await own.erase(request)
    return ErasureAccepted(erasure_id=request.erasure_id, requested_at=request.requested_at)


async def _profile(
    stored: bytes | None, customer_id: str, own: Personal, *, in_clear: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    if stored is None:
        return {}, {}
    raw = orjson.loads(stored)
    sealed = Profile.model_validate({"customer_id": customer_id, **raw}).contact
    kept = {name: value for name, value in raw.items() if name != "contact"}
    if sealed is None:
        return kept, {}
    if not in_clear or own.open is None:
        # Not even opened: what is not to be seen need not be in memory.
        return kept, dict.fromkeys(sealed.fields, MASK)
    return kept, await own.open(customer_id, sealed)


def _told(record: np.void) -> dict[str, Any]:
    values = {name: record[name].item() for name in _FIELDS}
    time = from_epoch_ms(int(record["time_ms"]))
    return {"time": time, **{n: None if v != v else v for n, v in values.items()}}
