"""The engine equals recomputing every feature from the raw messages, whatever order they come in."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, example, given, note
from hypothesis import strategies as st

from features import arena as arena_module
from features import engine as engine_module
from features import kernels
from features.arena import HistoryArena
from features.catalogue import FEATURES
from features.codec import History, Totals, decode, encode, encode_header
from features.definitions import DAY_MS, LATENESS_MS, MAX_EVENTS, RETENTION_MS
from features.engine import Engine
from features.record import Records, label_record, to_records
from schemas.label import Label
from schemas.transaction import Transaction
from tests.examples import examples
from tests.parity.oracle import is_correction, is_duplicate, naive_features, remembered
from tests.parity.streams import HOUR_MS, MINUTE_MS, Stream, streams, transaction
from tests.parity.values import differences

START_MS = 1_773_230_400_000  # 2026-03-11T12:00:00Z


def record_of(message: Transaction | Label) -> Records:
    if isinstance(message, Label):
        return label_record(message)
    return to_records([message], [message.amount_minor])


def records_of(events: Sequence[Transaction]) -> Records:
    return to_records(events, [event.amount_minor for event in events])


@dataclass
class Replay:
    """One customer's stream through the engine, in chunks, with disturbances in between."""

    engine: Engine
    arena: HistoryArena = field(default_factory=lambda: HistoryArena())
    stored: bytes = encode_header(Totals())
    rows: list[np.ndarray] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.arena.put("c-1", History.empty())

    def chunk(self, events: Sequence[Transaction]) -> None:
        records = records_of(events)
        slots = np.full(len(events), self.arena.slot("c-1"), dtype=np.int64)
        found = self.engine.compute_chunk(self.arena, records, slots)
        self.rows += list(found.X)
        self.status += found.status.tolist()
        self.flags += found.flags.tolist()
        self.stored += records[found.status == kernels.ACCEPTED].tobytes()

    def label(self, label: Label) -> None:
        record = label_record(label)
        self.arena.insert(self.arena.slot("c-1"), record)
        self.stored += record.tobytes()

    def disturb(self, how: str) -> None:
        slot = self.arena.slot("c-1")
        if how == "prune":
            self.arena.prune(slot)
        elif how == "reload":
            self.arena.drop("c-1")
            self.arena.put("c-1", decode(self.stored))
        elif how == "reload the pruned":
            self.arena.prune(slot)
            self.stored = encode(History(self.arena.totals(slot), self.arena.records(slot)))
            self.arena.drop("c-1")
            self.arena.put("c-1", decode(self.stored))
        elif how == "neighbours":
            for number in range(8):
                noise = records_of([transaction(n, START_MS + n) for n in range(3 * number)])
                self.arena.put(f"n-{number}", History(Totals(), noise))
            for number in range(0, 8, 2):
                self.arena.drop(f"n-{number}")

    def run(self, stream: Stream, cuts: Sequence[int] = (), disturbances: Sequence[str] = ()) -> "Replay":
        size, disturbance = iter(cuts), iter(disturbances)
        waiting: list[Transaction] = []
        longest = next(size, 1)
        for message in (*stream, None):
            if waiting and (message is None or isinstance(message, Label) or len(waiting) >= longest):
                self.chunk(waiting)
                waiting, longest = [], next(size, 1)
                self.disturb(next(disturbance, ""))
            if isinstance(message, Label):
                self.label(message)
            elif message is not None:
                waiting.append(message)
        return self


def events_in(stream: Stream) -> list[Transaction]:
    return [message for message in stream if isinstance(message, Transaction)]


def pasts(events: Sequence[Transaction]) -> Iterator[tuple[list[Transaction], Transaction]]:
    for number, event in enumerate(events):
        yield list(events[:number]), event


def same_bits(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    return np.array(one).tobytes() == np.array(other).tobytes()


# The main test has the profile's number of examples, its variations half of that unless it asks for many.
fewer = examples(100)
CUTS = st.lists(st.integers(1, 12), max_size=40)
DISTURBANCES = st.lists(
    st.sampled_from(["", "prune", "reload", "reload the pruned", "neighbours"]), max_size=60
)


@given(stream=streams(), cuts=CUTS, disturbances=DISTURBANCES)
def test_chunks_equal_recomputing_from_raw_events(engine, stream, cuts, disturbances):
    replay = Replay(engine).run(stream, cuts, disturbances)

    assert len(replay.rows) == len(events_in(stream))
    for (past, event), row, status in zip(pasts(events_in(stream)), replay.rows, replay.status, strict=True):
        note(f"{event!r}")
        if is_duplicate(past, event):
            assert status == kernels.DUPLICATE
            assert np.isnan(row).all()
        else:
            assert status == kernels.ACCEPTED
            expected = naive_features(FEATURES, past, event, event.event_time_ms)
            assert differences(FEATURES, row, expected) == []


@fewer
@given(stream=streams(), cuts=CUTS, disturbances=DISTURBANCES)
def test_chunking_pruning_and_reloading_change_no_bit(engine, stream, cuts, disturbances):
    plain = Replay(engine).run(stream)
    disturbed = Replay(engine).run(stream, cuts, disturbances)

    assert same_bits(plain.rows, disturbed.rows)
    assert plain.status == disturbed.status
    assert plain.flags == disturbed.flags


@fewer
@given(stream=streams())
def test_labels_change_no_feature_and_no_flag(engine, stream):
    with_labels = Replay(engine).run(stream)
    without = Replay(engine).run(tuple(events_in(stream)))

    assert same_bits(with_labels.rows, without.rows)
    assert with_labels.status == without.status
    assert with_labels.flags == without.flags


@given(
    stream=streams(),
    behind_ms=st.one_of(st.integers(-DAY_MS, 40 * DAY_MS), st.sampled_from([0, 1, HOUR_MS])),
)
def test_lookup_as_of_any_moment_equals_the_oracle(engine, stream, behind_ms):
    replay = Replay(engine).run(stream)
    history = replay.arena.records(replay.arena.slot("c-1"))
    events = events_in(stream)
    as_of_ms = max(event.event_time_ms for event in events) - behind_ms

    found = engine.compute(history, None, as_of_ms)

    assert differences(FEATURES, found, naive_features(FEATURES, events, None, as_of_ms)) == []


@fewer
@given(stream=streams())
def test_synchronous_score_equals_the_oracle_and_the_stream(engine, stream):
    last = events_in(stream)[-1]
    earlier = tuple(m for m in stream if m is not last)
    replay = Replay(engine).run(earlier)
    slot = replay.arena.slot("c-1")
    history = replay.arena.records(slot).copy()

    # Of a transaction that came before, as the API asks: without it.
    itself = history["transaction"] == record_of(last)["transaction"]
    # What counts is measured from the newest: without it, what is only not yet let go would count again.
    times = history["time_ms"]
    assume(not itself.any() or times.min() >= times.max() - RETENTION_MS)
    others = history[~itself]
    found = engine.compute(others, record_of(last), last.event_time_ms)

    expected = naive_features(FEATURES, events_in(earlier), last, last.event_time_ms)
    assert differences(FEATURES, found, expected) == []
    assert history.tobytes() == replay.arena.records(slot).tobytes(), "a lookup changes nothing"


@fewer
@given(first=streams(12), second=streams(12), order=st.lists(st.booleans(), max_size=40))
def test_customers_in_one_chunk_do_not_touch_each_other(engine, first, second, order):
    queues = [events_in(first), events_in(second)]
    mixed: list[tuple[int, Transaction]] = []
    for which in [*order, *[False] * len(queues[0]), *[True] * len(queues[1])]:
        if queues[which]:
            mixed.append((int(which), queues[which].pop(0)))
    arena = HistoryArena()
    slots = [arena.put("a", History.empty()), arena.put("b", History.empty())]
    records = records_of([event for _, event in mixed])

    found = engine.compute_chunk(arena, records, np.array([slots[which] for which, _ in mixed]))

    for number, stream in enumerate((first, second)):
        alone = Replay(engine).run(tuple(events_in(stream)))
        mine = [i for i, (which, _) in enumerate(mixed) if which == number]
        assert same_bits(list(found.X[mine]), alone.rows)
        assert found.status[mine].tolist() == alone.status
        assert found.flags[mine].tolist() == alone.flags


@fewer
@given(stream=streams(), cuts=CUTS, disturbances=DISTURBANCES, max_events=st.integers(1, 6))
@example(
    stream=tuple(transaction(n, START_MS + n) for n in range(8)),
    cuts=[8],
    disturbances=[],
    max_events=3,
)
def test_more_events_than_are_kept_leave_the_newest(engine, stream, cuts, disturbances, max_events):
    with (
        mock.patch.object(engine_module, "MAX_EVENTS", max_events),
        mock.patch.object(arena_module, "MAX_EVENTS", max_events),
    ):
        plain = Replay(engine).run(stream)
        disturbed = Replay(engine).run(stream, cuts, disturbances)

    assert same_bits(plain.rows, disturbed.rows)
    assert plain.flags == disturbed.flags
    for (past, event), row, status in zip(pasts(events_in(stream)), plain.rows, plain.status, strict=True):
        duplicate = is_duplicate(past, event, max_events)
        assert status == (kernels.DUPLICATE if duplicate else kernels.ACCEPTED)
        if not duplicate:
            expected = naive_features(FEATURES, past, event, event.event_time_ms, max_events)
            assert differences(FEATURES, row, expected) == []


@fewer
@given(stream=streams())
def test_flags_say_what_a_score_could_not_know(engine, stream):
    replay = Replay(engine).run(stream)
    accepted: list[Transaction] = []
    for event, status, flags in zip(events_in(stream), replay.status, replay.flags, strict=True):
        if status == kernels.DUPLICATE:
            continue
        newest_ms = max((e.event_time_ms for e in accepted), default=0)
        behind_ms = newest_ms - event.event_time_ms
        known = [
            f
            for f in remembered(accepted, event.event_time_ms)
            if f.time_ms < event.event_time_ms and f.transaction_id != event.transaction_id
        ]
        assert bool(flags & kernels.FLAG_CORRECTED) == is_correction(accepted, event)
        assert bool(flags & kernels.FLAG_LATE) == (behind_ms > 0)
        assert bool(flags & kernels.FLAG_COLD_START) == (not known)
        # [------------- kept: 120 d -------------) newest
        #      [------- window: 90 d -------) event up to 30 d behind it: all of the window is there
        assert bool(flags & kernels.FLAG_HISTORY_CUT) == (behind_ms > LATENESS_MS)
        accepted.append(event)


def test_late_event_beyond_the_retention_is_flagged_and_changes_no_later_feature(engine):
    on_time = [transaction(0, START_MS), transaction(1, START_MS + HOUR_MS)]
    too_late = transaction("late", START_MS - RETENTION_MS - 1)
    after = transaction(2, START_MS + 2 * HOUR_MS)

    disturbed = Replay(engine).run((*on_time, too_late, after))
    plain = Replay(engine).run((*on_time, after))

    assert disturbed.status == [kernels.ACCEPTED] * 4
    assert disturbed.flags[2] == kernels.FLAG_LATE | kernels.FLAG_COLD_START | kernels.FLAG_HISTORY_CUT
    assert same_bits(disturbed.rows[3:], plain.rows[2:])
    assert len(disturbed.arena.records(disturbed.arena.slot("c-1"))) == 3


def test_ten_thousand_events_in_a_burst_equal_the_oracle_at_the_end(engine):
    # A script went wild: 10,000 payments in 50 s, then one a day later.
    events = [
        transaction(
            n,
            START_MS + 5 * n,
            amount=f"{1 + n % 977}.{n % 100:02d}",
            merchant_id=f"m-{n % 3000}",
            device_id=f"d-{n % 7}",
            currency="USD" if n % 10 == 0 else "EUR",
            direction="credit" if n % 13 == 0 else "debit",
            transaction_type="transfer" if n % 4 == 0 else None,
            counterparty_id=f"p-{n}",
        )
        for n in range(10_000)
    ]
    events.append(transaction("next", START_MS + DAY_MS, merchant_id="m-1", device_id="d-new"))

    replay = Replay(engine).run(tuple(events), cuts=[4096] * 3)

    assert set(replay.status) == {kernels.ACCEPTED}
    for number in (9_998, 9_999, 10_000):
        event = events[number]
        expected = naive_features(FEATURES, events[:number], event, event.event_time_ms)
        assert differences(FEATURES, replay.rows[number], expected) == []
    reloaded = decode(replay.stored).records
    assert reloaded.tobytes() == replay.arena.records(replay.arena.slot("c-1")).tobytes()


def test_history_longer_than_is_kept_is_cut_flagged_and_bounded(engine):
    events = [transaction(n, START_MS + 1000 * n, amount=f"{1 + n % 50}") for n in range(MAX_EVENTS + 200)]
    events.append(transaction(0, START_MS + 1000 * len(events)))  # the first id again, long forgotten

    replay = Replay(engine).run(tuple(events), cuts=[1000] * 20, disturbances=["prune", "reload"] * 10)

    full = [bool(flags & kernels.FLAG_HISTORY_CUT) for flags in replay.flags]
    assert full == [False] * MAX_EVENTS + [True] * 201
    assert replay.status[-1] == kernels.ACCEPTED
    expected = naive_features(FEATURES, events[:-1], events[-1], events[-1].event_time_ms)
    assert expected["txn_count_90d"] == MAX_EVENTS
    assert differences(FEATURES, replay.rows[-1], expected) == []


@pytest.mark.parametrize(
    ("gap_ms", "counted"),
    [
        # t - 1m                t
        #  [----------------------)
        (MINUTE_MS + 1, 0),
        (MINUTE_MS, 1),
        (1, 1),
        (0, 0),
    ],
)
def test_window_holds_its_start_and_not_its_end(engine, gap_ms, counted):
    replay = Replay(engine).run((transaction(0, START_MS), transaction(1, START_MS + gap_ms)))

    assert replay.rows[1][engine.names.index("txn_count_1m")] == counted


def test_windows_emptied_since_the_last_event_read_as_empty(engine):
    history = records_of([transaction(0, START_MS), transaction(1, START_MS + 1)])
    row = dict(zip(engine.names, engine.compute(history, None, START_MS + 8 * DAY_MS), strict=True))

    assert (row["txn_count_7d"], row["txn_count_30d"]) == (0, 2)
    assert (row["amount_sum_7d"], row["amount_sum_30d"]) == (0, 20)
    assert math.isnan(row["amount_mean_7d"])


def test_customer_never_seen_has_empty_windows_and_unknown_statistics(engine):
    empty = History.empty().records
    row = dict(zip(engine.names, engine.compute(empty, None, START_MS), strict=True))

    assert row["txn_count_90d"] == 0
    assert row["amount_sum_90d"] == 0
    assert math.isnan(row["amount_mean_90d"])
    assert math.isnan(row["amount"])


def test_lookup_does_not_know_what_compares_with_an_event(engine):
    history = records_of([transaction(0, START_MS, merchant_id="m-1", device_id="d-1")])
    row = dict(zip(engine.names, engine.compute(history, None, START_MS + 1), strict=True))

    for name in (
        "same_merchant_count_24h",
        "merchant_is_new_90d",
        "same_country_share_30d",
        "amount_zscore_30d",
    ):
        assert math.isnan(row[name]), name


def test_event_without_a_merchant_is_not_at_the_same_merchant_as_another_without_one(engine):
    replay = Replay(engine).run((transaction(0, START_MS), transaction(1, START_MS + 1)))
    row = dict(zip(engine.names, replay.rows[1], strict=True))

    assert math.isnan(row["same_merchant_count_24h"])
    assert math.isnan(row["time_since_merchant_s"])


def test_staying_in_place_is_a_distance_of_exactly_zero(engine):
    paris = {"latitude": 48.8566, "longitude": 2.3522}
    replay = Replay(engine).run((transaction(0, START_MS, **paris), transaction(1, START_MS + 1, **paris)))
    row = dict(zip(engine.names, replay.rows[1], strict=True))

    assert (row["distance_from_last_km"], row["speed_from_last_kmh"]) == (0.0, 0.0)


def test_zscore_of_large_amounts_keeps_its_digits(engine):
    # Ten million times a difference of one cent.
    events = [transaction(n, START_MS + n, amount=f"99999999.{90 + n % 3}") for n in range(50)]
    events.append(transaction("last", START_MS + 60, amount="99999999.95"))
    replay = Replay(engine).run(tuple(events), cuts=[51])

    expected = naive_features(FEATURES, events[:-1], events[-1], START_MS + 60)
    found = replay.rows[-1][engine.names.index("amount_zscore_30d")]
    assert found == pytest.approx(expected["amount_zscore_30d"], rel=1e-12)


def test_label_is_never_the_currency_of_a_lookup(engine):
    event = transaction(0, START_MS)
    label = Label(customer_id="c-1", transaction_id="t-0", label="fraud", label_time=START_MS + HOUR_MS)
    replay = Replay(engine).run((event, label))
    history = replay.arena.records(replay.arena.slot("c-1"))
    row = dict(zip(engine.names, engine.compute(history, None, START_MS + DAY_MS), strict=True))

    assert row["amount_sum_90d"] == 10


def test_label_from_the_far_future_makes_no_event_late_and_forgets_none(engine):
    first, second = transaction(0, START_MS), transaction(1, START_MS + HOUR_MS)
    label = Label(
        customer_id="c-1", transaction_id="t-0", label="genuine", label_time=START_MS + 3650 * DAY_MS
    )
    third = transaction(2, START_MS + 2 * HOUR_MS)
    replay = Replay(engine).run((first, label, second, third), disturbances=["", "prune"])

    assert replay.flags[1:] == [0, 0]
    assert [row[engine.names.index("txn_count_24h")] for row in replay.rows] == [0, 1, 2]
