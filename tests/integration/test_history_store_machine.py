"""The delivery protocol in any order: owners, lost replies, replays, a store that goes back in time."""

import asyncio
import struct
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis import Redis

from features.codec import HEADER
from features.ports import Commit, HistoryChange, Lease, Outcome
from infra.history_store import RedisHistoryStore
from infra.memory_store import MemoryHistoryStore
from infra.score_packing import ScorePacker
from schemas.errors import HistoryError
from tests.histories import AWKWARD, HERE, KEPT, PARTITIONS, A, B, C, begin, contents, header

pytestmark = pytest.mark.integration

NAMES = (A, B, C)
SOURCE = "transactions"
STEPS = 10_000
# Mostly the owner, now and then one who was.
WHO = st.sampled_from([0, 0, 0, 0, 0, 1, 5])


@dataclass
class Model:
    """What the store should hold, kept in the simplest way."""

    epoch: int = 0
    owner: str = ""
    next: dict[str, int] = field(default_factory=dict)
    watermark: int = 0
    swept: int = -1
    histories: dict[str, bytes] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    scores: dict[str, list[bytes]] = field(default_factory=dict)
    churn: dict[str, bytes] = field(default_factory=dict)
    profiles: dict[str, bytes] = field(default_factory=dict)

    def outcome(self, lease: Lease, commit: Commit) -> Outcome | None:
        """What a store should answer; `None` is a `HistoryError`."""
        if self.epoch < lease.epoch:
            return Outcome.ROLLED_BACK
        if (lease.epoch, lease.owner) != (self.epoch, self.owner):
            return Outcome.FENCED
        now = self.next.get(commit.source)
        if now != commit.expected_next:
            return Outcome.ALREADY_APPLIED if now == commit.next_offset else Outcome.ROLLED_BACK
        for change in commit.histories:
            length = len(self.histories.get(change.customer_id, b""))
            written = len(change.header + change.appended)
            if length != change.expected_bytes and not (change.replaced and length == written):
                return None
        return Outcome.APPLIED

    def apply(self, commit: Commit) -> None:
        for change in commit.histories:
            kept = b"" if change.replaced else self.histories.get(change.customer_id, b"")[HEADER.itemsize :]
            self.histories[change.customer_id] = change.header + kept + change.appended
            self.newest[change.customer_id] = change.last_event_ms
        for customer, scores in commit.scores.items():
            self.scores[customer] = (self.scores.get(customer, []) + list(scores))[-KEPT:]
        self.churn |= commit.churn
        self.profiles |= commit.profiles
        self.profiles = {c: p for c, p in self.profiles.items() if p is not None}
        if commit.source:
            self.next[commit.source] = commit.next_offset
        self.watermark = max(self.watermark, commit.watermark_ms)
        self.swept = max(self.swept, commit.swept_day)

    def contents(self) -> Any:
        known = [c for c in (*NAMES, AWKWARD) if c in self.histories or c in self.profiles]
        states = dict.fromkeys((*NAMES, AWKWARD))
        for c in known:
            states[c] = (
                self.histories.get(c),
                self.scores.get(c, []),
                self.churn.get(c),
                self.profiles.get(c),
            )
        return sorted(self.newest, key=lambda c: (self.newest[c], c)), states


class Protocol(RuleBasedStateMachine):
    """Every rule does the same to Redis, to the store in memory and to the model.

    The record of an event is its offset, so that what was lost or counted twice can be seen.
    """

    tried = Bundle("tried")
    saved = Bundle("saved")
    steps = 0
    answers: ClassVar[Counter[str]] = Counter()
    unpack = ScorePacker().unpack

    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = RedisHistoryStore(url, PARTITIONS, recent_scores=KEPT)
        self.memory = MemoryHistoryStore(KEPT)
        self.direct = Redis.from_url(url)
        self.direct.flushall()
        self.model = Model()
        self.leases: list[tuple[Lease, Lease]] = []
        self.acquire()

    def teardown(self) -> None:
        self.runner.run(begin(self.redis))
        # What readers see; after each step the keys are read, all at once.
        assert self.runner.run(contents(self.redis)) == self.model.contents()
        self.runner.run(self.redis.close())
        self.runner.close()
        self.direct.close()

    def try_both(self, leases: tuple[Lease, Lease], commit: Commit) -> None:
        expected = self.model.outcome(leases[0], commit)
        for store, lease in zip((self.redis, self.memory), leases, strict=True):
            try:
                answer = self.runner.run(store.apply(lease, commit))
            except HistoryError:
                answer = None
            assert answer == expected, store
        self.answers[expected.value if expected else "error"] += 1
        if expected is Outcome.APPLIED:
            self.model.apply(commit)

    def try_as(self, who: int, commit: Commit) -> tuple[tuple[Lease, Lease], Commit]:
        leases = self.leases[-min(1 + who, len(self.leases))]
        self.try_both(leases, commit)
        return leases, commit

    def change(
        self, customer: str, appended: bytes, mark: bytes, last_ms: int, replaced: bool, lie: int
    ) -> Any:
        before = self.model.histories.get(customer, b"")
        if replaced:
            appended = before[HEADER.itemsize :] + appended
        expected = max(0, len(before) + lie)
        return HistoryChange(customer, expected, header(mark), appended, last_ms, replaced)

    @rule()
    def acquire(self) -> None:
        redis, memory = (self.runner.run(begin(store)) for store in (self.redis, self.memory))
        self.model.epoch += 1
        self.model.owner = redis.owner
        for lease in (redis, memory):
            assert (lease.partition, lease.epoch, lease.next_offsets) == (
                HERE,
                self.model.epoch,
                self.model.next,
            )
            assert (lease.watermark_ms, lease.swept_day) == (self.model.watermark, self.model.swept)
        self.leases.append((redis, memory))

    @rule(
        target=tried,
        who=WHO,
        events=st.integers(0, 5),
        believed=st.none() | st.integers(0, 12),
        astray=st.sampled_from([False, False, False, True]),
        replaced=st.booleans(),
        lie=st.sampled_from([0, 0, 0, 0, 1, -1, -1000]),
        mark=st.sampled_from([b"h", b"i"]),
        time_ms=st.integers(0, 5),
    )
    def chunk(self, who, events, believed, astray, replaced, lie, mark, time_ms):
        """Events of a chunk, from where the store is or from where a worker wrongly believes that it is."""
        start = believed if astray else self.model.next.get(SOURCE)
        offsets = range(start or 0, (start or 0) + events)
        records = {
            c: b"".join(struct.pack("<I", o) for o in offsets if o % len(NAMES) == n)
            for n, c in enumerate(NAMES)
        }
        changes = [self.change(c, r, mark, time_ms, replaced, lie) for c, r in records.items() if r]
        scores = {c: [b"%d" % o for o in offsets] for c in records if records[c]}
        commit = Commit(SOURCE, start, (start or 0) + events, changes, scores, watermark_ms=time_ms)
        return self.try_as(who, commit)

    @rule(
        target=tried,
        who=WHO,
        day=st.integers(-1, 4),
        replaced=st.booleans(),
        whom=st.sets(st.sampled_from(NAMES)),
    )
    def sweep(self, who, day, replaced, whom):
        known = sorted(whom & set(self.model.histories))
        changes = [self.change(c, b"", b"s", self.model.newest[c], replaced, 0) for c in known]
        here = self.model.next.get(SOURCE, 0)
        commit = Commit(SOURCE, here, here, changes, churn={c: b"day %d" % day for c in known}, swept_day=day)
        return self.try_as(who, commit)

    @rule(target=tried, who=WHO, profile=st.none() | st.just(b"{}"), whom=st.sampled_from([A, AWKWARD]))
    def profile(self, who, profile, whom):
        start = self.model.next.get("customers")
        commit = Commit("customers", start, (start or 0) + 1, profiles={whom: profile})
        return self.try_as(who, commit)

    @rule(attempt=tried)
    def again(self, attempt):
        """A reply was lost, or a worker woke up late."""
        self.try_both(*attempt)

    @rule(target=saved)
    def save(self):
        keys = list(self.direct.scan_iter(count=1000))
        pipe = self.direct.pipeline(transaction=False)
        for key in keys:
            pipe.dump(key)
        dumped = dict(zip(keys, pipe.execute(), strict=True))
        return dumped, deepcopy(self.memory._partitions), deepcopy(self.model)

    @rule(then=saved)
    def go_back(self, then):
        """A crash before the log was written, or a replica that was promoted."""
        dumped, partitions, model = then
        pipe = self.direct.pipeline(transaction=False)
        pipe.flushall()
        for key, value in dumped.items():
            pipe.restore(key, 0, value)
        pipe.execute()
        self.memory._partitions, self.model = deepcopy(partitions), deepcopy(model)

    @rule()
    def lose_everything(self):
        self.go_back(({}, MemoryHistoryStore()._partitions, Model()))

    @rule()
    def lose_functions(self):
        self.direct.function_flush()

    def keys(self) -> Any:
        """What `contents` gives, from the keys and in one round trip."""
        tag = f"{{tg:{HERE}}}"
        pipe = self.direct.pipeline(transaction=False)
        pipe.zrange(f"{tag}:index", 0, -1)
        for c in (*NAMES, AWKWARD):
            pipe.mget(f"{tag}:h:{c}", f"{tag}:b:{c}", f"{tag}:c:{c}", f"{tag}:p:{c}")
            pipe.lrange(f"{tag}:s:{c}", 0, -1)
        index, *found = pipe.execute()
        states = dict.fromkeys((*NAMES, AWKWARD))
        for n, c in enumerate(states):
            history, packed, churn, profile = found[2 * n]
            assert packed is None
            if history is not None or profile is not None:
                scores = [self.unpack(score) for score in found[2 * n + 1]]
                states[c] = (history, scores, None if churn is None else self.unpack(churn), profile)
        return [member.decode() for member in index], states

    @invariant()
    def all_hold_the_same(self):
        type(self).steps += 1
        assert self.keys() == self.model.contents()
        assert self.runner.run(contents(self.memory)) == self.model.contents()

    @invariant()
    def no_event_is_lost_and_none_is_counted_twice(self):
        counted = [
            offset
            for history in self.model.histories.values()
            for (offset,) in struct.iter_unpack("<I", history[HEADER.itemsize :])
        ]
        assert sorted(counted) == list(range(self.model.next.get(SOURCE, 0)))


def run(url: str, examples: int) -> None:
    run_state_machine_as_test(
        lambda: Protocol(url),
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_protocol_holds_in_any_order(valkey):
    run(valkey.url, settings().max_examples // 8)


@pytest.mark.long
def test_protocol_holds_for_ten_thousand_steps(valkey):
    Protocol.steps, Protocol.answers = 0, Counter()
    while Protocol.steps < STEPS:
        run(valkey.url, 50)
    # Each of the Function's answers was among them, often.
    assert min(Protocol.answers[o] for o in (*(outcome.value for outcome in Outcome), "error")) > STEPS / 1000
    print(f"{Protocol.steps} steps: {dict(Protocol.answers)}")
