"""Synchronous scores: the stream's own code on the stream's own state, and nothing is kept."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.deps import CustomerId, Given, Services, entities_of, history_of, known_state
from api.errors import problems
from api.shapes import HISTORY_CUT, json_answer
from features.arena import HistoryArena
from features.codec import History, decode
from features.definitions import MAX_WINDOW_MS
from features.entity_counts import Entities
from features.lifetime import customer_vector
from features.record import before_event, to_records
from features.retention import history_cut
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


class ChurnAnswer(ChurnScore):
    """A churn score, and whether what it was made from is whole."""

    history_cut: bool = Field(default=False, description=HISTORY_CUT)


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
    response_model=ChurnAnswer,
    responses=problems(unknown_customer="No transaction or profile of this customer was ever accepted."),
)
async def churn_score(asked: ChurnRequest, given: Given) -> Response:
    """Churn probability of a customer as of a moment, and what speaks for it.

    Drivers are what raises the probability; in the lowest band what lowers it, with negative contributions.
    Of more than 30 days before the customer's newest event, windows may reach behind what is kept:
    `history_cut` says so.
    """
    state = await known_state(given, asked.customer_id, scores=False)
    (answer,) = churn_answers(given, [(asked.customer_id, decode(state.history))], asked.as_of)
    return json_answer(answer)


def churn_answers(
    given: Services, known: Sequence[tuple[str, History]], as_of: datetime | None, *, explained: bool = True
) -> list[dict[str, Any]]:
    """`ChurnAnswer` of each of some customers with their histories as of a moment; now if it is left out."""
    models, now = given.models, given.now()
    as_of_ms = to_epoch_ms(as_of or now)
    X = np.stack([customer_vector(models.engine, h.records, h.totals, as_of_ms) for _, h in known])
    wanted = [(customer_id, row, as_of_ms) for row, (customer_id, _) in enumerate(known)]
    bands = [history.totals.churn_band for _, history in known]
    results = churn_results(X, wanted, bands, models, explained=explained, staying=True)
    scored_at = to_rfc3339(now)
    return [
        messages.churn_score(result, models, scored_at=scored_at, trigger="request")
        # Active days are counted over the longest window there is, whatever the engine declares.
        | {"history_cut": history_cut(history, as_of_ms, MAX_WINDOW_MS)}
        for result, (_, history) in zip(results, known, strict=True)
    ]


SCORES: Final = {"/inference/fraud-detection": fraud_score_of}
"""What is asked for most, by the routes' formats: each from services and a body."""
