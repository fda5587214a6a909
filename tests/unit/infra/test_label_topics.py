"""Vectors computed again from what is stored, when a label has come."""

from types import SimpleNamespace

import numpy as np
import pytest

from features.codec import History, encode
from features.codes import transaction_hash
from features.engine import Engine
from features.entities import LATENESS_TILES, TILE_MS
from features.entity_features import ENTITY_FEATURES
from features.record import to_records
from features.tile_codec import TILE
from features.tile_codec import encode as encode_tiles
from infra.label_topics import LabelTopics, vectors_of
from models.label_learning import Finding, Findings
from models.vectors import NO_LABEL, Rows, VectorReplay
from schemas.parse import dump
from schemas.transaction import Transaction

TOLD_MS = 1_767_225_600_000


class Stored:
    """What a deployment's Redis would hold behind a replay; merchants and devices in two partitions."""

    def __init__(self, replay: VectorReplay) -> None:
        self._replay = replay

    async def histories(self, customer_ids):
        arena = self._replay.arena
        return [
            encode(History(arena.totals(arena.slot(c)), arena.records(arena.slot(c)))) if c in arena else None
            for c in customer_ids
        ]

    async def entities(self, keys):
        return [
            [encode_tiles(tiles[::2]), encode_tiles(tiles[1::2])]
            for name, code in keys
            for tiles in [self._replay.entities.stages[name].tiles(code)]
        ]


@pytest.fixture(scope="module")
def served(bank_messages):
    """Vectors of a month as they were served, and what is stored behind it."""
    transactions = [m for m in bank_messages if isinstance(m, Transaction)]
    first_ms = transactions[0].event_time_ms
    transactions = [t for t in transactions if t.event_time_ms < first_ms + 28 * 86_400_000]
    records = to_records(transactions, [t.amount_minor for t in transactions])
    n = len(transactions)
    rows = Rows(
        [t.transaction_id for t in transactions],
        [t.customer_id for t in transactions],
        records,
        np.full(n, NO_LABEL, dtype=np.int8),
        np.zeros(n, dtype=np.int64),
    )
    replay = VectorReplay(Engine(entities=ENTITY_FEATURES))
    X = np.concatenate([part.features.X for part in replay.feed(rows)])
    return transactions, X, replay


def finding(transaction: Transaction) -> Finding:
    return Finding(0, 0, transaction.customer_id, transaction_hash(transaction.transaction_id), False)


async def test_vectors_computed_later_are_those_that_were_served_bit_for_bit(served):
    transactions, X, replay = served
    chosen = list(range(0, len(transactions), 7))
    wanted = [finding(transactions[i]) for i in chosen]
    kept, found, times = await vectors_of(wanted, Stored(replay), replay.engine)
    assert kept == wanted
    assert times.tolist() == [transactions[i].event_time_ms for i in chosen]
    assert len(found) > 500
    # Of one customer and millisecond both are outside the other's windows, whichever came first.
    differing = np.flatnonzero((found.view(np.uint64) != X[chosen].view(np.uint64)).any(axis=1))
    assert differing.tolist() == []


async def test_what_no_history_holds_is_left_out(served):
    transactions, X, replay = served
    unknown = finding(transactions[0])._replace(transaction=1)
    nobody = finding(transactions[0])._replace(customer_id="nobody")
    asked = [unknown, finding(transactions[5]), nobody]
    kept, found, _ = await vectors_of(asked, Stored(replay), replay.engine)
    assert kept == [finding(transactions[5])]
    assert np.array_equal(found, X[5:6], equal_nan=True)
    kept, found, _ = await vectors_of([nobody], Stored(replay), replay.engine)
    assert (kept, found.shape) == ([], (0, X.shape[1]))


async def test_what_its_merchant_does_not_keep_whole_is_left_out(served):
    transactions, _, replay = served
    transaction = next(t for t in transactions if t.merchant_id)
    records = to_records([transaction], [transaction.amount_minor])
    stage, code = replay.entities.stages["merchant"], int(records["merchant"][0])
    tiles = stage.tiles(code)
    hour = transaction.event_time_ms // TILE_MS
    for ahead, there in ((LATENESS_TILES, True), (LATENESS_TILES + 1, False)):
        newest = np.zeros(1, dtype=TILE)
        newest["hour"], newest["count"] = hour + ahead, 1
        stage.put(code, [tiles, newest])
        kept, _, _ = await vectors_of([finding(transaction)], Stored(replay), replay.engine)
        assert bool(kept) is there
    stage.put(code, [tiles])


async def test_a_damaged_history_is_one_that_cannot_be_learned_from(served):
    transactions, _, replay = served
    stored = Stored(replay)
    whole = stored.histories

    async def damaged(customer_ids):
        return [None if h is None else h[:-3] for h in await whole(customer_ids)]

    stored.histories = damaged
    kept, _, _ = await vectors_of([finding(transactions[5])], stored, replay.engine)
    assert kept == []


def test_what_is_neither_score_nor_label_is_counted():
    topics, findings = LabelTopics("127.0.0.1:1", 1), Findings(0)
    for value in (b"", b"{", b"[]", b'{"customer_id": "c"}'):
        topics._take_score(value, findings)
        topics._take_label(SimpleNamespace(value=value, timestamp=1), findings)
    assert (topics.scores, topics.labels, topics.unreadable) == (0, 0, 8)


def test_what_the_worker_refuses_as_from_the_future_is_not_learned_from():
    topics, findings = LabelTopics("127.0.0.1:1", 1), Findings(0)
    told = dump({"customer_id": "c", "transaction_id": "t", "label": "fraud", "label_time": TOLD_MS})
    for published_ms in (TOLD_MS - 2 * 86_400_000, TOLD_MS):
        topics._take_label(SimpleNamespace(value=told, timestamp=published_ms), findings)
    assert (topics.labels, topics.unreadable, len(findings)) == (1, 1, 1)
