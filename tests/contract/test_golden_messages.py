"""Messages of schema version 1 as others have written and read them since: they still parse."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas.audit import AuditRecord
from schemas.customer import Customer
from schemas.dead_letter import DeadLetter
from schemas.erasure import Erasure
from schemas.export import json_schema
from schemas.fields import Message
from schemas.label import Label
from schemas.parse import parse_message
from schemas.score import Alert, ChurnScore, FraudScore, ShadowScore
from schemas.topics import TOPICS
from schemas.transaction import Transaction

GOLDEN = Path(__file__).parent / "golden"
INBOUND: dict[str, type[Message]] = {
    "transaction": Transaction,
    "transaction_least": Transaction,
    "transaction_correction": Transaction,
    "label": Label,
    "label_account_closed": Label,
    "customer": Customer,
    "erasure": Erasure,
}
OUTBOUND: dict[str, type[Message]] = {
    "fraud_score": FraudScore,
    "churn_score": ChurnScore,
    "alert": Alert,
    "shadow_score": ShadowScore,
    "dead_letter": DeadLetter,
    "audit_record": AuditRecord,
}


def raw(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes()


def test_every_golden_message_has_a_model():
    assert {path.stem for path in GOLDEN.iterdir()} == INBOUND.keys() | OUTBOUND.keys()


def test_every_topic_has_a_golden_message():
    assert {topic.message for topic in TOPICS} <= {*INBOUND.values(), *OUTBOUND.values()}


@pytest.mark.parametrize("name", INBOUND)
def test_message_of_version_1_is_accepted(name):
    model = INBOUND[name]
    message = parse_message(model, raw(name))

    sent: dict[str, Any] = json.loads(raw(name))
    assert message.model_fields_set == sent.keys() & model.model_fields.keys()
    assert model.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize("name", OUTBOUND)
def test_score_of_version_1_is_read_and_would_be_written_the_same(name):
    message = OUTBOUND[name].model_validate_json(raw(name))

    # Fields may be added; none may change or go.
    written = json.loads(message.model_dump_json())
    assert json.loads(raw(name)).items() <= written.items()


@pytest.mark.parametrize("name", [*INBOUND, *OUTBOUND])
def test_golden_message_meets_the_published_json_schema(name):
    model = {**INBOUND, **OUTBOUND}[name]
    topic = next(topic for topic in TOPICS if topic.message is model)

    jsonschema.validate(json.loads(raw(name)), json_schema(topic))


def test_transaction_of_version_1_means_what_it_meant():
    full = parse_message(Transaction, raw("transaction"))
    least = parse_message(Transaction, raw("transaction_least"))
    correction = parse_message(Transaction, raw("transaction_correction"))

    assert isinstance(full, Transaction)
    assert isinstance(least, Transaction)
    assert isinstance(correction, Transaction)
    assert (full.revision, least.revision, correction.revision) == (0, 0, 1)
    assert correction.transaction_id == full.transaction_id
    assert (full.event_time_ms, full.amount_minor, full.is_credit) == (1_772_357_400_250, 124_990, False)
    assert (least.event_time_ms, least.amount_minor, least.is_credit) == (1_772_357_400_250, 1500, False)


def test_label_of_version_1_means_what_it_meant():
    fraud = parse_message(Label, raw("label"))
    closed = parse_message(Label, raw("label_account_closed"))

    assert isinstance(fraud, Label)
    assert isinstance(closed, Label)
    assert (fraud.label, fraud.label_time_ms) == ("fraud", 1_775_116_800_000)
    assert (closed.label, closed.label_time_ms) == ("account_closed", 1_775_116_800_000)
