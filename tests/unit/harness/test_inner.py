from harness.inner import InnerPath, LogRecord
from infra.memory_store import MemoryHistoryStore
from schemas.parse import dump
from tests.streaming import transaction


async def test_chunks_go_the_workers_way_and_every_step_is_timed(models):
    store = MemoryHistoryStore()
    path = InnerPath(store, models)
    await path.start()
    log = [LogRecord(n, b"c-1", dump(transaction(n)), 4_102_444_800_000) for n in range(30)]
    for start in range(0, 30, 7):
        await path.run(log[start : start + 7])

    assert path.times.outcomes["scored"] == 30
    assert {"parse", "load", "score", "encode", "pack"} <= set(path.times.seconds)
    state = await store.read("c-1")
    assert state is not None
    assert len(state.scores) == 10
