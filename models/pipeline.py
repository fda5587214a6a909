"""One chunk from events to scores: what the worker, the API, training and the backtest all run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from features import kernels
from features.arena import HistoryArena
from features.codec import Headers, Totals, empty_headers, encode_header, read_headers, totals_of
from features.definitions import DAY_MS, EVENT, Op
from features.engine import ChunkFeatures, Engine, Matrix
from features.entities import EntityFeature
from features.lifetime import (
    customer_names,
    customer_vectors,
    declared,
    lifetime_vector,
    lifetime_vectors,
)
from features.record import REPLACED_KIND, TRANSACTION_KIND, Records
from features.tiles import Entities, customer_hashes
from models.anomaly import AnomalyModel
from models.reasons import by_name, explain
from models.roles import Challenger, model_for, split
from models.tree import TreeModel
from schemas.errors import ModelError
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

DECISIONS: Final = ("allow", "review", "block")
BANDS: Final = ("low", "medium", "high")
ACTIONS: Final = ("none", "watch", "contact")
_FLAGS: Final = (
    (kernels.FLAG_LATE, "late"),
    (kernels.FLAG_COLD_START, "cold_start"),
    (kernels.FLAG_HISTORY_CUT, "history_cut"),
    (kernels.FLAG_CORRECTED, "corrected"),
)


@dataclass(frozen=True, slots=True)
class Models:
    """One set of models and the engine they were trained on: a chunk is scored by exactly one set.

    Attributes:
        fraud: The champion.
        churn: The champion.
        challengers: By name.
        shadows: By name; their scores are never seen outside `scores.shadow`.
        identity: Names the set (`models.roles.identity`); empty for one that was put together by hand.
        anomaly: Says how unusual each transaction is; `None` where none was trained.

    Raises:
        ModelError: A model was trained on other declarations than the engine's.
    """

    engine: Engine
    fraud: TreeModel
    churn: TreeModel
    challengers: Mapping[str, Challenger] = field(default_factory=dict)
    shadows: Mapping[str, Sequence[TreeModel]] = field(default_factory=dict)
    identity: str = ""
    anomaly: AnomalyModel | None = None

    def __post_init__(self) -> None:
        for model in self.all():
            if model.card.features_hash != self.engine.hash:
                raise ModelError(
                    f"model {model.card.name} {model.card.version} was trained on feature declarations "
                    f"{model.card.features_hash}, this program runs {self.engine.hash}: train it again "
                    "(tidegate train), set TIDEGATE_ENTITIES as it was, or run the version that trained it"
                )

    def all(self) -> list[TreeModel | AnomalyModel]:
        """Every model of the set, champions first."""
        shadows = [model for models in self.shadows.values() for model in models]
        anomaly = [] if self.anomaly is None else [self.anomaly]
        return [self.fraud, self.churn, *anomaly, *(c.model for c in self.challengers.values()), *shadows]

    def fraud_for(self, customer_id: str) -> TreeModel:
        """The fraud model that scores a customer."""
        return model_for(self.fraud, self.challengers.get("fraud"), customer_id)

    def churn_for(self, customer_id: str) -> TreeModel:
        """The churn model that scores a customer."""
        return model_for(self.churn, self.challengers.get("churn"), customer_id)


@dataclass(frozen=True, slots=True)
class Events:
    """Accepted messages of one chunk, in the order of the log.

    Attributes:
        transactions: `n` validated messages.
        records: `(n,)` the same as records.
    """

    transactions: Sequence[Transaction | WireTransaction]
    records: Records


class ShadowScore(NamedTuple):
    """What a shadow says of a row or customer.

    Attributes:
        decision: Index into `DECISIONS`, or `BANDS` of churn.
    """

    model: TreeModel
    proba: float
    decision: int


class ChurnResult(NamedTuple):
    """A recomputed churn probability.

    Attributes:
        shadows: One for each shadow.
    """

    customer_id: str
    slot: int
    as_of_ms: int
    proba: float
    band: int
    band_before: int
    value_at_risk: float
    drivers: tuple[dict[str, Any], ...] = ()
    shadows: tuple["ShadowScore", ...] = ()


class ChurnResults(list[ChurnResult]):
    """Results, and beside them in one array what is counted of each: most chunks have hundreds.

    Attributes:
        numbers: `(n, 4)` probability, value at risk, band and the band before.

    Args:
        results: Each with its numbers.
        numbers: The same, where they are an array already.
    """

    def __init__(self, results: Iterable[ChurnResult] = (), numbers: Matrix | None = None) -> None:
        super().__init__(results)
        if numbers is None:
            rows = [(r.proba, r.value_at_risk, r.band, r.band_before) for r in self]
            numbers = np.array(rows, dtype=np.float64).reshape(-1, 4)
        self.numbers = numbers


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
    return Prepared(models.engine.compute_chunk(arena, events.records, slots), slots)


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
        entities: Holds all merchants and devices in the chunk, where the engine declares features of them;
            changed in place.
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
        prepared.fill_in(entities.compute(events.records, customers, prepared.accepted, count=count))
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
    shadows = _shadow_scores(models.shadows.get("fraud", ()), features.X, accepted, decide)
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


def _shadow_scores(
    shadows: Sequence[TreeModel],
    X: Matrix,
    rows: npt.NDArray[np.intp],
    decide: Callable[[TreeModel, npt.NDArray[np.float64]], npt.NDArray[np.int8]],
) -> dict[int, list[ShadowScore]]:
    found: dict[int, list[ShadowScore]] = {}
    for model in shadows:
        proba = model.predict_proba(X[rows])
        for row, p, d in zip(rows.tolist(), proba.tolist(), decide(model, proba).tolist(), strict=True):
            found.setdefault(row, []).append(ShadowScore(model, p, d))
    return found


def decide(model: TreeModel, proba: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Index into `DECISIONS` for each probability; NaN is allowed."""
    review, block = model.card.thresholds["review"], model.card.thresholds["block"]
    return (proba >= review).astype(np.int8) + (proba >= block).astype(np.int8)


def update_totals(
    arena: HistoryArena, records: Records, slots: npt.NDArray[np.int64], features: ChunkFeatures
) -> Headers:
    """Add a chunk's accepted transactions to their customers' lifetime totals.

    Args:
        arena: Histories, past the chunk; their totals are changed.
        records: `(n,)` the chunk.
        slots: `(n,)` the customers' slots.
        features: What was computed of it.

    Returns:
        Headers with the totals behind each accepted transaction.
    """
    accepted = np.flatnonzero(features.status == kernels.ACCEPTED)
    corrected = set(np.flatnonzero(features.flags & kernels.FLAG_CORRECTED).tolist())
    slots, records = slots[accepted], records[accepted]
    if not corrected:
        behind = empty_headers(len(records))
        kernels.add_totals(arena.headers, records, slots, behind)
        return behind
    added: dict[int, Totals] = {}
    headers = []
    for row, slot, time_ms, minor, credit in zip(
        accepted.tolist(),
        slots.tolist(),
        records["time_ms"].tolist(),
        records["amount_minor"].tolist(),
        records["credit"].tolist(),
        strict=True,
    ):
        totals = added.get(slot) or arena.totals(slot)
        if row in corrected:
            totals = _without_replaced(totals, features.replaced[row : row + 1], arena.records(slot), time_ms)
        added[slot] = totals.plus_one(time_ms, minor, credit == 1)
        headers.append(encode_header(added[slot]))
    for slot, totals in added.items():
        arena.set_totals(slot, totals)
    return read_headers(b"".join(headers))


def _without_replaced(totals: Totals, replaced: Records, history: Records, time_ms: int) -> Totals:
    first_ms = totals.first_ms
    if replaced["time_ms"][0] == first_ms:
        # The earliest is in the history, so all others are.
        times = history["time_ms"][history["kind"] == TRANSACTION_KIND]
        first_ms = int(times.min(initial=time_ms))
    return totals.corrected(replaced, first_ms)


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
    return _rescore(arena, wanted, X, models)


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


def score_churn(arena: HistoryArena, wanted: Sequence[tuple[str, int, int]], models: Models) -> ChurnResults:
    """Churn of customers `(customer_id, slot, as_of_ms)`; their totals remember day and band."""
    if not wanted:
        return ChurnResults()
    # Each in a row of its own: numba compiles once more for memory that is read in steps.
    slots, as_of = np.ascontiguousarray(np.array([who[1:] for who in wanted], dtype=np.int64).T)
    return _rescore(arena, wanted, customer_vectors(models.engine, arena, slots, as_of), models)


def _rescore(
    arena: HistoryArena, wanted: Sequence[tuple[str, int, int]], X: Matrix, models: Models
) -> ChurnResults:
    slots, as_of = np.array([who[1:] for who in wanted], dtype=np.int64).T
    bands = arena.headers["churn_band"]
    results = churn_results(X, wanted, bands[slots].tolist(), models)
    if len(set(slots.tolist())) < len(results):
        # A chunk may span days: the band before is then that of the result before.
        band_of: dict[int, int] = {}
        for number, result in enumerate(results):
            before = band_of.get(result.slot, result.band_before)
            results[number] = result._replace(band_before=before)
            results.numbers[number, 3] = before
            band_of[result.slot] = result.band
    # Of a slot that is named twice the last is kept.
    arena.set_churn(slots, as_of // DAY_MS, [result.band for result in results])
    return results


def churn_results(
    X: Matrix,
    wanted: Sequence[tuple[str, int, int]],
    bands_before: Sequence[int],
    models: Models,
    *,
    explained: bool = True,
) -> ChurnResults:
    """Probabilities, bands and, above the lowest band, drivers of rows of `customer_vector`."""
    proba, bands = np.empty(len(X)), np.zeros(len(X), dtype=np.int8)
    drivers: dict[int, tuple[dict[str, Any], ...]] = {}
    customer_ids = [customer_id for customer_id, _, _ in wanted]
    all_rows = np.arange(len(X))
    for model, rows in split(models.churn, models.challengers.get("churn"), customer_ids, all_rows):
        proba[rows] = model.predict_proba(X[rows])
        bands[rows] = band(model, proba[rows])
        shown = rows[bands[rows] > 0] if explained else rows[:0]
        if len(shown):
            found = explain(model, X[shown], by_name(declared(models.engine)))
            drivers.update(zip(shown.tolist(), found, strict=True))
    at_risk = proba * yearly_spend(X, models.engine)
    shadows = _shadow_scores(models.shadows.get("churn", ()), X, all_rows, band)
    columns = (proba.tolist(), bands.tolist(), bands_before, at_risk.tolist())
    each = enumerate(zip(wanted, *columns, strict=True))
    return ChurnResults(
        (
            ChurnResult(*who, score, band_now, before, value, drivers.get(i, ()), tuple(shadows.get(i, ())))
            for i, (who, score, band_now, before, value) in each
        ),
        np.array((proba, at_risk, bands, bands_before), dtype=np.float64).T,
    )


def yearly_spend(X: Matrix, engine: Engine) -> npt.NDArray[np.float64]:
    """What customers spend a year, from rows of `customer_vector`.

    At the pace of 90 days where those hold anything, else of their whole life (of a year at least).
    """
    columns = X[:, _spend_columns(customer_names(engine))]
    recent, ever, tenure_s = np.where(np.isnan(columns), 0.0, columns).T
    years = np.maximum(tenure_s / (365 * 86_400), 1.0)
    spend: npt.NDArray[np.float64] = np.where(recent > 0, recent * 365 / 90, ever / years)
    return spend


@lru_cache(maxsize=8)
def _spend_columns(names: tuple[str, ...]) -> list[int]:
    return [names.index(name) for name in ("amount_sum_90d", "amount_sum_ever", "tenure_s")]


def band(model: TreeModel, proba: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Index into `BANDS` for each probability."""
    medium, high = model.card.thresholds["medium"], model.card.thresholds["high"]
    return (proba >= medium).astype(np.int8) + (proba >= high).astype(np.int8)


def flag_names(bits: int) -> list[str]:
    """Words for an event's flag bits."""
    return [name for bit, name in _FLAGS if bits & bit]


def is_customer_feature(feature: Any) -> bool:
    """Whether a feature is known without an event to compare with."""
    if isinstance(feature, EntityFeature):
        return False
    compares = any(where.value == EVENT for where in feature.where)
    of_event = feature.op in {Op.EVENT_VALUE, Op.ZSCORE, Op.IS_NEW, Op.DISTANCE, Op.SPEED}
    return not (compares or of_event or "amount" in feature.of)
