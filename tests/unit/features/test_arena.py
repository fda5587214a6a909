from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from features import retention as retention_module
from features.arena import HistoryArena
from features.codec import History, Totals
from features.definitions import RETENTION_MS
from features.record import RECORD, Records
from tests.examples import examples

NAMES = st.sampled_from([f"c-{n}" for n in range(80)])


def records_of(times, first_id: int = 0) -> Records:
    records = np.zeros(len(times), dtype=RECORD)
    records["time_ms"] = times
    records["transaction"] = np.arange(first_id, first_id + len(times))
    return records


class ArenaEqualsDictOfLists(RuleBasedStateMachine):
    """The arena against a dict of lists, least recently used first."""

    MAX_RECORDS = 600

    def __init__(self):
        super().__init__()
        self.arena = HistoryArena(self.MAX_RECORDS)
        # Customers of another arena in the same memory, whom nothing here must touch.
        self.beside = HistoryArena(self.MAX_RECORDS, self.arena)
        self.others: dict[str, list[int]] = {}
        self.model: OrderedDict[str, list[tuple[int, int]]] = OrderedDict()
        self.totals: dict[str, Totals] = {}
        self.next_id = 0
        self.most_needed = 0

    def new_records(self, n: int, step: int = 3) -> Records:
        self.next_id += n
        return records_of(np.arange(n) * step, self.next_id - n)

    @rule(name=NAMES, n=st.one_of(st.integers(0, 40), st.integers(0, 900)))
    def put(self, name, n):
        records = self.new_records(n)
        totals = Totals(count=self.next_id)
        slot = self.arena.put(name, History(totals, records))
        self.model.pop(name, None)
        self.model[name] = [(int(r["time_ms"]), int(r["transaction"])) for r in records]
        self.totals[name] = totals
        assert self.arena.slot(name) == slot

    @rule(names=st.sets(NAMES, max_size=80))
    def put_new(self, names):
        new = [name for name in sorted(names) if name not in self.model]
        self.arena.put_new(new)
        for name in new:
            self.model[name], self.totals[name] = [], Totals()
            assert self.arena.stored_bytes[self.arena._slots[name]] == 0

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def put_again_what_is_here(self, data):
        name = data.draw(st.sampled_from(list(self.model)))
        slot = self.arena.slot(name)
        self.arena.put(name, History(self.arena.totals(slot), self.arena.records(slot)))
        self.model.move_to_end(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def use(self, data):
        name = data.draw(st.sampled_from(list(self.model)))
        self.arena.slot(name)
        self.model.move_to_end(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data):
        name = data.draw(st.sampled_from(list(self.model)))
        self.arena.drop(name)
        del self.model[name], self.totals[name]

    @rule(name=NAMES, n=st.integers(0, 300))
    def put_beside(self, name, n):
        records = self.new_records(n)
        self.beside.put(name, History(Totals(count=n), records))
        self.others[name] = records["transaction"].tolist()

    @precondition(lambda self: self.model or self.others)
    @rule(data=st.data())
    def reserve_in_both(self, data):
        mine = data.draw(st.lists(st.sampled_from(list(self.model)), max_size=20)) if self.model else []
        others = data.draw(st.lists(st.sampled_from(list(self.others)), max_size=20)) if self.others else []
        self.arena.reserve(np.concatenate([self.beside.slots(others), self.arena.slots(mine)]))
        for name in dict.fromkeys(mine):
            self.model.move_to_end(name)

    @rule()
    def clear(self):
        self.arena.clear()
        self.model.clear()
        self.totals.clear()

    @rule()
    def clear_beside(self):
        self.beside.clear()
        self.others.clear()

    @precondition(lambda self: self.model)
    @rule(data=st.data(), time_ms=st.integers(0, 3000), n=st.integers(1, 40))
    def insert(self, data, time_ms, n):
        name = data.draw(st.sampled_from(list(self.model)))
        slot = self.arena.slot(name)
        self.model.move_to_end(name)
        for record in self.new_records(n, step=0):
            record["time_ms"] = time_ms
            self.arena.insert(slot, np.array([record]))
            self.model[name].append((time_ms, int(record["transaction"])))
        self.model[name].sort(key=lambda pair: pair[0])  # stable: arrival order among equal times

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def reserve(self, data):
        names = data.draw(st.lists(st.sampled_from(list(self.model)), max_size=50))
        self.arena.reserve(np.array([self.arena.slot(name) for name in names], dtype=np.int64))
        for name in names:
            self.model.move_to_end(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def set_totals(self, data):
        name = data.draw(st.sampled_from(list(self.model)))
        self.totals[name] = Totals(first_ms=1, count=self.next_id)
        self.arena.set_totals(self.arena.slot(name), self.totals[name])
        self.model.move_to_end(name)

    @rule(keep=st.integers(0, 5))
    def evict(self, keep):
        before = list(self.model)
        self.arena.evict(keep)
        kept = [name for name in before if name in self.arena]
        # Those not used for longest went, no more than the bound asks for.
        assert kept == before[len(before) - len(kept) :]
        assert len(kept) >= min(keep, len(before))
        held = sum(len(self.model[name]) for name in kept)
        assert held <= self.MAX_RECORDS or len(kept) <= keep
        if sum(2 * len(records) + 16 for records in self.model.values()) <= self.MAX_RECORDS:
            assert kept == before
        for name in before[: len(before) - len(kept)]:
            del self.model[name], self.totals[name]

    @invariant()
    def same_customers(self):
        assert len(self.arena) == len(self.model)
        asked = [*self.model, "nobody", "nobody", *self.model]
        assert self.arena.missing(asked) == ["nobody"]
        assert all(name in self.arena for name in self.model)

    @invariant()
    def same_records(self):
        for name, records in self.model.items():
            slot = self.arena._slots[name]  # without counting as a use
            found = self.arena.records(slot)
            assert list(zip(found["time_ms"], found["transaction"], strict=True)) == records
            assert self.arena.totals(slot) == self.totals[name]

    @invariant()
    def others_are_as_they_were(self):
        assert len(self.beside) == len(self.others)
        for name, ids in self.others.items():
            assert self.beside.records(self.beside._slots[name])["transaction"].tolist() == ids

    @invariant()
    def memory_is_bounded_by_what_is_held(self):
        # A block is at most twice its records plus 16, or what `reserve` was asked for (50).
        held = [*self.model.values(), *self.others.values()]
        needed = sum(max(16, 2 * (len(records) + 50)) for records in held)
        self.most_needed = max(self.most_needed, needed)
        assert len(self.arena.pool) <= max(4096, 4 * self.most_needed)


TestArenaEqualsDictOfLists = ArenaEqualsDictOfLists.TestCase
TestArenaEqualsDictOfLists.settings = settings(examples(60), stateful_step_count=40, deadline=None)


def test_longest_unused_customers_are_evicted_until_the_bound_holds():
    arena = HistoryArena(max_records=64)
    for name in "abcdef":
        arena.put(name, History(Totals(), records_of(range(10))))  # 16 records of room each
    arena.slot("a")
    arena.evict(keep=6)
    assert len(arena) == 6

    arena.evict()
    assert [name for name in "abcdef" if name in arena] == ["a", "d", "e", "f"]
    arena.put("large", History(Totals(), records_of(range(1000))))
    arena.evict(keep=2)
    assert [name for name in (*"abcdef", "large") if name in arena] == ["a", "large"]


def test_pool_does_not_grow_when_sizes_change_and_what_is_held_does_not():
    # Freed blocks of one size cannot serve another: without packing each round takes new memory.
    arena = HistoryArena()
    sizes = []
    for n in (10, 30, 60, 120, 250, 500, 1000, 2000, 4000):
        for number in range(8000 // n):
            arena.put(f"{n}-{number}", History(Totals(), records_of(range(n))))
        sizes.append(len(arena.pool))
        for number in range(8000 // n):
            arena.drop(f"{n}-{number}")

    assert max(sizes) <= 2 * 16_384


def test_records_survive_packing_of_the_pool():
    arena = HistoryArena()

    def come_and_go(customers: int) -> None:
        for number in range(customers):
            arena.put(f"small-{number}", History(Totals(), records_of(range(10), 1000)))
        for number in range(customers):
            arena.drop(f"small-{number}")

    first = arena.put("first", History(Totals(), records_of(range(20))))
    come_and_go(200)
    last = arena.put("last", History(Totals(), records_of(range(600), 5000)))  # packs
    come_and_go(170)
    arena.reserve(np.full(900, first))  # packs while the first one is between two blocks

    assert len(arena.pool) == 4096
    assert arena.records(first)["transaction"].tolist() == list(range(20))
    assert arena.records(last)["transaction"].tolist() == list(range(5000, 5600))
    spans = sorted((arena.start[slot], arena.start[slot] + 1024) for slot in (first, last))
    assert spans[0][1] <= spans[1][0]


def test_more_customers_than_slots_make_more_slots():
    arena = HistoryArena()
    slots = [arena.put(f"c-{n}", History(Totals(count=n), records_of([n]))) for n in range(1000)]

    assert len(set(slots)) == 1000
    assert all(arena.records(slot)["time_ms"].tolist() == [n] for n, slot in enumerate(slots))
    assert [arena.totals(slot).count for slot in slots] == list(range(1000))


def test_customer_that_is_not_here_is_a_key_error():
    arena = HistoryArena()
    slot = arena.put("c-1", History.empty())
    arena.drop("c-1")

    for call in (lambda: arena.slot("c-1"), lambda: arena.drop("c-1"), lambda: arena.totals(slot)):
        with pytest.raises(KeyError):
            call()


def test_pruning_lets_go_of_what_no_feature_can_look_at():
    arena = HistoryArena()
    # [--- retention ---] newest: both ends are kept
    times = [0, 99, 100, 101, RETENTION_MS + 100]
    slot = arena.put("c-1", History(Totals(), records_of(times)))
    arena.prune(slot)

    assert arena.records(slot)["time_ms"].tolist() == times[2:]
    arena.prune(slot)
    assert arena.records(slot)["time_ms"].tolist() == times[2:]


def test_pruning_an_empty_history_does_nothing():
    arena = HistoryArena()
    slot = arena.put("c-1", History.empty())
    arena.prune(slot)

    assert len(arena.records(slot)) == 0


def test_pruning_keeps_the_newest_events(monkeypatch):
    monkeypatch.setattr(retention_module, "MAX_EVENTS", 3)
    arena = HistoryArena()
    slot = arena.put("c-1", History(Totals(), records_of([1, 2, 3, 4, 5])))
    arena.prune(slot)

    assert arena.records(slot)["time_ms"].tolist() == [3, 4, 5]


def test_pruning_by_a_label_lets_go_of_no_event():
    # The arena once took the newest record for the newest event, and a label may come years later.
    arena = HistoryArena()
    records = records_of([1, 2, 10 * RETENTION_MS])
    records["kind"][2] = 1
    slot = arena.put("c-1", History(Totals(), records))
    arena.prune(slot)

    assert arena.records(slot)["time_ms"].tolist() == [1, 2, 10 * RETENTION_MS]


def test_reserving_prunes_before_it_makes_room():
    arena = HistoryArena()
    old = records_of([*range(14), 2 * RETENTION_MS])
    slot = arena.put("c-1", History(Totals(), old))
    arena.reserve(np.array([slot, slot]))

    assert arena.records(slot)["transaction"].tolist() == [14]


def test_memory_of_customers_that_were_forgotten_is_given_back():
    arena = HistoryArena()
    beside = HistoryArena(beside=arena)
    for number in range(400):
        arena.put(f"a-{number}", History(Totals(), records_of(range(200))))
    beside.put("b", History(Totals(), records_of(range(7))))
    large = len(arena.pool)
    arena.clear()
    assert len(beside.pool) <= large // 8
    assert beside.records(beside.slot("b"))["time_ms"].tolist() == list(range(7))
    arena.put("a", History(Totals(), records_of(range(3))))
    assert beside.records(beside.slot("b"))["time_ms"].tolist() == list(range(7))
    assert arena.records(arena.slot("a"))["time_ms"].tolist() == [0, 1, 2]
