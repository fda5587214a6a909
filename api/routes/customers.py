"""Lookups of one customer, from the state that the stream keeps."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, Field

from api.deps import CustomerId, Given, known_state
from api.errors import problems
from features.codec import decode
from models.messages import named_features
from schemas.fields import Moment, to_epoch_ms
from schemas.score import ChurnScore, FraudScore

# The rest of a path: an id may have a slash in it.
router = APIRouter(
    prefix="/customers",
    tags=["customers"],
    responses=problems(
        unknown_customer="No transaction or profile of this customer was ever accepted.",
        refused="The request is refused: not an id, not a moment with an offset.",
        away="Redis does not answer, or what it has stored cannot be read.",
    ),
)


def _epoch_ms(text: str) -> int | str:
    """A number where the text is one: in a query everything is text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


QueryMoment = Annotated[Moment, BeforeValidator(_epoch_ms)]


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


@router.get("/{customer_id:path}/features")
async def features(
    customer_id: CustomerId,
    given: Given,
    as_of: Annotated[
        QueryMoment | None,
        Query(description="RFC 3339 with an offset (in a URL, + is %2B) or epoch ms; now if left out."),
    ] = None,
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


@router.get("/{customer_id:path}/scores", response_model_exclude_unset=True)
async def scores(customer_id: CustomerId, given: Given) -> CustomerScores:
    """The newest fraud scores and the newest churn score, as they were published."""
    state = await known_state(given, customer_id)
    fraud: list[Any] = [orjson.loads(score) for score in reversed(state.scores)]
    churn: Any = orjson.loads(state.churn) if state.churn else None
    return CustomerScores(customer_id=customer_id, fraud=fraud, churn=churn)
