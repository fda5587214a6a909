import json
from datetime import UTC, datetime

import pytest

from infra.event_files import event_row
from models import messages
from models.pipeline import score_chunk
from schemas.erasure import erased_name
from schemas.fields import to_epoch_ms
from sink.batch import Batch
from sink.erasures import Erasures
from sink.join import Joined
from tests.scoring import arena_of, at, events


def joined(offset, transaction, proba, decision):
    score = {
        "score": proba,
        "decision": decision,
        "flags": [],
        "reasons": [],
        "model": {"version": "v1"},
        "scored_at": "2026-01-01T00:00:00.000Z",
    }
    return Joined(offset, transaction, score)


def test_a_customers_activity_adds_up_and_the_newest_event_counts():
    batch = Batch()
    late, early, newest = (at(day, customer_id="c-1") for day in (2.0, 1.0, 3.0))
    batch.add(joined(0, late, 0.2, "allow"), 0, event_row)
    batch.add(joined(1, newest, 0.9, "block"), 0, event_row)
    batch.add(joined(2, early, 0.5, "review"), 0, event_row)
    batch.add(joined(3, at(1.0, customer_id="c-2"), 0.1, "allow"), 0, event_row)
    assert batch.activity["c-1"] == {
        "first_event_ms": early.event_time_ms,
        "last_event_ms": newest.event_time_ms,
        "transactions": 3,
        "flagged": 2,
        "blocked": 1,
        "last_score": 0.9,
        "last_decision": "block",
    }
    assert batch.activity["c-2"]["transactions"] == 1
    assert [row["offset"] for row in batch.rows] == [0, 1, 2, 3]


def test_a_row_holds_the_transaction_and_the_score_as_published(eager):
    transaction = at(4.0, merchant_id="m-1", channel="pos", ip_address="10.1.2.3", card_present=True)
    chunk = events([transaction])
    scored = score_chunk(arena_of("c-1"), chunk, eager)
    score = messages.fraud_score(
        chunk, scored, 0, eager, scored_at="2026-01-02T00:00:00.000Z", source={"offset": 7}
    )
    batch = Batch()
    batch.add(Joined(7, transaction, json.loads(json.dumps(score))), 3, event_row)
    (row,) = batch.rows
    assert row["score"] == score["score"]
    assert (row["partition"], row["offset"], row["amount_minor"]) == (3, 7, 1250)
    assert (row["merchant_id"], row["credit"], row["card_present"]) == ("m-1", False, True)
    assert "10.1.2.3" not in str(row)


def churn(customer, as_of, proba):
    return json.dumps(
        {
            "customer_id": customer,
            "as_of": as_of,
            "scored_at": as_of,
            "churn_probability": proba,
            "band": "low",
            "horizon_days": 30,
            "model": {"name": "churn", "version": "v1"},
            "value_at_risk": 10.0,
            "recommended_action": "none",
        }
    ).encode()


def test_of_churn_scores_the_latest_moment_counts_whatever_their_order():
    batch = Batch()
    for as_of, proba in (("2026-01-02T00:00:00Z", 0.4), ("2026-01-01T00:00:00Z", 0.9)):
        batch.add_churn(churn("c-1", as_of, proba))
    assert batch.churn["c-1"]["churn_probability"] == 0.4


def test_a_corrected_transaction_counts_once_as_in_its_customers_history():
    batch = Batch()
    first, again = at(1.0, customer_id="c-1"), at(1.5, customer_id="c-1")
    batch.add(joined(0, first, 0.2, "allow"), 0, event_row)
    correction = joined(1, again, 0.9, "block")
    batch.add(Joined(1, again, correction.score | {"flags": ["corrected"]}), 0, event_row)
    assert len(batch.rows) == 2
    mine = batch.activity["c-1"]
    assert (mine["transactions"], mine["blocked"], mine["last_decision"]) == (1, 1, "block")


@pytest.mark.parametrize("bad", [None, b"{", b"[]", b"{}"])
def test_what_cannot_be_read_is_counted_and_changes_nothing(bad):
    batch = Batch()
    batch.add_churn(bad)
    assert (batch.unreadable, batch.churn) == (1, {})


def test_a_profile_is_kept_without_contact_data_and_taken_back_by_a_null():
    batch = Batch()
    profile = {"customer_id": "c-1", "country": "FR", "segment": "retail", "name": "Somebody", "email": "a@b"}
    batch.add_profile(b"c-1", json.dumps(profile).encode(), 1_000)
    assert batch.profiles == {
        "c-1": {"country": "FR", "segment": "retail", "opened_on": "", "profile_ms": 1_000}
    }
    batch.add_profile(b"c-1", None, 1_000)
    assert batch.profiles == {"c-1": {"country": "", "segment": "", "opened_on": "", "profile_ms": 1_000}}
    batch.add_profile(None, b"no json", 1_000)
    batch.add_profile(b"", None, 1_000)
    # Nothing is not null: the worker refuses it and keeps the profile.
    batch.profiles.clear()
    batch.add_profile(b"c-1", json.dumps(profile).encode(), 1_000)
    batch.add_profile(b"c-1", b"", 1_000)
    assert batch.profiles["c-1"]["country"] == "FR"
    assert batch.unreadable == 2
    assert set(batch.profiles) == {"c-1"}


def erasure(customer, at_ms):
    return json.dumps({"erasure_id": "e-1", "customer_id": customer, "requested_at": at_ms}).encode()


def test_an_erasure_takes_what_waits_and_what_comes_later_until_its_time():
    batch = Batch()
    old, new, other = at(1.0, customer_id="c-1"), at(200.0, customer_id="c-1"), at(1.0, customer_id="c-2")
    # Scored on the first of January 2026; the events are of September 2025 and of March 2026.
    until_ms = to_epoch_ms(datetime(2026, 1, 10, tzinfo=UTC))
    late = {"scored_at": "2026-03-20T00:00:00.000Z"}
    for offset, transaction in enumerate((old, other)):
        batch.add(joined(offset, transaction, 0.2, "allow"), 0, event_row)
    batch.add_churn(churn("c-1", "2026-01-02T00:00:00Z", 0.4))
    batch.add_profile(b"c-1", json.dumps({"customer_id": "c-1", "country": "FR"}).encode(), until_ms)
    batch.add_erasure(erasure("c-1", until_ms), until_ms)
    assert (list(batch.activity), batch.churn, batch.profiles, batch.erased) == (["c-2"], {}, {}, 3)
    batch.add(joined(2, old, 0.2, "allow"), 0, event_row)
    batch.add_churn(churn("c-1", "2026-01-09T00:00:00Z", 0.4))
    batch.add_profile(b"c-1", json.dumps({"customer_id": "c-1", "country": "FR"}).encode(), until_ms)
    assert (list(batch.activity), batch.churn, batch.profiles, batch.erased) == (["c-2"], {}, {}, 6)
    again = joined(3, new, 0.2, "allow")
    batch.add(Joined(3, again.transaction, again.score | late), 0, event_row)
    batch.add_profile(b"c-1", json.dumps({"customer_id": "c-1", "country": "IT"}).encode(), until_ms + 1)
    assert batch.activity["c-1"]["transactions"] == 1
    assert batch.profiles["c-1"]["country"] == "IT"
    assert batch.erasures.take() == {"c-1": until_ms}
    assert batch.erasures.take() == {}


def test_an_older_request_does_not_take_back_a_newer_one_and_no_request_is_counted():
    until_ms = to_epoch_ms(datetime(2026, 1, 10, tzinfo=UTC))
    batch = Batch(Erasures({erased_name("c-1"): until_ms}))
    batch.add_erasure(erasure("c-1", until_ms - 400), until_ms)
    assert batch.erasures.pending == {"c-1": until_ms}
    for bad in (None, b"{}", b"no json", erasure("c-1", until_ms + 2 * 86_400_000)):
        batch.add_erasure(bad, until_ms)
    assert batch.unreadable == 4
    assert batch.erasures.take() == {"c-1": until_ms}


def test_a_profile_with_a_card_number_in_it_is_left_out_as_the_worker_does():
    number = "4" + "1" * 15
    batch = Batch()
    batch.add_profile(b"c-1", json.dumps({"customer_id": "c-1", "segment": number}).encode(), 1)
    assert (batch.profiles, batch.unreadable) == ({}, 1)


def test_a_score_that_makes_no_row_is_counted_and_the_others_are_kept():
    batch = Batch()
    odd = joined(0, at(1.0), 0.2, "allow")
    batch.add(Joined(0, odd.transaction, odd.score | {"scored_at": 1_767_225_600_000}), 0, event_row)
    batch.add(joined(1, at(1.0), 0.2, "allow"), 0, event_row)
    assert ([row["offset"] for row in batch.rows], batch.unreadable) == ([1], 1)
