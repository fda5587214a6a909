"""What counts of a history, and whether it reaches back far enough."""

import numpy as np
import pytest

from features import retention
from features.catalogue import FEATURES
from features.codec import History, Totals
from features.definitions import DAY_MS, MAX_WINDOW_MS, RETENTION_MS
from features.engine import Engine
from features.record import LABEL_KIND, RECORD, REPLACED_KIND, Records
from features.retention import history_cut, retained

NEWEST = 1_000 * DAY_MS
KEPT_FROM = NEWEST - RETENTION_MS
WHOLE_FROM = KEPT_FROM + MAX_WINDOW_MS


def records_at(*times: int) -> Records:
    records = np.zeros(len(times), dtype=RECORD)
    records["time_ms"] = times
    return records


def cut(records: Records, as_of_ms: int, first_ms: int, count: int, reach_ms: int = MAX_WINDOW_MS) -> bool:
    return history_cut(History(Totals(first_ms=first_ms, count=count), records), as_of_ms, reach_ms)


def test_engine_reaches_as_far_as_its_longest_window(engine: Engine) -> None:
    assert engine.reach_ms == engine._kernel.WINDOWS[-1] == MAX_WINDOW_MS
    assert Engine([f for f in FEATURES if f.name == "txn_count_1m"]).reach_ms == 60_000
    assert Engine([]).reach_ms == 0


def test_what_is_stored_longer_than_it_is_kept_does_not_count() -> None:
    records = records_at(KEPT_FROM - 1, KEPT_FROM, NEWEST)
    assert retained(records)["time_ms"].tolist() == [KEPT_FROM, NEWEST]
    assert len(retained(records[:0])) == 0


@pytest.mark.parametrize("stored", [1, 2], ids=["let go of", "still stored"])
def test_a_moment_is_cut_where_its_windows_begin_before_what_is_kept(stored: int) -> None:
    records = records_at(KEPT_FROM - 1, NEWEST)[-stored:]
    assert not cut(records, WHOLE_FROM, KEPT_FROM - 1, 2)
    assert cut(records, WHOLE_FROM - 1, KEPT_FROM - 1, 2)
    assert not cut(records, WHOLE_FROM - 1, KEPT_FROM - 1, 2, reach_ms=MAX_WINDOW_MS - 1)


def test_a_customer_younger_than_what_is_kept_is_never_cut() -> None:
    assert not cut(records_at(KEPT_FROM, NEWEST), WHOLE_FROM - 1, KEPT_FROM, 2)
    assert not cut(records_at(), NEWEST, 0, 0)


def test_what_is_kept_is_measured_from_transactions_and_not_from_labels() -> None:
    records = records_at(KEPT_FROM, NEWEST, NEWEST + 20 * DAY_MS)
    records["kind"][2] = LABEL_KIND
    assert not cut(records, WHOLE_FROM, 0, 9)
    records["kind"][2] = REPLACED_KIND
    assert cut(records, WHOLE_FROM, 0, 9)
    records["kind"] = LABEL_KIND
    assert not cut(records, WHOLE_FROM, 0, 9)


def test_as_many_events_as_are_kept_cut_too_where_there_were_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_EVENTS", 3)
    oldest = NEWEST - 100 * DAY_MS
    records = records_at(oldest, NEWEST - 1, NEWEST)
    moment = oldest + MAX_WINDOW_MS
    assert cut(records, moment, oldest, 4), "another of the same millisecond may be gone"
    assert not cut(records, moment + 1, oldest, 4)
    assert not cut(records, moment, oldest, 3), "all that ever were"
    assert cut(records_at(oldest - 1, *records["time_ms"].tolist()), moment, oldest - 1, 4)
    records["kind"][1] = LABEL_KIND
    assert not cut(records, moment, oldest, 4), "labels do not count"
