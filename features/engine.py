"""The engine: features of a chunk of events, or of a customer as of a moment, from history alone."""

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from features import clock as clocks
from features import kernels
from features.arena import HistoryArena
from features.attributes import AttributeFeature, names_of
from features.attributes import declaration_hash as attribute_hash
from features.catalogue import FEATURES
from features.clock import UTC, Clock
from features.codec import History, Totals, decode, empty_headers, encode, encode_header
from features.codes import MINOR_UNITS
from features.columns import COLUMNS
from features.compiler import generate
from features.definitions import MAX_EVENTS, RETENTION_MS, Feature, declaration_hash
from features.entities import TILE_MS, EntityFeature, kept_tiles
from features.entities import declaration_hash as entity_hash
from features.packing import pack
from features.record import RECORD, Records

Matrix = npt.NDArray[np.float64]
_NO_EVENT: Final = np.zeros(1, dtype=RECORD)

_CHUNK_SOURCE = '''
from features.kernels import (
    ACCEPTED, DUPLICATE, FLAG_COLD_START, FLAG_CORRECTED, FLAG_HISTORY_CUT, FLAG_LATE, find_transaction,
    holds_transactions, insert_record, newest_arrival, newest_transaction, position_before,
    replace_transaction, retained_from,
)

@numba.njit(nogil=True, **INNER)
def compute_chunk(pool, start, length, events, slots, has_event, retention, max_events, X, status, flags,
                  replaced, values, stamp, vectors, columns):
    """Score events in order; each sees those before it, also of the same chunk."""
    for e in range(events.shape[0]):
        slot = slots[e]
        event = events[e]
        first = start[slot]
        end = first + length[slot]
        newest = event.time_ms
        last = newest_arrival(pool, first, end)
        if last >= first and pool[last].time_ms > newest:
            newest = pool[last].time_ms
            flags[e] |= FLAG_LATE
        kept = retained_from(pool, first, end, newest, retention, max_events)
        earlier = find_transaction(pool, kept, end, event.transaction)
        if earlier >= kept:
            if event.revision <= pool[earlier].revision:
                status[e] = DUPLICATE
                continue
            flags[e] |= FLAG_CORRECTED
            replace_transaction(pool, kept, end, events, e, replaced)
        status[e] = ACCEPTED
        before = position_before(pool, kept, end, event.time_ms)
        if newest_transaction(pool, kept, before) < kept:
            flags[e] |= FLAG_COLD_START
        # As many as are kept, or a window from before what is kept. Not whether something was cut:
        # that depends on when this copy of the history was last cut down.
        cut = event.time_ms - WINDOWS[-1] < newest - retention
        if cut or holds_transactions(pool, kept, end, max_events):
            flags[e] |= FLAG_HISTORY_CUT
        stamp += np.uint64(1 << 32)
        # From a record to the one that stands there in the next event's history: read by then.
        following = slots[min(e + 1, events.shape[0] - 1)]
        away = start[following] + length[following] - before
        compute_row(pool, kept, before, away, event.time_ms, event, has_event, X[e],
                    values, stamp, vectors, columns)
        if event.time_ms >= newest - retention:
            insert_record(pool, first, length[slot], events, e)
            length[slot] += 1

@numba.njit(**INNER)
def compute_as_of(pool, first, end, t, event, has_event, retention, max_events, out,
                  values, stamp, vectors, columns):
    """One vector as of a moment; nothing is inserted."""
    newest = t
    last = newest_arrival(pool, first, end)
    if last >= first and pool[last].time_ms > newest:
        newest = pool[last].time_ms
    kept = retained_from(pool, first, end, newest, retention, max_events)
    before = position_before(pool, kept, end, t)
    # With a type: for a plain 0 numba would compile all of it once more.
    compute_row(pool, kept, before, np.int64(0), t, event, has_event, out, values, stamp, vectors, columns)

@numba.njit(**INNER)
def compute_many(pool, start, length, slots, times, event, has_event, retention, max_events, X,
                 values, stamp, vectors, columns):
    """Vectors of customers, each as of its moment, without an event to compare with."""
    for i in range(slots.shape[0]):
        stamp += np.uint64(1 << 32)
        first = start[slots[i]]
        compute_as_of(pool, first, first + length[slots[i]], times[i], event, has_event, retention,
                      max_events, X[i], values, stamp, vectors, columns)
'''


def _load_kernel(features: Sequence[Feature], clock: Clock = UTC) -> Any:
    """Import the generated module from a file, so that numba can keep its machine code beside it."""
    source = generate(features, clock) + _CHUNK_SOURCE
    # The helpers' text, the constants and numba's version count too: numba does not see a change in
    # what a cached function calls, and freezes global arrays into it.
    scales = hashlib.sha256(MINOR_UNITS.tobytes()).hexdigest()
    helpers = Path(kernels.__file__).read_text() + Path(clocks.__file__).read_text()
    basis = source + helpers + scales + numba.__version__
    name = f"tidegate_kernel_{hashlib.sha256(basis.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    path = _kernel_folder() / f"{name}.py"
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(source)
        partial.replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:  # pragma: no cover
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _kernel_folder() -> Path:
    """Where compiled kernels live: beside the code, else (read-only image) under the temporary folder."""
    for folder in (Path(__file__).parent / "__pycache__", Path(tempfile.gettempdir()) / "tidegate-kernels"):
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="tidegate-kernels-"))


@dataclass(frozen=True, slots=True)
class ChunkFeatures:
    """Features of a chunk of `n` events.

    Attributes:
        X: `(n, n_features)`, columns in declaration order; NaN is unknown. Rows of duplicates are NaN.
        status: `(n,)`, `kernels.ACCEPTED` or `kernels.DUPLICATE`.
        flags: `(n,)`, bits of `kernels.FLAG_*`.
        replaced: `(n,)` what each correction replaced, empty records for others; `(0,)` where no event of the
            chunk says that it is one.
    """

    X: Matrix
    status: npt.NDArray[np.int8]
    flags: npt.NDArray[np.int8]
    replaced: Records = field(default_factory=lambda: np.zeros(0, dtype=RECORD))


class Engine:
    """Computes one list of declarations. Holds scratch memory only: no state of any customer.

    Threads that share it wait for each other.

    Args:
        features: What is computed from a customer's history.
        entities: What is computed elsewhere (`features.entity_counts`) and stands last in every vector; here
            these columns stay unknown.
        attributes: What only a message says (`features.attributes`); these columns stand before those of
            entities, and are what `compute_chunk` is given.
        clock: Of hours and weekdays.
    """

    def __init__(
        self,
        features: Sequence[Feature] = FEATURES,
        entities: Sequence[EntityFeature] = (),
        attributes: Sequence[AttributeFeature] = (),
        clock: Clock = UTC,
    ) -> None:
        self.features: tuple[Feature | EntityFeature | AttributeFeature, ...] = (
            *map(clock.say, features),
            *attributes,
            *entities,
        )
        self.entities = tuple(entities)
        self.attributes = tuple(attributes)
        self.attribute_columns = slice(len(features), len(features) + len(attributes))
        self.names = tuple(feature.name for feature in self.features)
        # How long before an event its customer's longest window begins.
        self.reach_ms = max((feature.edge_ms for feature in features), default=0)
        self.hash = (
            declaration_hash(features)
            + clock.identity
            + (f"-{entity_hash(entities)}" if entities else "")
            + (f"-attributes-{attribute_hash(attributes)}" if attributes else "")
        )
        self._kernel = _load_kernel(features, clock)
        self._vectors = np.zeros((self._kernel.N_VECTORS, 32))
        self._columns = np.zeros(1, dtype=COLUMNS)
        self._calls = 0
        self._lock = Lock()
        self._grow_sets(1024)

    @property
    def chosen(self) -> dict[str, str]:
        """Entities and attributes that are on, as settings name them."""
        return {
            "entities": ",".join(dict.fromkeys(feature.entity for feature in self.entities)),
            "attributes": ",".join(names_of(self.attributes)),
        }

    @property
    def memory_ms(self) -> int:
        """How long before an event what happened may still change its vector.

        As long as a history or an entity keeps anything, and before that as long as a history knows ids by
        which it tells that what came then was there already.
        """
        return max(RETENTION_MS, *(TILE_MS * tiles for tiles in kept_tiles(self.entities))) + RETENTION_MS

    def _grow_sets(self, capacity: int) -> None:
        self._values = np.zeros((self._kernel.N_SETS, capacity), dtype=np.uint64)

    def _stamp(self, longest: int, calls: int) -> np.uint64:
        """A stamp that this many calls can count on from, with sets that hold so many values."""
        # Half full at most: a full open-addressing set would search for ever.
        needed = 2 * min(longest, MAX_EVENTS)
        if needed > self._values.shape[1]:
            self._grow_sets(1 << (needed - 1).bit_length())
        if self._calls + calls >= 1 << 32:
            self._values[:] = 0
            self._calls = 0
        first, self._calls = self._calls, self._calls + calls
        return np.uint64(first << 32)

    def compute_chunk(
        self,
        arena: HistoryArena,
        events: Records,
        slots: npt.NDArray[np.int64],
        attributes: Matrix | npt.NDArray[np.float32] | None = None,
    ) -> ChunkFeatures:
        """Compute events in order and put each accepted one into its customer's history.

        Args:
            arena: Histories; changed in place.
            events: `(n,)` records, in the order of the log.
            slots: `(n,)` the customers' slots in the arena.
            attributes: `(n, n_attributes)` of `features.attributes`; unknown where they are not given.
        """
        n = len(events)
        arena.reserve(slots)
        with self._lock:
            stamp = self._stamp(int(arena.length[slots].max(initial=0)) + n, n)
            X = np.full((n, len(self.names)), np.nan)
            status = np.zeros(n, dtype=np.int8)
            flags = np.zeros(n, dtype=np.int8)
            replaced = np.zeros(n if events["revision"].any() else 0, dtype=RECORD)
            self._kernel.compute_chunk(
                arena.pool,
                arena.start,
                arena.length,
                events,
                slots,
                True,
                RETENTION_MS,
                MAX_EVENTS,
                X,
                status,
                flags,
                replaced,
                self._values,
                stamp,
                self._vectors,
                self._columns,
            )
        if attributes is not None:
            X[:, self.attribute_columns] = attributes
        return ChunkFeatures(X, status, flags, replaced)

    def compute(self, history: Records, event: Records | None, as_of_ms: int) -> npt.NDArray[np.float64]:
        """Features of one customer at one moment, from records before it.

        Args:
            history: `(n,)` records in time order; those at or after `as_of_ms` are not looked at.
            event: `(1,)` the event to score, or `None` for a lookup: what compares with an event
                is then unknown.
            as_of_ms: The event's time, or the moment of the lookup.

        Returns:
            `(n_features,)` in declaration order; NaN is unknown.
        """
        with self._lock:
            # The kernel's first stamp is the one behind the one it is given, here it is given its own.
            stamp = self._stamp(len(history), 1) + np.uint64(1 << 32)
            out = np.full(len(self.names), np.nan)
            scored = event if event is not None else _NO_EVENT
            self._kernel.compute_as_of(
                history,
                0,
                len(history),
                as_of_ms,
                scored[0],
                event is not None,
                RETENTION_MS,
                MAX_EVENTS,
                out,
                self._values,
                stamp,
                self._vectors,
                self._columns,
            )
        return out

    def compute_many(
        self, arena: HistoryArena, slots: npt.NDArray[np.int64], as_of_ms: npt.NDArray[np.int64]
    ) -> Matrix:
        """`compute` of customers in the arena, each as of its own moment and without an event.

        Args:
            arena: Histories; not changed.
            slots: `(n,)` the customers' slots.
            as_of_ms: `(n,)` the moments.

        Returns:
            `(n, n_features)` in declaration order; NaN is unknown.
        """
        with self._lock:
            stamp = self._stamp(int(arena.length[slots].max(initial=0)), len(slots))
            X = np.full((len(slots), len(self.names)), np.nan)
            self._kernel.compute_many(
                arena.pool,
                arena.start,
                arena.length,
                slots,
                as_of_ms,
                _NO_EVENT[0],
                False,
                RETENTION_MS,
                MAX_EVENTS,
                X,
                self._values,
                stamp,
                self._vectors,
                self._columns,
            )
        return X

    def warm_up(self) -> None:
        """Compile everything now: the first event should not wait for it."""
        arena, record = HistoryArena(), np.zeros(1, dtype=RECORD)
        slot = arena.put("", History.empty())
        self.compute_chunk(arena, record, np.array([slot]))
        self.compute(arena.records(slot), None, 0)
        slots = np.array([slot])
        self.compute_many(arena, slots, np.array([0]))
        known, number = kernels.numbered(slots)
        kernels.first_of_day(np.array([0]), number, arena.churn_days(known), 1)
        kernels.add_totals(arena.headers, np.zeros(1, dtype=RECORD), slots, empty_headers(1))
        kernels.newest_times(arena.pool, arena.start, arena.length, slots)
        for stored in (
            encode(History.empty()) + record.tobytes(),
            encode_header(Totals(), len(packed := pack(record))) + packed,
        ):
            decode(stored)
