"""Why a score is what it is, and which segment a customer is in."""

from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.deps import CustomerId, Given, entities_of, known_state
from api.errors import UnknownCustomer, problems
from api.routes.customers import QueryMoment
from api.shapes import HISTORY_CUT
from features.codec import decode
from features.codes import transaction_hash
from features.definitions import DAY_MS, MAX_WINDOW_MS, RETENTION_MS
from features.engine import Matrix
from features.entity_counts import customer_hashes
from features.lifetime import customer_vector, declared
from features.record import TRANSACTION_KIND
from features.retention import history_cut, retained
from models.model_set import Models
from models.reasons import by_name, reason
from models.segments import MEANINGS, rfm
from models.tree import TreeModel, to_proba
from schemas.fields import Identifier, Moment, from_epoch_ms, to_epoch_ms
from schemas.score import ModelRef, Reason

router = APIRouter(
    prefix="/inference",
    tags=["inference"],
    responses=problems(
        unknown_customer="The customer, or the transaction in the 120 days that are kept, is unknown.",
        refused="The request is refused.",
        away="Redis does not answer, what it has stored cannot be read, or the model is away.",
    ),
)


class Explanation(BaseModel):
    """A score as a sum: `base` and all contributions, in log-odds."""

    customer_id: str
    transaction_id: str | None = None
    as_of: Moment
    score: float = Field(description="Probability.")
    log_odds: float
    base: float = Field(description="What every score starts from.")
    contributions: list[Reason] = Field(description="The strongest, by size.")
    others: float = Field(description="Sum of the contributions that are not listed.")
    model: ModelRef
    published: float | None = Field(
        default=None,
        description="The published score where it is among the newest; it differs where another model made "
        "it, events came late since, or the model read what is not kept (`not_kept`, `history_cut`).",
    )
    not_kept: list[str] = Field(
        default=[],
        description="Features that the model read of the message alone, balances and attributes: no history "
        "keeps them, so here they are unknown.",
    )
    history_cut: bool = Field(default=False, description=HISTORY_CUT)


class SegmentRequest(BaseModel):
    """Whose segment is asked for."""

    customer_id: CustomerId = Field(examples=["c0000042"])
    as_of: Moment | None = Field(default=None, description="A moment; now if left out.")


class SegmentOut(BaseModel):
    """A customer's segment."""

    customer_id: str
    as_of: Moment
    segment: str = Field(examples=["loyal"])
    meaning: str
    confidence: float = Field(ge=0, le=1, description="0 at the border to `next_segment`, 1 at the centre.")
    next_segment: str
    recency_days: float = Field(description="Since the last transaction; 90 where there is none in 90 days.")
    frequency_90d: float
    monetary_90d: float
    model: ModelRef
    history_cut: bool = Field(default=False, description=HISTORY_CUT)


@router.get("/explain")
async def explain(
    given: Given,
    customer_id: Annotated[CustomerId, Query(description="The customer.")],
    model: Annotated[Literal["fraud", "churn"], Query(description="Whose score.")] = "fraud",
    transaction_id: Annotated[
        Identifier | None, Query(description="Of the last 120 days; needed for fraud.")
    ] = None,
    as_of: Annotated[QueryMoment | None, Query(description="For churn; now if left out.")] = None,
    most: Annotated[int, Query(ge=1, le=200, description="Contributions listed.")] = 10,
) -> Explanation:
    """Contributions to a fraud score of a past transaction, or to a churn score as of a moment.

    Of more than 30 days before the customer's newest event, windows may reach behind what is kept:
    `history_cut` says so.
    """
    models = given.models
    state = await known_state(given, customer_id, scores=model == "fraud")
    history = decode(state.history)
    if model == "churn":
        moment = as_of or given.now()
        moment_ms = to_epoch_ms(moment)
        X = customer_vector(models.engine, history.records, history.totals, moment_ms)[np.newaxis]
        return _explained(
            models,
            models.churn_for(customer_id),
            X,
            most,
            customer_id=customer_id,
            as_of=moment,
            # Active days are counted over the longest window there is, whatever the engine declares.
            history_cut=history_cut(history, moment_ms, MAX_WINDOW_MS),
        )
    # Not all that is stored: what is found must not depend on when the history was last packed.
    records = retained(history.records)
    is_it = (records["kind"] == TRANSACTION_KIND) & (
        records["transaction"] == (transaction_hash(transaction_id) if transaction_id else 0)
    )
    if transaction_id is None or not is_it.any():
        raise UnknownCustomer(
            f"this customer has no such transaction in the {RETENTION_MS // DAY_MS} days that are kept"
        )
    event = records[is_it][:1]
    time_ms = int(event["time_ms"][0])
    X = models.engine.compute(records[~is_it], event, time_ms)[np.newaxis]
    cut = history_cut(history, time_ms, models.engine.reach_ms)
    if count := len(models.engine.entities):
        entities = await entities_of(given, event)
        if entities.holds_windows(event).all():
            rows = np.arange(1)
            X[:, -count:] = entities.compute(event, customer_hashes([customer_id]), rows, count=False)
        else:
            cut = True
    newest_first = map(orjson.loads, reversed(state.scores))
    published = next((s["score"] for s in newest_first if s["transaction_id"] == transaction_id), None)
    return _explained(
        models,
        models.fraud_for(customer_id),
        X,
        most,
        customer_id=customer_id,
        transaction_id=transaction_id,
        as_of=from_epoch_ms(time_ms),
        published=published,
        not_kept=[f.name for f in models.engine.attributes],
        history_cut=cut,
    )


def _explained(models: Models, model: TreeModel, X: Matrix, most: int, **about: Any) -> Explanation:
    shares = model.contributions(X)[0]
    values, features = X[0, model.columns], by_name(declared(models.engine))
    strongest = np.argsort(-np.abs(shares[:-1]), kind="stable")[:most]
    listed = [
        reason(features[model.card.feature_names[i]], float(values[i]), float(shares[i]))
        for i in strongest.tolist()
        if shares[i] != 0
    ]
    log_odds = model.log_odds(X)
    return Explanation(
        score=float(to_proba(log_odds)[0]),
        log_odds=float(log_odds[0]),
        base=float(shares[-1]),
        contributions=[Reason.model_validate(one) for one in listed],
        others=float(shares[:-1].sum() - shares[strongest].sum()),
        model=ModelRef.model_validate(model.reference),
        **about,
    )


@router.post("/segment")
async def segment(asked: SegmentRequest, given: Given) -> SegmentOut:
    """The segment of a customer as of a moment, by recency, frequency and money."""
    segments, engine = given.require_segments(), given.models.engine
    state = await known_state(given, asked.customer_id, scores=False)
    as_of = asked.as_of or given.now()
    history, as_of_ms = decode(state.history), to_epoch_ms(as_of)
    X = engine.compute(history.records, None, as_of_ms)[np.newaxis]
    (found,) = segments.assign(rfm(X, engine))
    return SegmentOut(
        customer_id=asked.customer_id,
        as_of=as_of,
        segment=found.name,
        meaning=MEANINGS[found.name],
        confidence=found.confidence,
        next_segment=found.next_name,
        recency_days=found.recency_days,
        frequency_90d=found.frequency_90d,
        monetary_90d=found.monetary_90d,
        model=ModelRef(name=segments.card.name, version=segments.card.version),
        history_cut=history_cut(history, as_of_ms, MAX_WINDOW_MS),
    )
