"""Lookups of one customer, from the state that the stream keeps."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from api.deps import Given, known_state
from features.codec import decode
from models.messages import named_features
from schemas.fields import Moment, to_epoch_ms
from schemas.score import ChurnScore, FraudScore

router = APIRouter(prefix="/customers", tags=["customers"])
CustomerId = Annotated[str, Path(min_length=1, max_length=64)]


class CustomerFeatures(BaseModel):
    """Features of a customer as of a moment."""

    customer_id: str
    as_of: Moment
    declarations: str = Field(description="Identity of the feature declarations.")
    transactions: int = Field(description="Transactions ever accepted.")
    features: dict[str, float | None] = Field(
        description="Null is unknown. What compares with an event is null."
    )


class CustomerScores(BaseModel):
    """The newest scores of a customer."""

    customer_id: str
    fraud: list[FraudScore] = Field(description="Newest first.")
    churn: ChurnScore | None


@router.get("/{customer_id}/features", responses={404: {"description": "Unknown customer."}})
async def features(
    customer_id: CustomerId,
    given: Given,
    as_of: Annotated[datetime | None, Query(description="A moment with offset; now if left out.")] = None,
) -> CustomerFeatures:
    """Features as of now: windows that have emptied since the last event read as empty."""
    state = await known_state(given, customer_id)
    history = decode(state.history)
    moment = as_of or given.now()
    row = given.models.engine.compute(history.records, None, to_epoch_ms(moment))
    return CustomerFeatures(
        customer_id=customer_id,
        as_of=moment,
        declarations=given.models.engine.hash,
        transactions=history.totals.count,
        features=named_features(row, given.models),
    )


@router.get("/{customer_id}/scores", responses={404: {"description": "Unknown customer."}})
async def scores(customer_id: CustomerId, given: Given) -> CustomerScores:
    """The newest fraud scores and the newest churn score, as they were published."""
    state = await known_state(given, customer_id)
    fraud: list[Any] = [orjson.loads(score) for score in reversed(state.scores)]
    churn: Any = orjson.loads(state.churn) if state.churn else None
    return CustomerScores(customer_id=customer_id, fraud=fraud, churn=churn)
