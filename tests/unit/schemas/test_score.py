import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from schemas.fields import Message
from schemas.score import Alert, ChurnScore, FraudScore, ModelRef, Reason, Source

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
MODEL = ModelRef(name="fraud", version="3")
REASON = Reason(feature="amount_zscore_30d", value=None, contribution=1.5, text="unusual amount")
FRAUD = FraudScore(
    transaction_id="t-1",
    customer_id="c-1",
    event_time=AT,
    scored_at=AT,
    score=0.93,
    decision="block",
    reasons=(REASON,),
    model=MODEL,
    flags=("late", "cold_start"),
    features={"amount": 12.5, "amount_std_30d": None},
    source=Source(topic="transactions", partition=0, offset=9),
)
CHURN = ChurnScore(
    customer_id="c-1",
    as_of=AT,
    scored_at=AT,
    churn_probability=0.4,
    band="medium",
    horizon_days=90,
    drivers=(REASON,),
    model=MODEL,
    value_at_risk=120.5,
    recommended_action="watch",
    trigger="sweep",
)
ALERT = Alert(
    alert_id="a-1",
    kind="fraud",
    customer_id="c-1",
    event_time=AT,
    severity="block",
    score=0.93,
    transaction_id="t-1",
    amount=12.5,
    currency="EUR",
    reasons=(REASON,),
    model=MODEL,
)


@pytest.mark.parametrize("message", [FRAUD, CHURN, ALERT], ids=lambda m: type(m).__name__)
def test_written_and_read_again_it_is_the_same(message: Message):
    assert type(message).model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("message", [FRAUD, CHURN, ALERT], ids=lambda m: type(m).__name__)
def test_every_message_says_its_version_once(message: Message):
    written = message.model_dump_json()

    assert json.loads(written)["schema_version"] == 1
    assert written.count("schema_version") == 1


@pytest.mark.parametrize("score", [-0.001, 1.001, float("nan")])
def test_probability_is_between_0_and_1(score):
    with pytest.raises(ValidationError):
        FraudScore.model_validate({**FRAUD.model_dump(), "score": score})
    with pytest.raises(ValidationError):
        ChurnScore.model_validate({**CHURN.model_dump(), "churn_probability": score})


@pytest.mark.parametrize(
    "change",
    [{"decision": "perhaps"}, {"flags": ["odd"]}, {"source": {"topic": "t", "partition": -1, "offset": 0}}],
)
def test_word_outside_the_contract_is_refused(change):
    with pytest.raises(ValidationError):
        FraudScore.model_validate({**FRAUD.model_dump(), **change})


def test_unknown_feature_is_null_and_never_nan():
    reason = REASON.model_copy(update={"value": float("nan")})

    assert json.loads(reason.model_dump_json())["value"] is None
