import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import encoding, messages
from models.churn_scores import ChurnResult
from models.pipeline import score_chunk
from schemas.parse import dump
from tests.scoring import SCORED_AT, arena_of, at, events, transactions_of


@pytest.fixture(scope="module")
def scored(bank_messages, eager):
    stream = transactions_of(bank_messages, 60)[-6000:]
    # A late one and one that came before; of both the flags differ.
    stream = [*stream, stream[0], at(-300, customer_id=stream[1].customer_id)]
    chunk = events(stream)
    result = score_chunk(arena_of(*{t.customer_id for t in stream}), chunk, eager)
    assert {*result.decisions.tolist()} == {0, 1, 2}
    assert len({*result.features.flags.tolist()}) > 1
    return chunk, result


@pytest.mark.parametrize("anomaly", [False, True])
@pytest.mark.parametrize("with_features", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_fraud_scores_are_those_written_one_by_one(scored, eager, with_features, anomaly, several):
    chunk, result = scored
    assert result.anomaly is not None
    if not anomaly:
        eager, result = replace(eager, anomaly=None), replace(result, anomaly=None, unusual={})
    offsets = list(range(10, 10 + 3 * len(chunk.transactions), 3))
    partitions = [3 + several * (number % 3) for number in range(len(offsets))]
    written = encoding.fraud_scores(
        chunk,
        result,
        eager,
        scored_at=SCORED_AT,
        topic="transactions",
        partitions=partitions,
        offsets=offsets,
        with_features=with_features,
    )
    assert written == [
        dump(
            messages.fraud_score(
                chunk,
                result,
                row,
                eager,
                scored_at=SCORED_AT,
                source={"topic": "transactions", "partition": partition, "offset": offset},
                with_features=with_features,
            )
        )
        for row, (partition, offset) in enumerate(zip(partitions, offsets, strict=True))
    ]


def test_churn_scores_are_those_written_one_by_one(scored, eager):
    _, result = scored
    # A band whose drivers nobody asked for, and one of every band.
    results = [*result.churn, ChurnResult("c-9", 0, 1_767_225_600_001, 0.7, 2, 0, 12.345)]
    assert {r.band for r in results} == {0, 1, 2}
    written = encoding.churn_scores(results, eager, scored_at=SCORED_AT, trigger="sweep")
    assert written == [
        dump(messages.churn_score(r, eager, scored_at=SCORED_AT, trigger="sweep")) for r in results
    ]


def test_nothing_is_written_of_nothing(eager):
    assert encoding.churn_scores([], eager, scored_at=SCORED_AT, trigger="event") == []


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
            st.floats(0, 1),
            st.floats(0, 1e12),
            st.integers(0, 4_102_444_799_999),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_id_and_number_is_written_as_one_by_one(eager, rows):
    results = [ChurnResult(c, 0, as_of, proba, 0, 0, value) for c, proba, value, as_of in rows]
    written = encoding.churn_scores(results, eager, scored_at=SCORED_AT, trigger="event")
    assert written == [
        dump(messages.churn_score(r, eager, scored_at=SCORED_AT, trigger="event")) for r in results
    ]


@pytest.mark.parametrize(
    "ids", [['a",', "b", "c"], [",", ",b", "c,"], ["%b", "<gap 1>", "\n"], ['"', "é", "\\"]]
)
def test_ids_that_look_like_what_parts_them_stay_whole(eager, ids):
    results = [ChurnResult(c, 0, 1_767_225_600_001, 0.5, 0, 0, 1.0) for c in ids]
    written = encoding.churn_scores(results, eager, scored_at=SCORED_AT, trigger="event")
    assert [json.loads(score)["customer_id"] for score in written] == ids
