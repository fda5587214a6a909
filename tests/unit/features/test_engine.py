import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features import engine as engine_module
from features.arena import HistoryArena
from features.catalogue import FEATURES
from features.codec import History, Totals, decode, encode
from features.definitions import MAX_EVENTS, declaration_hash
from features.engine import Engine
from features.entity_features import entity_features
from features.record import to_records
from schemas.transaction import Transaction

START_MS = 1_773_230_400_000


def records_of(*times):
    events = [
        Transaction(
            transaction_id=f"t-{n}",
            customer_id="c-1",
            event_time=START_MS + t,
            amount=10,
            currency="EUR",
            merchant_id=f"m-{n}",
        )
        for n, t in enumerate(times)
    ]
    return to_records(events, [1000] * len(events))


def test_engine_says_what_it_computes(engine):
    assert engine.features == FEATURES
    assert engine.names == tuple(f.name for f in FEATURES)
    assert engine.hash == declaration_hash(FEATURES)


def test_engine_says_how_far_back_anything_matters(engine):
    day_ms = 86_400_000
    # Histories are of 120 days, frauds of 365 days, a week ago and 30 days late; ids of 120 days before that.
    assert engine.memory_ms == 240 * day_ms
    assert Engine(entities=entity_features("device")).memory_ms == 240 * day_ms
    assert Engine(entities=entity_features("merchant,device")).memory_ms == (365 + 7 + 30 + 120) * day_ms


def test_no_events_are_no_rows(engine):
    found = engine.compute_chunk(HistoryArena(), records_of(), np.zeros(0, dtype=np.int64))

    assert found.X.shape == (0, len(FEATURES))
    assert len(found.status) == len(found.flags) == 0


def test_warm_engine_compiles_nothing_more(engine):
    def compiled():
        kernel = engine._kernel
        return [len(f.signatures) for f in (kernel.compute_row, kernel.compute_chunk, kernel.compute_as_of)]

    engine.warm_up()
    before = compiled()
    arena = HistoryArena()
    slot = arena.put("c-1", decode(encode(History(Totals(), records_of(1, 2)))))
    engine.compute_chunk(arena, records_of(1, 2, 3)[1:], np.array([slot, slot]))
    engine.compute(arena.records(slot), None, START_MS)
    engine.compute(decode(None).records, records_of(5), START_MS + 5)

    assert compiled() == before


def test_scratch_memory_grows_with_the_longest_history_and_is_bounded(engine):
    column = engine.names.index("merchant_distinct_30d")
    n = MAX_EVENTS + 10
    history = records_of(*range(n))
    history["merchant"] = np.arange(1, n + 1)

    assert engine.compute(history[:400], None, START_MS + n)[column] == 400
    assert engine.compute(history, None, START_MS + n)[column] == MAX_EVENTS
    assert engine._values.shape[1] == 2 * MAX_EVENTS
    assert engine.compute(history[:5], None, START_MS + n)[column] == 5


def test_threads_that_share_an_engine_compute_what_one_does(engine):
    """The chunk kernel lets other threads run, and all use the engine's scratch memory."""

    def chunks(seed):
        events = records_of(*range(seed, 2000 + seed))
        events["merchant"] = np.random.default_rng(seed).integers(1, 50 * seed, len(events))
        arena = HistoryArena()
        slots = np.full(len(events), arena.put("c-1", History.empty()))
        return engine.compute_chunk(arena, events, slots).X, engine.compute(events, None, START_MS + 3000)

    alone = [chunks(seed) for seed in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(chunks, range(1, 9)))

    for (X, vector), (same_X, same_vector) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(X, same_X)
        np.testing.assert_array_equal(vector, same_vector)


def test_events_of_a_chunk_may_be_more_than_a_history_had_room_for(engine):
    arena = HistoryArena()
    slot = arena.put("c-1", History.empty())
    n = 3000

    found = engine.compute_chunk(arena, records_of(*range(n)), np.full(n, slot))

    assert found.X[:, engine.names.index("txn_count_1h")].tolist() == list(range(n))
    assert found.X[-1, engine.names.index("merchant_distinct_1h")] == n - 1


def test_same_declarations_share_one_kernel(engine):
    reworded = Engine([replace(f, meaning="Other words.") for f in FEATURES])

    assert reworded._kernel is engine._kernel


def test_kernel_is_written_once_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "_kernel_folder", lambda: tmp_path)
    some = FEATURES[:3]

    def load():
        kernel = engine_module._load_kernel(some)
        monkeypatch.delitem(sys.modules, kernel.__name__)
        (path,) = (p for p in tmp_path.iterdir() if p.is_file())
        return kernel, path.name, path.stat().st_mtime_ns

    first, *written = load()
    second, *read = load()

    assert first is not second
    assert first.N_FEATURES == second.N_FEATURES == 3
    assert read == written
    assert written[0] == f"{first.__name__}.py"


def test_kernel_of_other_constants_is_another_kernel(tmp_path, monkeypatch):
    # Numba freezes the table of minor units into the machine code it keeps on disk.
    monkeypatch.setattr(engine_module, "_kernel_folder", lambda: tmp_path)
    one = engine_module._load_kernel(FEATURES[:2])
    monkeypatch.setattr(engine_module, "MINOR_UNITS", engine_module.MINOR_UNITS * 10)
    other = engine_module._load_kernel(FEATURES[:2])
    for kernel in (one, other):
        monkeypatch.delitem(sys.modules, kernel.__name__)

    assert one.__name__ != other.__name__


def test_kernel_lies_beside_the_code_if_it_can():
    assert engine_module._kernel_folder() == Path(engine_module.__file__).parent / "__pycache__"


@pytest.mark.parametrize("refused_by", ["mkdir", "access"])
def test_kernel_of_a_read_only_image_lies_under_the_temporary_folder(tmp_path, monkeypatch, refused_by):
    monkeypatch.setattr(engine_module.tempfile, "gettempdir", lambda: str(tmp_path))
    beside = Path(engine_module.__file__).parent
    if refused_by == "mkdir":
        mkdir = Path.mkdir

        def read_only(self, *args, **kwargs):
            if beside in self.parents:
                raise PermissionError(self)
            mkdir(self, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", read_only)
    else:
        monkeypatch.setattr(engine_module.os, "access", lambda path, mode: beside not in Path(path).parents)

    assert engine_module._kernel_folder() == tmp_path / "tidegate-kernels"


def test_kernel_has_a_folder_of_its_own_where_nothing_else_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module.os, "access", lambda path, mode: False)
    monkeypatch.setattr(engine_module.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(engine_module.tempfile, "mkdtemp", lambda prefix: str(tmp_path / f"{prefix}x"))

    assert engine_module._kernel_folder() == tmp_path / "tidegate-kernels-x"
