"""One chunk from events to scores: what the worker and the API both run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features import kernels
from features.arena import HistoryArena
from features.attributes import attribute_values
from features.codec import Headers, totals_of
from features.corrections import corrections_of
from features.definitions import DAY_MS
from features.engine import ChunkFeatures, Engine, Matrix
from features.entity_counts import Entities, customer_hashes
from features.lifetime import lifetime_vector, lifetime_vectors
from features.record import REPLACED_KIND, TRANSACTION_KIND, Records
from features.totals import update_totals
from models.anomaly import AnomalyModel
from models.churn_scores import ChurnResults, rescore
from models.model_set import Models
from models.reasons import by_name, explain
from models.roles import ShadowScore, shadow_scores, split
from models.tree import TreeModel
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

DECISIONS: Final = ("allow", "review", "block")
_FLAGS: Final = (
    (kernels.FLAG_LATE, "late"),
    (kernels.FLAG_COLD_START, "cold_start"),
    (kernels.FLAG_HISTORY_CUT, "history_cut"),
    (kernels.FLAG_CORRECTED, "corrected"),
)


@dataclass(frozen=True, slots=True)
class Events:
    """Accepted messages of one chunk, in the order of the log.

    Attributes:
        transactions: `n` validated messages.
        records: `(n,)` the same as records.
    """

    transactions: Sequence[Transaction | WireTransaction]
    records: Records


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """What became of a chunk of `n` events.

    Attributes:
        features: Vectors, duplicates and flags.
        slots: `(n,)` the customers' slots in the arena.
        fraud: `(n,)` calibrated probabilities; NaN for duplicates.
        decisions: `(n,)` indices into `DECISIONS`.
        reasons: By row, for what is not allowed.
        churn: Customers whose churn probability was due.
        shadows: By row that is no duplicate, one for each shadow; empty without shadows.
        anomaly: `(n,)` how unusual each is, NaN for duplicates; `None` where no model says it.
        unusual: By row that raises an alert for it, what is furthest out.
    """

    features: ChunkFeatures
    slots: npt.NDArray[np.int64]
    fraud: npt.NDArray[np.float64]
    decisions: npt.NDArray[np.int8]
    reasons: dict[int, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    churn: ChurnResults = field(default_factory=ChurnResults)
    shadows: Mapping[int, Sequence[ShadowScore]] = field(default_factory=dict)
    anomaly: npt.NDArray[np.float64] | None = None
    unusual: Mapping[int, tuple[dict[str, Any], ...]] = field(default_factory=dict)

    @property
    def accepted(self) -> npt.NDArray[np.intp]:
        """Rows that are not duplicates."""
        return np.flatnonzero(self.features.status == kernels.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A chunk's vectors: histories are past its events, scores are not made yet.

    Attributes:
        features: With the columns of entities unknown until they are filled in.
        slots: `(n,)` the customers' slots in the arena.
    """

    features: ChunkFeatures
    slots: npt.NDArray[np.int64]

    @property
    def accepted(self) -> npt.NDArray[np.intp]:
        """Rows that are not duplicates."""
        return np.flatnonzero(self.features.status == kernels.ACCEPTED)

    def fill_in(self, vectors: Matrix) -> None:
        """Take in the features of entities, `(n, k)`."""
        self.features.X[:, self.features.X.shape[1] - vectors.shape[1] :] = vectors


def prepare(
    arena: HistoryArena, events: Events, models: Models, slots: npt.NDArray[np.int64] | None = None
) -> Prepared:
    """Features of events in order from their customers' histories, which move past them.

    Args:
        arena: Holds the histories.
        events: The chunk.
        models: With the engine.
        slots: `(n,)` the customers' slots, where they are in several arenas that share their memory.
    """
    if slots is None:
        slots = arena.slots([t.customer_id for t in events.transactions])
    engine = models.engine
    said = attribute_values(engine.attributes, events.transactions)
    return Prepared(engine.compute_chunk(arena, events.records, slots, said), slots)


def score_chunk(
    arena: HistoryArena,
    events: Events,
    models: Models,
    entities: Entities | None = None,
    *,
    prepared: Prepared | None = None,
) -> ScoredChunk:
    """Score events in order and move their customers' histories past them.

    Args:
        arena: Holds the histories of all customers in the chunk; changed in place.
        events: The chunk.
        models: What to score with.
        entities: Holds all merchants, devices and so on in the chunk, where the engine declares features of
            them; changed in place.
        prepared: In place of `entities`: what `prepare` gave for the chunk, filled in. The histories may
            then be in several arenas, all beside this one.
    """
    if prepared is None:
        prepared = _with_entities(arena, events, models, entities, count=True)
    scored = _score(prepared, events, models)
    totals = update_totals(arena, events.records, scored.slots, prepared.features)
    return replace(scored, churn=_due_churn(arena, events, scored, totals, models))


def score_fraud(
    arena: HistoryArena, events: Events, models: Models, entities: Entities | None = None
) -> ScoredChunk:
    """The fraud part of `score_chunk`, all that a synchronous request needs.

    Nothing is counted at entities; without them their features are unknown.
    """
    return _score(_with_entities(arena, events, models, entities, count=False), events, models)


def _with_entities(
    arena: HistoryArena, events: Events, models: Models, entities: Entities | None, *, count: bool
) -> Prepared:
    prepared = prepare(arena, events, models)
    if models.engine.entities and count and entities is None:
        raise ValueError("the engine declares features of entities, and none are given")
    if models.engine.entities and entities is not None:
        customers = customer_hashes(t.customer_id for t in events.transactions)
        corrections = corrections_of(prepared.features, arena, prepared.slots)
        vectors = entities.compute(
            events.records, customers, prepared.accepted, count=count, corrections=corrections
        )
        prepared.fill_in(vectors)
    return prepared


def _score(prepared: Prepared, events: Events, models: Models) -> ScoredChunk:
    features, slots, accepted = prepared.features, prepared.slots, prepared.accepted
    fraud, decisions = np.full(len(slots), np.nan), np.zeros(len(slots), dtype=np.int8)
    reasons: dict[int, tuple[dict[str, Any], ...]] = {}
    customer_ids = [t.customer_id for t in events.transactions] if models.challengers else ()
    for model, rows in split(models.fraud, models.challengers.get("fraud"), customer_ids, accepted):
        fraud[rows] = model.predict_proba(features.X[rows])
        decisions[rows] = decide(model, fraud[rows])
        alerted = rows[decisions[rows] > 0]
        if len(alerted):
            explained = explain(model, features.X[alerted], by_name(models.engine.features))
            reasons.update(zip(alerted.tolist(), explained, strict=True))
    shadows = shadow_scores(models.shadows.get("fraud", ()), features.X, accepted, decide)
    scored = ScoredChunk(features, slots, fraud, decisions, reasons, shadows=shadows)
    return scored if models.anomaly is None else _with_anomaly(scored, models.anomaly, models.engine)


def _with_anomaly(scored: ScoredChunk, model: AnomalyModel, engine: Engine) -> ScoredChunk:
    X = scored.features.X
    # Of duplicates too, which are few: to leave them out all others would have to be copied.
    anomaly = model.score(X)
    anomaly[scored.features.status != kernels.ACCEPTED] = np.nan
    rows = np.flatnonzero(model.alerts(anomaly))
    explained = model.explain(X[rows], by_name(engine.features)) if len(rows) else []
    return replace(scored, anomaly=anomaly, unusual=dict(zip(rows.tolist(), explained, strict=True)))


def decide(model: TreeModel, proba: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Index into `DECISIONS` for each probability; NaN is allowed."""
    review, block = model.card.thresholds["review"], model.card.thresholds["block"]
    return (proba >= review).astype(np.int8) + (proba >= block).astype(np.int8)


def _due_churn(
    arena: HistoryArena, events: Events, scored: ScoredChunk, totals: Headers, models: Models
) -> ChurnResults:
    """Churn of customers with their first event of a day: once a customer and day, whatever the chunks."""
    rows = scored.accepted
    slots, times = scored.slots[rows], events.records["time_ms"][rows]
    # Only these: a worker may know a million customers, and a chunk may be one event.
    known, number = kernels.numbered(slots)
    first, mixed = kernels.first_of_day(times, number, arena.churn_days(known), DAY_MS)
    due = np.flatnonzero(first)
    if not len(due):
        return ChurnResults()
    # As of just after the event: it is the best sign that the customer is still there.
    as_of = times[due] + 1
    X = models.engine.compute_many(arena, slots[due], as_of)
    corrected = slots[(scored.features.flags[rows] & kernels.FLAG_CORRECTED) > 0]
    if len(corrected):
        mixed |= np.isin(slots, corrected)
    # Who has a newer event was scored for its day: nothing that came before is after this moment.
    lifetime = lifetime_vectors(arena, slots[due], totals[due], as_of)
    for i in np.flatnonzero(mixed[due]).tolist():
        n, slot, moment = int(due[i]), int(slots[due[i]]), int(as_of[i])
        # Only what came later and is older, or corrects, can be in the windows of this moment.
        later = rows[n + 1 :][slots[n + 1 :] == slot].tolist()
        history = _before(arena.records(slot), later, moment - 1, events.records, scored.features)
        X[i] = models.engine.compute(history, None, moment)
        lifetime[i] = lifetime_vector(history, totals_of(totals[n]), moment)
    customers = [events.transactions[row].customer_id for row in rows[due].tolist()]
    wanted = list(zip(customers, slots[due].tolist(), as_of.tolist(), strict=True))
    X = np.hstack([X, lifetime])
    return rescore(arena, wanted, X, models)


def _before(
    history: Records, later: Sequence[int], time_ms: int, records: Records, features: ChunkFeatures
) -> Records:
    """A history as it was at a moment, before these rows of the chunk came.

    A late one may be older than the moment, and what a correction replaced too.
    """
    for row in reversed(later):
        corrects, event = features.flags[row] & kernels.FLAG_CORRECTED, records[row]
        if not corrects and event["time_ms"] > time_ms:
            continue
        same = history["transaction"] == event["transaction"]
        came = same & (history["kind"] == TRANSACTION_KIND) & (history["time_ms"] == event["time_ms"])
        history = history[~came]
        if corrects:
            before = features.replaced[row]
            notes = same[~came] & (history["kind"] == REPLACED_KIND)
            history[np.flatnonzero(notes & (history["time_ms"] == before["time_ms"]))[-1:]] = before
    return history


def flag_names(bits: int) -> list[str]:
    """Words for an event's flag bits."""
    return [name for bit, name in _FLAGS if bits & bit]
