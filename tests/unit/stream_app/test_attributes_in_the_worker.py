"""A worker whose model reads an attribute of messages, and what is verified of it afterwards."""

from typing import Any

import orjson
import pytest

from features.engine import Engine
from models.model_set import Models
from schemas.topics import FRAUD_SCORES, TRANSACTIONS
from tests.streaming import Stream, transaction
from tests.verifying import histories, verified

T = TRANSACTIONS.name


def sent(number: int, **fields: Any) -> dict[str, Any]:
    return transaction(number, customer=f"c-{number % 3}") | fields


async def test_scores_follow_the_attribute_and_are_verified_bit_for_bit(attributed: Models) -> None:
    stream = Stream(attributed, score_features=True)
    for number in range(40):
        attributes = (
            {"risk": 6.0} if number % 4 == 1 else {"risk": -1.0, "other": "x"} if number % 4 else None
        )
        stream.kafka.put(T, 0, sent(number, attributes=attributes, balance_after=f"{number}.50"))
    await stream.start()
    await stream.run([7, 11, 5], topics=[T])
    await stream.run()
    scores = [orjson.loads(r.value) for r in stream.kafka.logs[FRAUD_SCORES.name, 0] if r is not None]
    risky = [s["score"] for n, s in enumerate(scores) if n % 4 == 1]
    calm = [s["score"] for n, s in enumerate(scores) if n % 4 > 1]
    assert len(scores) == 40
    assert min(risky) > 5 * max(calm)
    assert {s["features"]["attribute_risk"] for s in scores} == {6.0, -1.0, None}
    assert [s["features"]["balance_after"] for s in scores] == [number + 0.5 for number in range(40)]

    tally, rebuild = verified(stream, attributed)
    await histories(stream, rebuild)
    assert tally.first is None
    assert (tally.scores, tally.vectors, tally.differences) == (40, 40, 0)


async def test_a_worker_that_is_told_of_no_attribute_refuses_the_model(attributed: Models) -> None:
    with pytest.raises(Exception, match="set TIDEGATE_ENTITIES and TIDEGATE_ATTRIBUTES as they were"):
        Models(Engine(), attributed.fraud, attributed.churn)
