import numpy as np
import pytest

from features.codes import CATEGORIES, letters_code, name_hash, transaction_hash
from features.record import LABEL_KIND, RECORD, TRANSACTION_KIND, label_record, to_records
from schemas.label import Label
from schemas.transaction import Transaction

FULL = Transaction(
    transaction_id="t-1",
    customer_id="c-1",
    event_time=1_772_357_400_250,
    amount="12.30",
    currency="EUR",
    direction="credit",
    transaction_type="refund",
    channel="atm",
    merchant_id="m-1",
    merchant_category="5411",
    merchant_country="FR",
    latitude=48.8566,
    longitude=2.3522,
    device_id="d-1",
    counterparty_id="p-1",
    card_present=False,
)
LEAST = Transaction(
    transaction_id="t-2", customer_id="c-1", event_time=1_772_357_400_000, amount=7, currency="JPY"
)


def test_record_is_56_bytes_without_gaps():
    assert RECORD.itemsize == 56 == sum(RECORD[name].itemsize for name in RECORD.names)


def test_record_holds_what_the_message_says():
    full = to_records([FULL], [1230])[0]

    assert full["time_ms"] == 1_772_357_400_250
    assert full["transaction"] == transaction_hash("t-1")
    assert full["amount_minor"] == 1230
    assert (full["merchant"], full["device"]) == (name_hash("m-1"), name_hash("d-1"))
    assert full["counterparty"] == name_hash("p-1")
    assert (full["country"], full["currency"]) == (letters_code("FR"), letters_code("EUR"))
    assert CATEGORIES[full["category"] - 1] == "groceries"
    assert (full["channel"], full["transaction_type"]) == (3, 7)
    assert (full["credit"], full["card_present"], full["kind"]) == (1, 1, TRANSACTION_KIND)
    assert full["latitude"] == np.float32(48.8566)


def test_what_a_message_leaves_out_is_unknown():
    least = to_records([LEAST], [7])[0]

    for name in ("merchant", "device", "counterparty", "country", "category", "channel", "card_present"):
        assert least[name] == 0, name
    assert np.isnan(least["latitude"])
    assert np.isnan(least["longitude"])


@pytest.mark.parametrize("half", [{"latitude": 10.0}, {"longitude": 10.0}])
def test_half_a_position_is_none(half):
    record = to_records([LEAST.model_copy(update=half)], [7])[0]

    assert np.isnan(record["latitude"])
    assert np.isnan(record["longitude"])


def test_records_keep_the_order_and_there_may_be_none():
    assert to_records([LEAST, FULL], [7, 1230])["amount_minor"].tolist() == [7, 1230]
    assert to_records([], []).shape == (0,)
    with pytest.raises(ValueError, match="shorter"):
        to_records([LEAST, FULL], [7])


@pytest.mark.parametrize(
    ("word", "transaction_id", "code"),
    [("fraud", "t-1", 1), ("genuine", "t-1", 2), ("account_closed", None, 3)],
)
def test_label_stands_at_the_time_it_became_known(word, transaction_id, code):
    label = Label(customer_id="c-1", transaction_id=transaction_id, label=word, label_time=1_772_357_400_000)
    record = label_record(label)

    assert record.shape == (1,)
    assert record["time_ms"] == 1_772_357_400_000
    assert record["transaction"] == (transaction_hash("t-1") if transaction_id else 0)
    assert (record["kind"], record["label"], record["amount_minor"]) == (LABEL_KIND, code, 0)
    assert np.isnan(record["latitude"]).all()
