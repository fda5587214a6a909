"""A worker in memory is run, and then one of its stored histories is changed."""

import pytest

from features.codec import History, decode, encode
from models.differences import retained
from models.model_set import Models
from tests.streaming import Stream
from tests.verifying import histories, verified


@pytest.mark.parametrize("name", ["time_ms", "amount_minor", "merchant", "kind", "revision"])
async def test_one_flipped_bit_of_a_stored_record_is_found_and_named(
    written: Stream, models: Models, name: str
) -> None:
    state = await written.store.read("c-1")
    assert state is not None
    healthy = decode(state.history)
    records = healthy.records.copy()
    records[name][3] ^= 1
    tally, rebuild = verified(written, models)
    await histories(written, rebuild, c_1=encode(History(healthy.totals, records)))
    first = tally.first
    assert tally.differences == 1
    assert first is not None
    assert (first.kind, first.customer_id) == ("history", "c-1")
    assert first.values[f"record 3 {name}"] == (int(records[name][3]), int(healthy.records[name][3]))
    assert len(first.history) == len(retained(healthy.records))


async def test_lost_unreadable_and_foreign_histories_are_found(written: Stream, models: Models) -> None:
    _, rebuild = verified(written, models)
    tally = rebuild._tally
    state = await written.store.read("c-1")
    assert state is not None
    rebuild.compare_history("c-1", None, state.churn)
    rebuild.compare_history("c-1", (state.history or b"")[:-3], state.churn)
    rebuild.compare_history("c-0", state.history, state.churn)
    rebuild.compare_history("c-unheard-of", state.history, state.churn)
    assert tally.differences == 4
    # And a churn score that is not the one the header speaks of.
    rebuild.compare_history("c-1", state.history, None)
    assert tally.differences == 5
