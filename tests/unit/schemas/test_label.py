import pytest

from schemas.errors import EventError
from schemas.label import Label
from schemas.parse import dump, parse_message

LABEL = {
    "customer_id": "c-1",
    "transaction_id": "t-1",
    "label": "fraud",
    "label_time": "2026-03-20T00:00:00.500Z",
    "source": "chargeback",
}


def label(**fields: object) -> Label:
    return parse_message(Label, dump({**LABEL, **fields}))


def test_label_names_a_transaction_and_when_it_became_known():
    found = label()

    assert (found.transaction_id, found.label, found.source) == ("t-1", "fraud", "chargeback")
    assert found.label_time_ms == 1_773_964_800_500


def test_account_closed_needs_no_transaction():
    assert label(label="account_closed", transaction_id=None).transaction_id is None


@pytest.mark.parametrize("value", ["fraud", "genuine"])
def test_finding_about_a_transaction_names_it(value):
    with pytest.raises(EventError) as refused:
        label(label=value, transaction_id=None)

    assert refused.value.reason == "invalid_field"
    assert str(refused.value) == "message: a fraud or genuine label needs the transaction_id it is about"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"label": "suspicious"}, "label: "),
        ({"label": None}, "label: "),
        ({"label_time": "2026-03-20"}, "label_time: "),
        ({"label_time": None}, "label_time: "),
        ({"customer_id": ""}, "customer_id: "),
        ({"customer_id": None}, "customer_id: "),
        ({"transaction_id": "x" * 65}, "transaction_id: "),
        ({"source": "rumour"}, "source: "),
        ({"label_id": ""}, "label_id: "),
    ],
)
def test_wrong_label_is_refused_by_field(fields, named):
    with pytest.raises(EventError) as refused:
        label(**fields)

    assert refused.value.reason == "invalid_field"
    assert str(refused.value).startswith(named)
