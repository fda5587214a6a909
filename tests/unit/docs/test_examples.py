"""The example mappings, each on a few rows in the shape of its file."""

from datetime import datetime
from pathlib import Path

import pytest

from infra.mapping import Mapping
from infra.row_mapper import MappedRow

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


def rows(name: str, *cells: dict[str, object]) -> list[MappedRow]:
    mapping = Mapping.load(EXAMPLES / f"{name}.yaml")
    mapping.check(list(cells[0]))
    return list(mapping.rows({column: [row[column] for row in cells] for column in cells[0]}))


def message(row: MappedRow) -> dict[str, object]:
    assert row.message is not None, row.problem
    return row.message


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_mapping_and_in_the_guide(path: Path) -> None:
    Mapping.load(path)
    assert f"--mapping docs/examples/{path.name}" in (EXAMPLES / "README.md").read_text()


def test_berka_days_are_midnight_in_prague_and_its_zeros_are_refused() -> None:
    day = datetime.fromisoformat("1993-07-01")
    berka: dict[str, object] = {
        "account_id": 2378, "date": day, "type": "cash_withdraw", "operation": "withdraw_cash",
        "amount": 700, "balance": -3, "bank": "AB", "account": 41403269,
    }  # fmt: skip
    withdrawal, zero, nameless = rows(
        "berka_trans_1993_94", berka, {**berka, "amount": 0}, {**berka, "bank": None, "account": 0}
    )
    assert message(withdrawal) == {
        "transaction_id": "berka-1",
        "customer_id": "2378",
        "event_time": "1993-06-30T22:00:00.000Z",
        "amount": "700",
        "currency": "CZK",
        "account_id": "2378",
        "direction": "debit",
        "transaction_type": "withdrawal",
        "counterparty_id": "AB-41403269",
        "balance_after": "-3",
    }
    assert zero.problem == (
        "amount: Input should be greater than 0; in the mapping, "
        "'absolute: true' drops a sign, 'direction' says what it meant, "
        "and 'range: [0.001, 1e12]' with 'default: 0.01' takes a cent for nothing"
    )
    assert "counterparty_id" not in message(nameless)


def test_anz_places_are_the_merchant_s() -> None:
    (row,) = rows(
        "anz_transactions",
        {
            "account": "ACC-1", "txn_description": "SALES-POS", "merchant_id": "m1", "balance": 35.39,
            "extraction": datetime.fromisoformat("2018-08-01T01:01:15"), "amount": 16.25,
            "customer_id": "CUS-1", "merchant_long_lat": "153.38 -27.99", "movement": "debit",
        },
    )  # fmt: skip
    assert message(row)["event_time"] == "2018-07-31T15:01:15.000Z"
    assert (message(row)["longitude"], message(row)["latitude"]) == (153.38, -27.99)
    assert (message(row)["transaction_type"], message(row)["channel"]) == ("purchase", "pos")


def test_retail_returns_are_refunds_and_guests_are_left_out() -> None:
    sale: dict[str, object] = {
        "quantity": 6, "ts": datetime.fromisoformat("2011-07-01T08:26"),
        "unit_price": 2.55, "customer_id": 17850,
    }  # fmt: skip
    sold, returned, guest, gift = rows(
        "online_retail",
        sale,
        {**sale, "quantity": -6},
        {**sale, "customer_id": None},
        {**sale, "unit_price": 0.0},
    )
    assert (message(sold)["amount"], message(sold)["event_time"]) == ("15.30", "2011-07-01T07:26:00.000Z")
    assert (message(sold)["direction"], message(sold)["transaction_type"]) == ("debit", "purchase")
    assert (message(returned)["direction"], message(returned)["transaction_type"]) == ("credit", "refund")
    assert message(returned)["amount"] == "15.30"
    assert (guest.skipped, gift.skipped) == (True, True)


def test_sparkov_categories_are_codes_and_its_labels_come_a_week_later() -> None:
    (row,) = rows(
        "sparkov_transactions",
        {
            "transaction_id": 0, "ts": datetime.fromisoformat("2019-01-01T00:02:19"), "customer_id": 185,
            "merchant": "Tillman", "category": "grocery_net", "amt": 67.04,
            "merch_lat": 36.713, "merch_long": -80.285, "is_fraud": 1,
        },
    )  # fmt: skip
    assert (message(row)["merchant_category"], message(row)["channel"]) == ("5411", "ecommerce")
    assert row.transaction is not None
    assert row.label is not None
    assert row.label == ("fraud", row.transaction.event_time_ms + 7 * 86_400_000)
