"""What computing features costs, by the length of the history and by the number of features."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from features.arena import HistoryArena
from features.catalogue import FEATURES
from features.codec import History, Totals
from features.codes import letters_code
from features.definitions import DAY_MS, Feature
from features.engine import Engine
from features.record import RECORD, Records

LENGTHS = (10, 30, 100, 300, 1000, 3000, 10_000)
NUMBERS = (10, 25, 50, 75, 90)
_USUAL_LENGTH = 300
_NOW_MS = 1_780_000_000_000
_SPAN_MS = 90 * DAY_MS
# Histories of one measurement, together: more than any cache holds, less than a worker keeps.
_RECORDS = 400_000


def run_features(runs: int) -> dict[str, Any]:
    """Median processor time of one event, each figure measured in every round.

    Args:
        runs: Rounds; each measures everything once, so that what else the machine does hits all alike.
    """
    engines = {len(FEATURES): Engine()}
    engines |= {len(some): Engine(some) for some in map(first_features, NUMBERS)}
    every = engines[len(FEATURES)]
    cases = [(every, length) for length in LENGTHS]
    cases += [(engine, _USUAL_LENGTH) for engine in engines.values() if engine is not every]
    prepared = [_Case(engine, length) for engine, length in cases]
    for case in prepared:
        case.microseconds()  # compiles, and brings memory in
    seen: list[list[float]] = [[] for _ in prepared]
    for _ in range(runs):
        for case, times in zip(prepared, seen, strict=True):
            times.append(case.microseconds())
    medians = [statistics.median(times) for times in seen]
    usual = medians[LENGTHS.index(_USUAL_LENGTH)]
    by_number = {len(every.names): usual}
    by_number |= {
        len(case.engine.names): median
        for case, median in zip(prepared[len(LENGTHS) :], medians[len(LENGTHS) :], strict=True)
    }
    return {
        "features": len(every.names),
        "runs": runs,
        "by_history_length": [
            {
                "events": length,
                "microseconds": round(median, 2),
                "fastest": round(min(times), 2),
                "nanoseconds_per_record": round(1000 * median / length, 1),
                "to_usual": round(median / usual, 2),
            }
            for length, median, times in zip(LENGTHS, medians, seen, strict=False)
        ],
        "by_number_of_features": [
            {"features": number, "microseconds": round(median, 2), "to_all": round(median / usual, 2)}
            for number, median in sorted(by_number.items())
        ],
    }


def first_features(number: int) -> tuple[Feature, ...]:
    """The first so many declarations, taken evenly from the catalogue, with what their ratios need."""
    step = len(FEATURES) / number
    wanted = {FEATURES[int(i * step)].name for i in range(min(number, len(FEATURES)))}
    needed = {part for feature in FEATURES if feature.name in wanted for part in feature.of}
    known = {feature.name for feature in FEATURES}
    return tuple(feature for feature in FEATURES if feature.name in wanted | (needed & known))


def history(length: int, seed: int) -> Records:
    """A customer's events, evenly over 90 days: 40 merchants, 3 devices, some abroad, all categories."""
    draw = np.random.default_rng(seed)
    records = np.zeros(length, dtype=RECORD)
    records["time_ms"] = np.sort(draw.integers(_NOW_MS - _SPAN_MS, _NOW_MS, length))
    records["transaction"] = draw.integers(1, 2**63, length, dtype=np.uint64)
    records["amount_minor"] = np.exp(draw.normal(8, 1.2, length)).astype(np.int64) + 1
    records["merchant"] = draw.integers(1, 41, length)
    records["device"] = draw.integers(1, 4, length)
    records["counterparty"] = draw.integers(0, 20, length)
    records["latitude"], records["longitude"] = draw.normal(48, 1, length), draw.normal(2, 1, length)
    records["country"] = np.where(draw.random(length) < 0.05, letters_code("DE"), letters_code("FR"))
    records["currency"] = letters_code("EUR")
    records["category"] = draw.integers(1, 21, length)
    records["transaction_type"] = draw.integers(1, 9, length)
    records["channel"] = draw.integers(1, 7, length)
    records["credit"] = draw.random(length) < 0.1
    records["card_present"] = draw.integers(0, 3, length)
    return records


class _Case:
    """One engine over histories of one length: as many as make the same number of records."""

    def __init__(self, engine: Engine, length: int) -> None:
        self.engine = engine
        count = max(20, min(2000, _RECORDS // length))
        self._arena = HistoryArena(max_records=1 << 62)
        # Each another one: the branches of a few that come again and again are learned by a processor.
        slots = [self._arena.put(f"c{i}", History(Totals(), history(length, i))) for i in range(count)]
        self._slots = np.array(slots, dtype=np.int64)
        self._events = history(count, 99)
        self._events["time_ms"] = _NOW_MS
        self._arena.reserve(self._slots)
        self._lengths = self._arena.length.copy()

    def microseconds(self) -> float:
        """Processor time of one event: its vector, and its place in the history."""
        started = time.process_time_ns()
        self.engine.compute_chunk(self._arena, self._events, self._slots)
        spent = time.process_time_ns() - started
        # The next round finds the histories as long as this one did.
        self._arena.length[:] = self._lengths
        return spent / 1000 / len(self._slots)


def markdown(result: dict[str, Any]) -> str:
    """Both tables, for docs/benchmarks.md."""
    lengths = _table(
        ("events in the history", "µs per event", "of that of 300", "ns per record"),
        [
            (
                f"{r['events']:,}",
                f"{r['microseconds']:.1f}",
                f"{r['to_usual']:.2f}",
                r["nanoseconds_per_record"],
            )
            for r in result["by_history_length"]
        ],
    )
    numbers = _table(
        ("features", "µs per event", "of that of all"),
        [
            (r["features"], f"{r['microseconds']:.1f}", f"{r['to_all']:.2f}")
            for r in result["by_number_of_features"]
        ],
    )
    return (
        f"{result['features']} features, by the length of the history:\n\n{lengths}\n"
        f"A history of {_USUAL_LENGTH} events, by the number of features:\n\n{numbers}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
