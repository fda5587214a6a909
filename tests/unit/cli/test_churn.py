from dataclasses import replace

import numpy as np
import pytest

from cli.churn import ChurnTraining, churn_rows_of
from cli.console import progress
from cli.file_log import corrections
from models.log_rows import rows_of_messages
from schemas.errors import ConfigError
from schemas.fields import epoch_ms_to_rfc3339
from tests.scoring import DAY_MS, START, at

START_MS = int(START.timestamp() * 1000)
PLAN = ChurnTraining("file", 10, None, None, (), 7)


def log(engine, *extra, days=60):
    sent = [at(d + 0.5, customer_id=f"c-{n}") for d in range(days) for n in range(3)]
    return rows_of_messages([*sent, *extra], engine)


def looked_at(plan, rows, engine):
    with progress() as bar:
        return churn_rows_of(plan, rows, engine, bar)


def test_what_is_before_from_is_history_and_no_cut_off(engine):
    rows = log(engine)
    everything = looked_at(PLAN, rows, engine)
    late = looked_at(replace(PLAN, from_ms=START_MS + 30 * DAY_MS), rows, engine)
    kept = everything.as_of_ms >= START_MS + 30 * DAY_MS
    assert 0 < len(late.as_of_ms) < len(everything.as_of_ms)
    np.testing.assert_array_equal(late.X, everything.X[kept])


def test_transactions_are_counted_by_currency(engine):
    rows = log(engine, at(20.6, customer_id="c-1", currency="USD"))
    assert looked_at(PLAN, rows, engine).currencies == {"EUR": 180, "USD": 1}


def test_a_span_without_room_for_a_cut_off_says_what_there_must_be(engine):
    with pytest.raises(ConfigError, match=r"there must be 10 before it .*cut-offs of your own"):
        looked_at(PLAN, log(engine, days=12), engine)


def test_a_stray_late_date_is_pointed_out(engine, capsys):
    looked_at(PLAN, log(engine), engine)
    assert "wrong dates" not in capsys.readouterr().err
    looked_at(PLAN, log(engine, at(200)), engine)
    said = " ".join(capsys.readouterr().err.split())
    assert f"end at {epoch_ms_to_rfc3339(START_MS + 201 * DAY_MS)}" in said


def test_more_customers_than_are_needed_are_drawn_from(engine, monkeypatch, capsys):
    everything = looked_at(PLAN, log(engine), engine)
    monkeypatch.setattr("cli.churn.MOST_ROWS", len(everything.as_of_ms) // 2)
    some = looked_at(PLAN, log(engine), engine)
    assert 0 < len(some.as_of_ms) < len(everything.as_of_ms)
    assert "drawn at random" in capsys.readouterr().err


def test_rows_of_one_invoice_are_counted_and_those_of_two_customers_are_not(engine):
    lines = [
        at(1 + n, transaction_id="i-1", amount=amount) for n, amount in enumerate(("1.00", "2.00", "2.00"))
    ]
    other = at(5, transaction_id="i-1", amount="9.00", customer_id="c-2")
    assert corrections(rows_of_messages([*lines, other], engine)) == 1
    assert corrections(rows_of_messages([at(1), at(2)], engine)) == 0


def test_who_closes_the_account_leaves_and_is_not_looked_at_again(engine):
    rows = log(engine)
    closed_ms = START_MS + 35 * DAY_MS
    told = looked_at(PLAN, replace(rows, closed_ms={"c-1": closed_ms}), engine)
    mine = np.array([customer_id == "c-1" for customer_id in told.customer_ids])
    assert told.as_of_ms[mine].max() <= closed_ms < told.as_of_ms[~mine].max()
    leaves = told.as_of_ms + 10 * DAY_MS > closed_ms
    np.testing.assert_array_equal(told.churned[mine], leaves[mine])
    assert not told.churned[~mine].any()
    assert not looked_at(PLAN, rows, engine).churned.any()
