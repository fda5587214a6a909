"""Every entity feature against the naive oracle, on streams with everything that goes wrong."""

import math
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.corrections import Correction
from features.entity_counts import Entities, SaidOf
from features.entity_features import ENTITY_FEATURES
from features.labels import Word
from features.record import RECORD
from features.tile_codec import decode, encode
from tests.parity.entity_oracle import HOUR_MS, EntityOracle
from tests.parity.values import differences

START_MS = 1_767_225_600_000
DAY_MS = 24 * HOUR_MS
KINDS = ("merchant", "device", "counterparty")


@dataclass(frozen=True)
class Step:
    """A transaction, which may correct an earlier one, or that an earlier one was fraud."""

    gap_ms: int
    late_ms: int
    merchant: int
    device: int
    counterparty: int
    customer: int
    minor: int
    fraud_of: int | None
    corrects: int | None
    forget: bool


@dataclass
class Seen:
    """The version of a transaction that counts."""

    record: np.ndarray
    customer: int
    known_ms: int | None = None
    withdrawn_ms: float = math.inf

    @property
    def words(self) -> tuple[Word, ...]:
        known = () if self.known_ms is None else (Word(self.known_ms, 1),)
        return (*known, Word(int(self.withdrawn_ms), -1)) if self.withdrawn_ms < math.inf else known

    @property
    def fraud(self) -> tuple[int, dict[str, object], int, float]:
        assert self.known_ms is not None
        return self.time_ms, ids(self.record), self.known_ms, self.withdrawn_ms

    @property
    def time_ms(self) -> int:
        return int(self.record["time_ms"][0])


def steps() -> st.SearchStrategy[list[Step]]:
    gaps = st.one_of(
        st.sampled_from(
            [0, 1, HOUR_MS - 1, HOUR_MS, HOUR_MS + 1, DAY_MS, 7 * DAY_MS, 37 * DAY_MS, 120 * DAY_MS]
        ),
        st.integers(0, 3 * HOUR_MS),
        st.integers(0, 5 * DAY_MS),
    )
    late = st.one_of(st.just(0), st.just(0), st.integers(0, 60 * DAY_MS))
    return st.lists(
        st.builds(
            Step,
            gaps,
            late,
            st.integers(0, 2),
            st.integers(0, 2),
            st.integers(0, 2),
            st.integers(1, 4),
            st.one_of(st.sampled_from([0, 1, 999, 1000]), st.integers(0, 10**9)),
            st.one_of(st.none(), st.none(), st.integers(0, 30)),
            st.one_of(st.none(), st.none(), st.none(), st.integers(0, 30)),
            st.integers(0, 9).map(lambda n: n == 0),
        ),
        max_size=40,
    )


def ids(record: np.ndarray) -> dict[str, object]:
    return {name: int(record[name][0]) for name in KINDS if record[name][0]}


@given(steps(), st.lists(st.integers(1, 7), max_size=10))
def test_every_entity_feature_equals_the_oracle(stream, sizes):
    entities, oracle = Entities(ENTITY_FEATURES), EntityOracle(ENTITY_FEATURES)
    stored: dict[tuple[str, int], dict[int, list[bytes]]] = {}
    seen: list[Seen] = []
    chunk: list[Seen] = []
    corrections: list[Correction] = []
    wanted, got = [], []
    now, left = START_MS, iter(sizes)
    size = next(left, 5)

    def keep(added, partition):
        # As the store does: appended to what the partition has of the entity.
        for key, tiles in added.items():
            parts = stored.setdefault(key, {}).setdefault(partition, [])
            parts.append(tiles.tobytes() if parts else encode(tiles))

    def bring(records):
        for key in entities.missing(entities.keys(records)):
            entities.put(key, [decode(b"".join(parts)) for parts in stored.get(key, {}).values()])

    def run():
        if not chunk:
            return
        records = np.concatenate([each.record for each in chunk])
        customers = np.array([each.customer for each in chunk], dtype=np.uint32)
        rows = np.arange(len(chunk))
        bring(records)
        computed = entities.compute(records, customers, rows, count=True, corrections=corrections)
        got.extend(computed.tolist())
        for partition in range(2):
            # A customer's events are all in one partition.
            mine = [c for c in corrections if customers[c.row] % 2 == partition]
            keep(entities.added(records, customers, rows[customers % 2 == partition], mine), partition)
        chunk.clear()
        corrections.clear()

    for step in stream:
        now += step.gap_ms
        if step.fraud_of is not None and step.fraud_of < len(seen):
            fraud = seen[step.fraud_of]
            run()
            said = len(fraud.words)
            if fraud.known_ms is None:
                fraud.known_ms = now
            elif fraud.withdrawn_ms == math.inf:
                oracle.frauds.remove(fraud.fraud)
                fraud.withdrawn_ms = now
            if len(fraud.words) > said:
                bring(fraud.record)
                added = entities.frauds([SaidOf(fraud.record, fraud.words[-1])])
                entities.add(added)
                keep(added, fraud.customer % 2)
                oracle.confirm(*fraud.fraud)
            continue
        time_ms, customer = now - step.late_ms, step.customer
        record = np.zeros(1, dtype=RECORD)
        record["time_ms"] = time_ms
        for name in KINDS:
            record[name] = getattr(step, name)
        record["amount_minor"] = step.minor
        if step.corrects is None or step.corrects >= len(seen):
            event = Seen(record, customer)
            seen.append(event)
        else:
            before = seen[step.corrects]
            customer = before.customer
            event = seen[step.corrects] = replace(before, record=record)
            corrections.append(Correction(len(chunk), before.record, before.words))
            minor = int(before.record["amount_minor"][0])
            oracle.events.remove((before.time_ms, ids(before.record), customer, minor))
            if before.known_ms is not None:
                oracle.frauds.remove(before.fraud)
                oracle.confirm(*event.fraud)
        wanted.append(oracle.vector(time_ms, ids(record), step.minor))
        oracle.count(time_ms, ids(record), customer, step.minor)
        chunk.append(event)
        if len(chunk) >= size:
            run()
            size = next(left, 5)
        if step.forget:
            run()
            entities.clear()
    run()
    names = [f.name for f in ENTITY_FEATURES]
    for expected, found in zip(wanted, got, strict=True):
        wrong = differences(ENTITY_FEATURES, found, dict(zip(names, map(_known, expected), strict=True)))
        assert wrong == []


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
