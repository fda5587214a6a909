import json
from dataclasses import replace
from itertools import pairwise

import pytest
from pydantic import BaseModel

from models import messages
from models.churn_scores import ACTIONS, BANDS, ChurnResult
from models.pipeline import DECISIONS, score_chunk
from schemas.parse import dump
from schemas.score import Alert, ChurnScore, FraudScore
from tests.scoring import HORIZON_DAYS, SCORED_AT, arena_of, at, events, transactions_of

SOURCE = {"topic": "transactions", "partition": 3, "offset": 17}


def assert_is(model: type[BaseModel], message: dict) -> None:
    """It is valid, and nothing is in it that the contract does not know."""
    document = json.loads(dump(message))
    parsed = model.model_validate_json(dump(message))
    assert parsed.model_dump(mode="json", exclude_unset=True) == document


@pytest.fixture(scope="module")
def scored(bank_messages, eager):
    stream = transactions_of(bank_messages, 60)[-3000:]
    arena = arena_of(*{t.customer_id for t in stream})
    chunk = events(stream)
    result = score_chunk(arena, chunk, eager)
    assert {*result.decisions.tolist()} == {0, 1, 2}
    return chunk, result


def fraud_score(scored, row, eager, **options):
    return messages.fraud_score(*scored, row, eager, scored_at=SCORED_AT, **options)


def test_every_fraud_score_is_what_the_contract_says(scored, eager):
    chunk, result = scored
    for row in range(len(chunk.transactions)):
        message = fraud_score(scored, row, eager, source=SOURCE)
        assert_is(FraudScore, message)
        assert message["score"] == result.fraud[row]
        assert message["decision"] == DECISIONS[result.decisions[row]]
        assert message["source"] == SOURCE
        assert "features" not in message


def test_a_fraud_score_without_a_source_has_none(scored, eager):
    message = fraud_score(scored, 0, eager, source=None)
    assert_is(FraudScore, message)
    assert "source" not in message


def test_features_are_all_there_by_setting_with_null_for_unknown(scored, eager):
    message = fraud_score(scored, 0, eager, source=SOURCE, with_features=True)
    assert_is(FraudScore, message)
    assert tuple(message["features"]) == eager.engine.names
    # The first event of a customer: nothing is known of the time since the last.
    assert message["features"]["time_since_last_s"] is None
    assert message["features"]["txn_count_90d"] == 0


def test_alerts_name_their_transaction_and_say_why(scored, eager):
    chunk, result = scored
    for row in result.reasons:
        transaction, alert = chunk.transactions[row], messages.fraud_alert(*scored, row, eager)
        assert_is(Alert, alert)
        assert alert["alert_id"] == f"fraud:{transaction.transaction_id}"
        assert alert["severity"] in {"review", "block"}
        assert alert["amount"] == float(transaction.amount)
        assert alert["reasons"] == result.reasons[row] != ()


def test_what_is_unusual_and_allowed_raises_an_alert_of_its_own(scored, eager):
    chunk, result = scored
    assert {result.decisions[row] > 0 for row in result.unusual} == {True, False}
    for row in range(len(chunk.transactions)):
        alert = messages.anomaly_alert(*scored, row, eager)
        wanted = result.anomaly[row] >= eager.anomaly.card.thresholds["alert"] and not result.decisions[row]
        assert (alert is not None) == wanted
        if alert is not None:
            assert_is(Alert, alert)
            assert alert["alert_id"] == f"anomaly:{chunk.transactions[row].transaction_id}"
            assert (alert["kind"], alert["severity"]) == ("anomaly", "review")
            assert alert["score"] == result.anomaly[row]
            assert alert["reasons"] == result.unusual[row] != ()
            assert alert["model"] == {"name": "anomaly", "version": "v1", "role": "champion"}


def test_a_score_says_how_unusual_it_is_only_where_a_model_knows(scored, eager):
    chunk, result = scored
    message = fraud_score(scored, 0, eager, source=SOURCE)
    assert message["anomaly"]["score"] == result.anomaly[0]
    without = replace(eager, anomaly=None)
    again = score_chunk(arena_of(*{t.customer_id for t in chunk.transactions}), chunk, without)
    assert again.anomaly is None
    assert not again.unusual
    message = messages.fraud_score(chunk, again, 0, without, scored_at=SCORED_AT, source=SOURCE)
    assert_is(FraudScore, message)
    assert "anomaly" not in message


def test_the_same_event_scored_again_is_the_same_message(scored, eager):
    chunk, _ = scored
    again = score_chunk(arena_of(*{t.customer_id for t in chunk.transactions}), chunk, eager)
    for row in range(0, len(chunk.transactions), 97):
        one, other = (
            messages.fraud_score(chunk, result, row, eager, scored_at=SCORED_AT, source=SOURCE)
            for result in (scored[1], again)
        )
        assert dump(one) == dump(other)


@pytest.mark.parametrize("trigger", ["event", "sweep", "request"])
def test_every_churn_score_is_what_the_contract_says(scored, eager, trigger):
    assert {r.band for r in scored[1].churn} >= {0, 1}
    for result in scored[1].churn:
        message = messages.churn_score(result, eager, scored_at=SCORED_AT, trigger=trigger)
        assert_is(ChurnScore, message)
        assert message["band"] == BANDS[result.band]
        assert message["recommended_action"] == ACTIONS[result.band]
        assert message["churn_probability"] == result.proba
        assert message["horizon_days"] == HORIZON_DAYS
        assert message["as_of"].endswith(f".{result.as_of_ms % 1000:03d}Z")


@pytest.mark.parametrize(
    ("before", "band", "severity"),
    [
        (-1, 0, None),
        (-1, 1, "medium"),
        (-1, 2, "high"),
        (0, 0, None),
        (0, 1, "medium"),
        (0, 2, "high"),
        (1, 0, None),
        (1, 1, None),
        (1, 2, "high"),
        (2, 0, None),
        (2, 1, None),
        (2, 2, None),
    ],
)
def test_a_churn_alert_is_for_moving_up_only(eager, before, band, severity):
    result = ChurnResult("c-1", 0, 1_767_225_600_001, 0.7, band, before, 12.5)
    alert = messages.churn_alert(result, eager)
    if severity is None:
        assert alert is None
    else:
        assert_is(Alert, alert)
        assert alert["severity"] == severity
        assert alert["alert_id"] == "churn:c-1:2026-01-01T00:00:00.001Z"


def test_moving_up_within_one_chunk_alerts_once_for_each_step(eager):
    # Busy, then four weeks of nearly nothing: one chunk that spans all of it.
    busy = [at(d / 4) for d in range(160)]
    fading = [at(60), at(75), at(90)]
    arena = arena_of("c-1")
    result = score_chunk(arena, events([*busy, *fading]), eager)
    bands = [-1, *(r.band for r in result.churn)]
    alerts = [messages.churn_alert(r, eager) for r in result.churn]
    rises = [now > before and now > 0 for before, now in pairwise(bands)]
    assert [alert is not None for alert in alerts] == rises


def test_times_are_written_in_utc(eager):
    arena = arena_of("c-1")
    chunk = events([at(1, event_time="2026-03-01T10:30:00.123456+01:00")])
    result = score_chunk(arena, chunk, eager)
    message = fraud_score((chunk, result), 0, eager, source=None)
    assert message["event_time"] == "2026-03-01T09:30:00.123Z"
