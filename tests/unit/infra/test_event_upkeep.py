import pytest

from infra.database import Database
from infra.event_files import EventFiles
from infra.event_upkeep import EventUpkeep
from infra.sink_commit import SinkCommit
from infra.sink_store import SinkStore
from schemas.errors import DependencyError
from tests.unit.infra.test_event_files import row

SOURCE = ("transactions", 0)


@pytest.fixture
def database(tmp_path):
    found = Database(f"sqlite:///{tmp_path}/tidegate.db")
    found.migrate()
    yield found
    found.close()


@pytest.fixture
def files(tmp_path):
    return EventFiles(tmp_path / "events")


def upkeep(database, files, **options):
    given = {
        "many": 2,
        "file_rows": 1000,
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
