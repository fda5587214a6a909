"""Messages against the contract, and nothing in them that could be a person's."""

import ipaddress
import re
from collections import Counter
from decimal import Decimal

import orjson
from hypothesis import given
from hypothesis import strategies as st

from generator.messages import money
from schemas.card_number import mask_card_numbers
from schemas.customer import Customer
from schemas.label import Label
from schemas.parse import parse_message
from schemas.transaction import Transaction

MODELS = {"transactions": Transaction, "labels": Label, "customers": Customer}


def test_every_message_is_accepted_by_its_schema(stream):
    for event in stream:
        parse_message(MODELS[event.topic], orjson.dumps(event.message))


def test_schemas_know_every_field_that_is_sent(stream):
    sent = {topic: set() for topic in MODELS}
    for event in stream:
        sent[event.topic] |= event.message.keys()
    for topic, model in MODELS.items():
        assert sent[topic] - {"schema_version"} <= model.model_fields.keys()


def test_no_run_of_digits_could_be_a_card_number(stream):
    for event in stream:
        raw = orjson.dumps(event.message)
        assert mask_card_numbers(raw) == raw


def test_optional_fields_are_there_as_a_bank_has_them(transactions):
    counts = Counter(field for event in transactions for field in event.message)
    total = len(transactions)
    for field in ("merchant_id", "card_token", "latitude"):
        assert 0.5 < counts[field] / total < 0.95
    for field in ("device_id", "ip_address", "counterparty_id"):
        assert 0.05 < counts[field] / total < 0.5
    assert counts["balance_after"] == total


def test_card_payments_in_a_shop_have_a_place_and_those_online_none(transactions):
    for event in transactions:
        if event.message.get("channel") in {"pos", "atm"}:
            assert event.message["card_present"] is True
            assert {"latitude", "longitude", "merchant_country"} <= event.message.keys()
        if event.message.get("channel") == "ecommerce" and event.typology is None:
            assert event.message["card_present"] is False


def test_balances_add_up(by_customer):
    for events in by_customer.values():
        balance = None
        for event in events:
            message = event.message
            amount, after = Decimal(message["amount"]), Decimal(message["balance_after"])
            assert amount > 0
            signed = amount if message["direction"] == "credit" else -amount
            assert balance is None or balance + signed == after
            balance = after


def test_money_inside_the_bank_arrives_where_it_was_sent(transactions):
    sent, received = Counter(), Counter()
    for event in transactions:
        message = event.message
        other = message.get("counterparty_id", "")
        if other.startswith("a"):
            if message["direction"] == "debit":
                sent[message["account_id"], other, message["amount"]] += 1
            else:
                received[other, message["account_id"], message["amount"]] += 1
    assert received
    assert received <= sent


def test_contact_data_is_visibly_made_up(stream):
    for event in stream:
        if event.topic == "customers":
            assert re.fullmatch(r"Customer \d+", event.message["name"])
            assert event.message["email"].endswith("@example.com")
            assert re.fullmatch(r"\+33 0\d \d{7}", event.message["phone"])


def test_addresses_belong_to_nobody(transactions):
    reserved = [
        ipaddress.ip_network(n) for n in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "198.18.0.0/15")
    ]
    seen = {event.message["ip_address"] for event in transactions if "ip_address" in event.message}
    assert all(any(ipaddress.ip_address(ip) in network for network in reserved) for ip in seen)


def test_devices_cards_and_customers_keep_their_own_ids(by_customer):
    owners: dict[str, set[str]] = {}
    for customer, events in by_customer.items():
        for event in events:
            if token := event.message.get("card_token"):
                owners.setdefault(token, set()).add(customer)
    assert all(len(customers) == 1 for customers in owners.values())


@given(st.integers(-(10**12), 10**12))
def test_money_keeps_every_cent(minor):
    assert Decimal(money(minor)) * 100 == minor
