from collections import Counter

import pytest

from infra import event_upkeep
from infra.event_files import EventFiles
from infra.event_upkeep import EventUpkeep
from infra.sink_commit import SinkCommit
from infra.sink_store import SinkStore
from schemas.errors import DependencyError
from tests.unit.infra.test_event_files import row

SOURCE = ("transactions", 0)


@pytest.fixture
def files(tmp_path):
    return EventFiles(tmp_path / "events")


def upkeep(database, files, **options):
    given = {
        "many": 2,
        "file_rows": 1000,
        "budget_s": 60,
        "retired_s": 3600,
        "merged": lambda n: None,
        "crash": lambda p: None,
    }
    return EventUpkeep(database, files, **given | options)


def stored(database, files, days, rows=1):
    """A file of so many rows for each of these days."""
    written = [files.write([row(n, day) for n in range(rows)])[0] for day in days]
    store = SinkStore(database)
    reached = store.offsets()
    store.commit(SinkCommit(reached, {SOURCE: reached.get(SOURCE, 0) + 1}, written))
    return store


def on_disk(files):
    return {str(path.relative_to(files.root)) for path in files.root.glob("day=*/*")}


def test_a_database_that_takes_nothing_does_not_let_merged_files_pile_up(database, files, monkeypatch):
    store = stored(database, files, [0, 0])
    kept = upkeep(database, files)

    def away(self, old, new):
        raise DependencyError("locked")

    with monkeypatch.context() as patched:
        patched.setattr(SinkStore, "replace", away)
        for _ in range(3):
            with pytest.raises(DependencyError):
                kept.run(idle=True)
        assert len(on_disk(files)) == 3
    kept.run(idle=True)
    assert [file.rows for file in store.files()] == [2]
    assert on_disk(files) == store.named()


def test_a_merged_file_that_counts_stays_where_the_databases_answer_was_lost(database, files, monkeypatch):
    store = stored(database, files, [0, 0])
    kept, replace = upkeep(database, files), SinkStore.replace

    def lost(self, old, new):
        replace(self, old, new)
        raise DependencyError("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(SinkStore, "replace", lost)
        with pytest.raises(DependencyError):
            kept.run(idle=True)
    kept.run(idle=True)
    (file,) = store.files()
    assert (file.rows, file.path in on_disk(files)) == (2, True)


def test_late_events_of_many_days_do_not_make_more_files_with_every_flush(database, files):
    kept, days = upkeep(database, files, many=4), range(6)
    for flush in range(12):
        store = stored(database, files, days)
        kept.run(idle=False)
        of_day = Counter(file.day for file in store.files())
        # Fewer than four of each size: one row, four rows, sixteen rows.
        assert max(of_day.values()) <= 6, flush
    assert sum(file.rows for file in store.files()) == 12 * len(days)


def test_with_nothing_else_to_do_every_day_becomes_one_file(database, files):
    store = stored(database, files, [0, 1, 2] * 3)
    upkeep(database, files).run(idle=True)
    assert [file.rows for file in store.files()] == [3, 3, 3]


def test_when_the_time_is_up_the_day_with_the_most_files_was_merged(database, files):
    store = stored(database, files, [0, 0, 1, 1, 1, 2, 2])
    upkeep(database, files, budget_s=0).run(idle=True)
    assert sorted((file.day - store.files()[0].day, file.rows) for file in store.files()) == [
        (0, 1),
        (0, 1),
        (1, 3),
        (2, 1),
        (2, 1),
    ]


@pytest.mark.parametrize("idle", [False, True])
def test_no_merge_has_more_rows_in_memory_than_a_file_may_have(database, files, monkeypatch, idle):
    merges, merge = [], EventFiles.merge

    def watched(self, parts):
        merges.append(sum(file.rows for file in parts))
        return merge(self, parts)

    monkeypatch.setattr(EventFiles, "merge", watched)
    store = stored(database, files, [0] * 5, rows=40)
    upkeep(database, files, file_rows=100).run(idle)
    assert merges == [80, 80]
    assert sorted(file.rows for file in store.files()) == [40, 80, 80]


def test_thousands_of_small_files_are_merged_a_part_at_a_time(database, files, monkeypatch):
    monkeypatch.setattr(event_upkeep, "_AT_ONCE", 3)
    store = stored(database, files, [0] * 8)
    counts = []
    upkeep(database, files, merged=counts.append).run(idle=True)
    assert (max(counts), [file.rows for file in store.files()]) == (3, [8])
