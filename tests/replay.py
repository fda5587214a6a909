"""Messages replayed one after the other, as a worker meets them: what the replay of rows is held against."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from features.arena import HistoryArena
from features.attributes import attribute_values
from features.codes import transaction_hash
from features.engine import ChunkFeatures, Engine
from features.entity_counts import Entities, said_by
from features.labels import PUT, UNKNOWN_TRANSACTION, put_labels
from features.record import label_record, to_records
from models.vectors import compute_vectors, may_leave
from schemas.label import Label
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

_CHUNK = 2000


def replay_chunks(
    messages: Iterable[Transaction | WireTransaction | Label],
    engine: Engine,
    arena: HistoryArena,
    entities: Entities | None = None,
) -> Iterator[tuple[list[Transaction | WireTransaction], ChunkFeatures]]:
    """Vectors of transactions in their order, chunk by chunk, as the worker computes them.

    Args:
        messages: Transactions in the order of the log, and labels behind what they are about. A label that
            comes early counts from its own time.
        engine: The engine.
        arena: Holds the histories; customers not in it start empty.
        entities: Merchants, devices and so on, where the engine declares features of them; those not in it
            start empty.
    """
    if engine.entities and entities is None:
        raise ValueError("the engine declares features of entities, and none are given")
    labelled: set[tuple[str | None, str]] = set()
    chunk: list[Transaction | WireTransaction] = []
    waiting: set[str] = set()
    newest: dict[str, int] = {}
    for message in messages:
        if not isinstance(message, Label):
            chunk.append(message)
            waiting.add(message.transaction_id)
            newest[message.customer_id] = max(
                message.event_time_ms, newest.get(message.customer_id, message.event_time_ms)
            )
            if len(chunk) == _CHUNK:
                yield chunk, _vectors(chunk, engine, arena, entities)
                chunk, waiting, newest = [], set(), {}
        elif (
            entities is not None
            and message.label != "account_closed"
            and (message.transaction_id, message.label) not in labelled
        ):
            if message.transaction_id in waiting or _may_leave(message, arena, newest, len(chunk)):
                yield chunk, _vectors(chunk, engine, arena, entities)
                chunk, waiting, newest = [], set(), {}
            if _note(message, arena, entities):
                labelled.add((message.transaction_id, message.label))
    if chunk:
        yield chunk, _vectors(chunk, engine, arena, entities)


def _vectors(
    chunk: list[Transaction | WireTransaction], engine: Engine, arena: HistoryArena, entities: Entities | None
) -> ChunkFeatures:
    records = to_records(chunk, [t.amount_minor for t in chunk])
    values = attribute_values(engine.attributes, chunk)
    return compute_vectors([t.customer_id for t in chunk], records, engine, arena, entities, values)


def _may_leave(label: Label, arena: HistoryArena, newest: Mapping[str, int], more: int) -> bool:
    """Whether a history may lose what a label is about with the transactions that wait in front of it."""
    customer_id = label.customer_id
    if label.transaction_id is None or customer_id not in newest or customer_id not in arena:
        return False
    transaction = transaction_hash(label.transaction_id)
    return may_leave(arena, customer_id, transaction, newest[customer_id], more)


def _note(label: Label, arena: HistoryArena, entities: Entities) -> bool:
    """Tell entities what was said; false where the customer's history has no such transaction."""
    if label.customer_id not in arena:
        return False
    slot, record = arena.slot(label.customer_id), label_record(label)
    (outcome,) = put_labels(arena, np.array([slot]), record)
    if outcome == PUT:
        entities.add(entities.frauds(said_by(arena.kept(slot), record)))
    return bool(outcome != UNKNOWN_TRANSACTION)
