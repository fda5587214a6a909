"""A worker in memory is run, and then one of its scores is changed."""

from dataclasses import replace

import numpy as np
import pytest

from features.arena import HistoryArena
from models.model_set import Models
from models.published_scores import Published, read_score
from schemas.parse import parse_message
from schemas.topics import TRANSACTIONS
from schemas.transaction import Transaction
from tests.replay import replay_chunks
from tests.streaming import Stream
from tests.verifying import histories, verified

T = TRANSACTIONS.name


async def test_a_score_off_by_one_bit_is_the_first_difference(written: Stream, models: Models) -> None:
    def flip(score: Published) -> Published:
        if score.transaction_id != "t-20":
            return score
        return Published(score.offset, "t-20", score.version, float(np.nextafter(score.score, 1)))

    tally, rebuild = verified(written, models, change=flip)
    # What follows is not compared with the wrong score's history but with the log's.
    await histories(written, rebuild)
    assert tally.differences == 1
    first = tally.first
    assert first is not None
    assert (first.kind, first.customer_id, first.offset) == ("score", "c-2", 20)
    found, rebuilt = first.values["score"]
    assert found == np.nextafter(rebuilt, 1)
    assert [record["amount_minor"] for record in first.history] == [
        100 * (10 + n % 90) + 50 for n in range(2, 20, 3)
    ]


async def test_an_anomaly_score_that_is_another_is_found_and_of_a_model_that_is_gone_not_compared(
    written: Stream, models: Models
) -> None:
    def change(score: Published) -> Published:
        assert score.anomaly is not None
        said = {"t-20": ("v1", score.anomaly[1] / 2 + 0.25), "t-21": ("v7", 0.5)}
        return replace(score, anomaly=said.get(score.transaction_id, score.anomaly))

    tally, _ = verified(written, models, change=change)
    assert (tally.differences, tally.scores) == (1, 71)
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset, tally.first.values.keys()) == ("score", 20, {"anomaly"})
    assert tally.not_compared == {"anomaly model v7 not here": 1}


async def test_a_wrong_feature_is_named_with_both_values(written: Stream, models: Models) -> None:
    offsets = [r.offset for r in written.kafka.logs[T, 0] if r is not None and r.value != b"not json"]
    sent = [
        parse_message(Transaction, r.value)
        for r in written.kafka.logs[T, 0]
        if r is not None and r.value != b"not json"
    ]
    X = np.concatenate([c.X for _, c in replay_chunks(sent, models.engine, HistoryArena())])
    vectors = {
        offset: dict(zip(models.engine.names, row.tolist(), strict=True))
        for offset, row in zip(offsets, X, strict=True)
    }
    name = models.engine.names[3]

    def with_features(score: Published) -> Published:
        vector = vectors[score.offset]
        if score.offset == 50:
            vector = {**vector, name: 12345.5}
        return Published(score.offset, score.transaction_id, score.version, score.score, vector)

    tally, _ = verified(written, models, change=with_features)
    assert (tally.vectors, tally.differences) == (71, 1)
    assert tally.first is not None
    assert (tally.first.kind, tally.first.offset) == ("feature", 50)
    assert tally.first.values == {name: (12345.5, vectors[50][name])}


async def test_a_model_that_is_not_here_is_said_and_not_a_difference(written: Stream, models: Models) -> None:
    other = lambda s: Published(s.offset, s.transaction_id, "v77", s.score)  # noqa: E731
    tally, _ = verified(written, models, change=other)
    assert (tally.scores, tally.differences) == (0, 0)
    assert tally.not_compared == {"model v77 or its declarations not here": 71}


@pytest.mark.parametrize(
    "value",
    [None, b"", b"x", b"[]", b"{}", b'{"source": {"topic": "transactions", "partition": 1, "offset": 1}}'],
)
def test_what_is_no_score_of_the_partition_is_left_out(value: bytes | None) -> None:
    assert read_score(value, T, 0) is None
