from collections.abc import Sequence
from decimal import Decimal

from features.codec import Totals
from features.engine import Engine
from features.totals import update_totals
from schemas.transaction import Transaction
from tests.scoring import arena_of, at, corrected, events


def totals_behind(engine: Engine, transactions: Sequence[Transaction], sizes: Sequence[int] = ()) -> Totals:
    """Of the one customer, whose transactions come in chunks of these sizes; the rest is one."""
    arena, start = arena_of("c-1"), 0
    for size in [*sizes, len(transactions)]:
        chunk = events(transactions[start : start + size])
        start += size
        slots = arena.slots([t.customer_id for t in chunk.transactions])
        features = engine.compute_chunk(arena, chunk.records, slots)
        update_totals(arena, chunk.records, slots, features)
    return arena.totals(arena.slot("c-1"))


def test_totals_count_each_accepted_transaction_once(engine: Engine) -> None:
    chunk = [
        at(1, amount="10.00"),
        at(0.5, amount="2.50"),
        at(1, amount="10.00"),
        at(2, amount="100.00", direction="credit"),
    ]
    totals = totals_behind(engine, chunk)
    assert (totals.count, totals.debit_minor, totals.credit_minor) == (3, 1250, 10_000)
    assert totals.first_ms == chunk[1].event_time_ms


def test_totals_of_no_rows_stay(engine: Engine) -> None:
    assert totals_behind(engine, []) == Totals()


def test_totals_are_as_corrected(engine: Engine) -> None:
    first, second = at(1, amount="10.00"), at(2, amount="2.50")
    wrong_way = corrected(first, 1, direction="credit", event_time=at(3).event_time)
    right = corrected(wrong_way, 2, amount=Decimal("7.00"))
    for sizes in ([], [1] * 4):
        totals = totals_behind(engine, [first, second, wrong_way, right], sizes)
        assert (totals.count, totals.debit_minor, totals.credit_minor) == (2, 250, 700)
        assert totals.first_ms == second.event_time_ms
