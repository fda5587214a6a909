"""Many at once: the same code and the same answers as one by one."""

import asyncio
import json
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from api.audit import about
from api.deps import CustomerId, Given, entities_of
from api.errors import problems
from api.routes.inference import EXAMPLE_TRANSACTION, ChurnAnswer, churn_answers
from features.arena import HistoryArena
from features.codec import History, decode
from features.entity_counts import Entities
from features.record import before_event, to_records
from models import messages
from models.model_set import Models
from models.pipeline import Events, score_fraud
from schemas.errors import EventError
from schemas.fields import Moment, to_epoch_ms, to_rfc3339
from schemas.parse import check_not_future, parse_message
from schemas.score import FraudScore
from schemas.transaction import Transaction

MOST = 1000
router = APIRouter(
    prefix="/inference",
    tags=["inference"],
    responses=problems(
        too_long="The body is longer than any request is.",
        refused="The request is refused as a whole.",
        away="Redis does not answer, or what it has stored cannot be read.",
    ),
)


class ChurnBatchRequest(BaseModel):
    """Whose churn probabilities are asked for."""

    customer_ids: Annotated[
        list[CustomerId], Field(min_length=1, max_length=MOST, examples=[["c0000042", "c0000043"]])
    ]
    as_of: Moment | None = Field(default=None, description="A moment; now if left out.")
    drivers: bool = Field(
        default=False, description="Explain them as `/inference/churn-score` does; that takes longer."
    )


class ChurnBatch(BaseModel):
    """Churn scores in the order asked for, each customer once."""

    scores: list[ChurnAnswer]
    unknown: list[str] = Field(description="Customers of whom no transaction was ever accepted.")


class Refusal(BaseModel):
    """Why one transaction of a batch is refused, in the words of its dead letter."""

    reason: str = Field(examples=["amount_not_positive"])
    detail: str


class BatchResult(BaseModel):
    """What became of one transaction: a score or a refusal."""

    index: int = Field(description="Place in the request, from 0.")
    score: FraudScore | None = None
    refused: Refusal | None = None


class BatchRequest(BaseModel):
    """Transactions to score."""

    transactions: Annotated[
        list[dict[str, Any]],
        Field(min_length=1, max_length=MOST, examples=[[EXAMPLE_TRANSACTION]]),
    ] = Field(description="As `/inference/fraud-detection` takes them.")


class Batch(BaseModel):
    """Results in the order of the request."""

    scored: int
    refused: int
    results: list[BatchResult]


@router.post("/churn-batch", response_model=ChurnBatch)
async def churn_batch(asked: ChurnBatchRequest, given: Given) -> Response:
    """Churn probabilities of up to 1,000 customers as of a moment."""
    customers = list(dict.fromkeys(asked.customer_ids))
    for customer in customers:
        about(customer)
    stored = await given.store.histories(customers)
    known = [(c, decode(h)) for c, h in zip(customers, stored, strict=True) if h is not None]
    scores = churn_answers(given, known, asked.as_of, explained=asked.drivers) if known else []
    found = {c for c, _ in known}
    return _json({"scores": scores, "unknown": [c for c in customers if c not in found]})


@router.post("/batch-process", response_model=Batch)
async def batch_process(asked: BatchRequest, given: Given) -> Response:
    """Score up to 1,000 transactions, each as if it were asked about alone; nothing is kept."""
    models, now_ms = given.models, to_epoch_ms(given.now())
    results: list[dict[str, Any]] = [{"index": i} for i in range(len(asked.transactions))]
    good: list[tuple[int, Transaction, int]] = []
    for index, message in enumerate(asked.transactions):
        try:
            # The standard library writes whatever it read: numbers of any length, halves of surrogates.
            transaction = parse_message(Transaction, json.dumps(message).encode())
            about(transaction.customer_id)
            amount_minor = transaction.amount_minor
            check_not_future(transaction.event_time_ms, now_ms)
        except EventError as refused:
            results[index]["refused"] = {"reason": refused.reason, "detail": str(refused)}
            continue
        good.append((index, transaction, amount_minor))
    customers = list(dict.fromkeys(t.customer_id for _, t, _ in good))
    stored = await given.store.histories(customers) if customers else []
    histories = {c: decode(h) for c, h in zip(customers, stored, strict=True)}
    scored_at = to_rfc3339(given.now())
    for chunk in _rounds(good):
        # One customer a thousand times is a thousand rounds: others are answered between them.
        await asyncio.sleep(0)
        events = Events(
            [t for _, t, _ in chunk], to_records([t for _, t, _ in chunk], [m for _, _, m in chunk])
        )
        entities = await entities_of(given, events.records)
        scores = _score(events, histories, models, scored_at, entities)
        for (index, _, _), score in zip(chunk, scores, strict=True):
            results[index]["score"] = score
    return _json({"scored": len(good), "refused": len(results) - len(good), "results": results})


def _rounds(good: list[tuple[int, Transaction, int]]) -> list[list[tuple[int, Transaction, int]]]:
    """The same transactions in groups that name no customer twice: none is in another's history."""
    rounds: list[list[tuple[int, Transaction, int]]] = []
    seen: dict[str, int] = {}
    for item in good:
        number = seen.get(item[1].customer_id, 0)
        seen[item[1].customer_id] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(item)
    return rounds


def _score(
    events: Events, histories: dict[str, History], models: Models, scored_at: str, entities: Entities
) -> list[dict[str, Any]]:
    transactions = events.transactions
    arena = HistoryArena()
    for row, transaction in enumerate(transactions):
        history = histories[transaction.customer_id]
        # As for one: a transaction that the stream has seen is scored without itself.
        others = before_event(history.records, events.records[row : row + 1])
        arena.put(transaction.customer_id, History(history.totals, others))
    scored = score_fraud(arena, events, models, entities)
    return [
        messages.fraud_score(events, scored, row, models, scored_at=scored_at, source=None)
        for row in range(len(transactions))
    ]


def _json(document: dict[str, Any]) -> Response:
    # Not through the models again: a thousand scores are checked in the tests, not in every answer.
    return Response(orjson.dumps(document), media_type="application/json")
