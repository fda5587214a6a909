"""What only a message says, as columns of a vector."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.arena import HistoryArena
from features.attributes import attribute_features, attribute_values, names_of
from features.codec import History
from features.engine import Engine
from features.record import to_records
from models.churn import is_customer_feature
from schemas.errors import ConfigError, EventError
from schemas.parse import dump, parse_message
from schemas.transaction import Transaction
from schemas.wire import read_transaction
from tests.scoring import at

CHOSEN = attribute_features("risk,domain,vip,balance_before,balance_after")
NAMES = [feature.name for feature in CHOSEN]


def row(**fields: Any) -> dict[str, float]:
    (values,) = attribute_values(CHOSEN, [at(1, **fields)]).tolist()
    return dict(zip(NAMES, values, strict=True))


def test_numbers_are_themselves_flags_are_0_or_1_and_texts_are_codes() -> None:
    found = row(attributes={"risk": 3, "vip": True, "domain": "example.org"})
    assert (found["attribute_risk"], found["attribute_vip"]) == (3.0, 1.0)
    assert 0 <= found["attribute_domain"] < 2**24
    again = row(attributes={"domain": "example.org"})["attribute_domain"]
    other = row(attributes={"domain": "example.com"})["attribute_domain"]
    assert found["attribute_domain"] == again != other
    assert float(np.float32(again)) == again, "models read 32 bits"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3.0),
        (" 0012 ", 12.0),
        ("-1.5e2", -150.0),
        ("1e9999", 1e30),
        ("True", 1.0),
        ("false", 0.0),
        ("", np.nan),
        ("  ", np.nan),
    ],
)
def test_a_text_that_is_a_number_or_a_flag_is_that_as_in_a_file(text: str, value: float) -> None:
    assert row(attributes={"risk": text})["attribute_risk"] == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("text", ["nan", "inf", "1,5", "0x10", "1_0", "\u0663", "12 34", "yes"])
def test_what_only_looks_like_a_number_is_a_code(text: str) -> None:
    code = row(attributes={"risk": text})["attribute_risk"]
    assert code == int(code)
    assert code == row(attributes={"risk": f" {text} "})["attribute_risk"]


def test_what_a_message_does_not_say_is_unknown() -> None:
    for fields in ({}, {"attributes": {}}, {"attributes": {"other": 1, "risk": None}}):
        assert np.isnan(list(row(**fields).values())).all()


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({"balance_before": "50.00"}, 0.25),
        ({"balance_before": "50.00", "balance_after": "1000"}, 0.25),
        ({"balance_after": "0.00"}, 1.0),
        ({"balance_after": "37.50", "direction": "credit"}, 0.5),
        ({"balance_after": "12.50", "direction": "credit"}, np.nan),
        ({"balance_before": "0"}, np.nan),
        ({"balance_before": "-5"}, np.nan),
        ({}, np.nan),
    ],
)
def test_the_share_of_the_balance_is_of_the_one_before(fields: dict[str, str], share: float) -> None:
    assert row(amount="12.50", **fields)["amount_to_balance"] == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize(
    ("fields", "gap"),
    [
        ({"balance_before": "50.10", "balance_after": "37.60"}, 0),
        ({"balance_before": "50.10", "balance_after": "62.60", "direction": "credit"}, 0),
        ({"balance_before": "50.10", "balance_after": "50.10"}, -12.5),
        ({"balance_before": "0", "balance_after": "0", "direction": "credit"}, 12.5),
        ({"balance_before": "50.10"}, np.nan),
        ({"balance_after": "50.10"}, np.nan),
    ],
)
def test_the_gap_is_what_balances_and_amount_leave(fields: dict[str, str], gap: float) -> None:
    assert row(amount="12.50", **fields)["balance_gap"] == pytest.approx(gap, nan_ok=True, abs=0)


@given(
    st.dictionaries(
        st.sampled_from(["risk", "domain", "vip"]),
        st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8) | st.none(),
    ),
    st.decimals(-(10**9), 10**9, places=2),
)
def test_both_readers_of_messages_give_the_same_finite_values(said: dict[str, Any], balance: Any) -> None:
    raw = dump(
        {
            "transaction_id": "t",
            "customer_id": "c",
            "event_time": "2026-03-01T10:00:00Z",
            "amount": "1.00",
            "currency": "EUR",
            "balance_before": str(balance),
            "balance_after": str(balance / 3),
            "attributes": said,
        }
    )
    try:
        slow = attribute_values(CHOSEN, [parse_message(Transaction, raw)])
    except EventError:
        # Some numbers look like a card's.
        assert read_transaction(raw) is None
        return
    assert np.isfinite(slow.astype(np.float32)[~np.isnan(slow)]).all()
    if (quick := read_transaction(raw)) is not None:
        assert attribute_values(CHOSEN, [quick[0]]).tobytes() == slow.tobytes()


def test_columns_stand_between_those_of_history_and_those_of_entities() -> None:
    plain = Engine()
    engine = Engine(attributes=CHOSEN)
    assert engine.names[: len(plain.names)] == plain.names
    assert list(engine.names[engine.attribute_columns]) == NAMES
    assert engine.hash.startswith(plain.hash)
    assert engine.hash != plain.hash
    assert engine.hash != Engine(attributes=CHOSEN[1:]).hash
    assert not any(is_customer_feature(feature) for feature in engine.attributes)


def test_the_engine_itself_leaves_them_unknown() -> None:
    engine, arena = Engine(attributes=CHOSEN), HistoryArena()
    slots = np.array([arena.put("c-1", History.empty())])
    X = engine.compute_chunk(arena, to_records([at(1)], [1250]), slots).X
    assert np.isnan(X[:, engine.attribute_columns]).all()
    assert not np.isnan(X[0, engine.names.index("amount")])


def test_names_are_chosen_in_any_order_and_come_back_in_one() -> None:
    chosen = attribute_features(" risk, balance_after ,vip,risk")
    assert names_of(chosen) == ("balance_after", "risk", "vip")
    assert attribute_features(",".join(names_of(chosen))) == chosen
    assert attribute_features("") == attribute_features("none") == ()
    names = [feature.name for feature in chosen]
    assert all(one != other for one, other in pairwise(sorted(names)))


@pytest.mark.parametrize("name", ["Risk", "1st", "a-b", "x" * 49, "risk;vip"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="lower-case letters"):
        attribute_features(f"risk,{name}")
