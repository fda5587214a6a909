"""Synchronous scores: the stream's own code on the stream's own state, and nothing is kept."""

from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.deps import CustomerId, Given, Services, entities_of, history_of, known_state
from api.errors import problems
from api.shapes import json_answer
from features.arena import HistoryArena
from features.codec import History, decode
from features.lifetime import customer_vector
from features.record import before_event, to_records
from features.tiles import Entities
from models import messages
from models.churn_scores import churn_results
from models.model_set import Models
from models.pipeline import Events, score_fraud
from schemas.fields import Moment, to_epoch_ms, to_rfc3339
from schemas.parse import check_not_future, parse_message
from schemas.score import ChurnScore, FraudScore
from schemas.transaction import Transaction

router = APIRouter(
    prefix="/inference",
    tags=["inference"],
    responses=problems(
        too_long="The body is longer than any request is.",
        refused="The request is refused; a transaction for the reasons the stream would refuse it.",
        away="Redis does not answer, or what it has stored cannot be read.",
    ),
)


class ChurnRequest(BaseModel):
    """Whose churn probability is asked for."""

    customer_id: CustomerId
    as_of: Moment | None = Field(default=None, description="A moment; now if left out.")


EXAMPLE_TRANSACTION: Final = {
    "transaction_id": "t-1001",
    "customer_id": "c0000042",
    "event_time": "2026-03-01T09:30:00Z",
    "amount": "249.90",
    "currency": "EUR",
    "transaction_type": "purchase",
    "channel": "ecommerce",
    "merchant_id": "m000007",
    "merchant_category": "5732",
    "merchant_country": "FR",
    "device_id": "d-17",
}
"""A transaction that is accepted."""

_TRANSACTION_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": Transaction.model_json_schema(),
                "example": EXAMPLE_TRANSACTION,
            }
        },
    }
}


@router.post(
    "/fraud-detection",
    openapi_extra=_TRANSACTION_BODY,
    response_model=FraudScore,
)
async def fraud_detection(request: Request, given: Given) -> Response:
    """Score one transaction against the customer's history; a customer never seen is a cold start.

    While Redis is away the transaction is scored without a history and never allowed, with the flag
    `degraded`, unless `TIDEGATE_ON_REDIS_AWAY` is `hold`.
    """
    return json_answer(await fraud_score_of(given, await request.body()))


async def fraud_score_of(given: Services, body: bytes) -> dict[str, Any]:
    """`FraudScore` of a transaction as it is sent."""
    # The body goes through the stream's own validation, so both refuse the same with the same words.
    transaction = parse_message(Transaction, body)
    amount_minor = transaction.amount_minor
    check_not_future(transaction.event_time_ms, to_epoch_ms(given.now()))
    events = Events([transaction], to_records([transaction], [amount_minor]))
    entities: Entities | None = None

    async def read() -> History:
        nonlocal entities
        history = await history_of(given, transaction.customer_id)
        entities = await entities_of(given, events.records)
        return history

    history, degraded = await given.policy.history(read)
    scored_at = to_rfc3339(given.now())
    score = score_one(history, events, given.models, scored_at, entities)
    if not degraded:
        return score
    # Better a score of the transaction alone, which says that it is one, than none before a payment. It
    # knows too little to allow anything.
    decision = "review" if score["decision"] == "allow" else score["decision"]
    return score | {"flags": [*score["flags"], "degraded"], "decision": decision}


def score_one(
    history: History, events: Events, models: Models, scored_at: str, entities: Entities | None = None
) -> dict[str, Any]:
    """The fraud score of one transaction, by the chunk code of the stream."""
    (transaction,) = events.transactions
    arena = HistoryArena()
    arena.put(transaction.customer_id, History(history.totals, before_event(history.records, events.records)))
    scored = score_fraud(arena, events, models, entities)
    return messages.fraud_score(events, scored, 0, models, scored_at=scored_at, source=None)


@router.post(
    "/churn-score",
    response_model=ChurnScore,
    responses=problems(unknown_customer="No transaction or profile of this customer was ever accepted."),
)
async def churn_score(asked: ChurnRequest, given: Given) -> Response:
    """Churn probability of a customer as of a moment."""
    state = await known_state(given, asked.customer_id, scores=False)
    history = decode(state.history)
    as_of_ms = to_epoch_ms(asked.as_of or given.now())
    X = customer_vector(given.models.engine, history.records, history.totals, as_of_ms)[np.newaxis]
    band = history.totals.churn_band
    (result,) = churn_results(X, [(asked.customer_id, 0, as_of_ms)], [band], given.models)
    scored_at = to_rfc3339(given.now())
    return json_answer(messages.churn_score(result, given.models, scored_at=scored_at, trigger="request"))


SCORES: Final = {"/inference/fraud-detection": fraud_score_of}
"""What is asked for most, by the routes' formats: each from services and a body."""
