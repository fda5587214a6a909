import os
from dataclasses import replace
from errno import EIO, ENOSPC, EROFS
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra import event_files
from infra.event_files import SCHEMA, EventFiles, event_row
from infra.event_mark import NAME, DiskError, claim
from infra.sink_store import SinkFenced
from infra.unnamed_files import unnamed_files
from schemas.errors import DependencyError, HistoryError
from schemas.fields import to_epoch_ms
from tests.scoring import DAY_MS, START, at

SCORE = {
    "score": 0.25,
    "decision": "allow",
    "flags": ["late"],
    "reasons": [{"feature": "f", "value": None}],
    "model": {"version": "v3"},
    "scored_at": "2026-01-02T03:04:05.678Z",
}
START_DAY = int(START.timestamp() * 1000) // DAY_MS


class Marks:
    """A database of one deployment."""

    known = None

    def mark(self):
        return self.known

    def set_mark(self, mark):
        self.known = mark


def row(offset, day, customer="c-1", **fields):
    return event_row(at(day, customer_id=customer, **fields), SCORE, 0, offset)


def read(files, file):
    return pq.read_table(files.root / file.path, schema=SCHEMA).to_pylist()


def test_rows_become_one_file_for_each_day_in_a_folder_of_its_name(tmp_path):
    files = EventFiles(tmp_path / "events")
    written = files.write([row(0, 0.5), row(1, 0.2), row(2, 3.0), row(3, 0.999999)])
    assert [(f.day - START_DAY, f.rows) for f in written] == [(0, 3), (3, 1)]
    assert [f.path.split("/")[0] for f in written] == ["day=2025-09-01", "day=2025-09-04"]
    times = [at(d).event_time_ms for d in (0.2, 0.999999)]
    assert [written[0].min_ms, written[0].max_ms] == times
    assert written[0].bytes == (files.root / written[0].path).stat().st_size
    assert not list(files.root.rglob("*.partial"))


def test_what_is_read_back_is_what_was_written(tmp_path):
    files = EventFiles(tmp_path)
    sent = row(7, 1.0, "日本 / c", amount="12.345", currency="KWD", merchant_id="m", latitude=1.5)
    (file,) = files.write([sent])
    (found,) = read(files, file)
    assert found["amount_minor"] == 12345
    assert found["customer_id"] == "日本 / c"
    assert found["event_time"].timestamp() * 1000 == sent["event_time"]
    assert found["reasons"] == '[{"feature":"f","value":null}]'
    assert found["flags"] == ["late"]
    assert found["merchant_country"] is None
    assert found["scored_at"].isoformat(timespec="milliseconds") == "2026-01-02T03:04:05.678+00:00"


def test_a_merged_file_has_all_rows_by_customer(tmp_path):
    files = EventFiles(tmp_path)
    parts = [
        files.write([row(n, 0.1 + n / 100, c)])[0] for n, c in enumerate(("c-2", "c-1", "c-3", "c-1", "c-2"))
    ]
    merged = files.merge(parts)
    assert [r["customer_id"] for r in read(files, merged)] == ["c-1", "c-1", "c-2", "c-2", "c-3"]
    assert [r["offset"] for r in read(files, merged)] == [1, 3, 0, 4, 2]


def test_an_erasure_takes_what_happened_until_the_request_and_leaves_files_of_others_alone(tmp_path):
    files = EventFiles(tmp_path)
    # Scored on the second of January, the events are of the September before.
    sent = [row(n, n / 10, c) for n, c in enumerate(("c-1", "c-2", "c-1", "c-3", "c-1"))]
    (mixed,) = files.write(sent)
    (others,) = files.write([row(9, 2.0, "c-2")])
    (only,) = files.write([row(10, 3.0, "c-1")])
    until_ms = 1 + to_epoch_ms(sent[0]["scored_at"])
    replaced, stay = files.erase([mixed, others, only], {"c-1": until_ms, "nobody": until_ms})
    assert (set(replaced), replaced[only], stay) == ({mixed, only}, None, [])
    assert [(r["customer_id"], r["offset"]) for r in read(files, replaced[mixed])] == [("c-2", 1), ("c-3", 3)]
    assert replaced[mixed].day == mixed.day


def test_what_happened_and_was_scored_after_the_request_is_of_a_new_customer(tmp_path):
    files = EventFiles(tmp_path)
    old, new = row(0, 1.0), row(1, 2.0)
    until_ms = old["event_time"]
    (file, later) = files.write(
        [old | {"scored_at": at(1.0).event_time}, new | {"scored_at": at(2.0).event_time}]
    )
    replaced, stay = files.erase([file, later], {"c-1": until_ms})
    assert replaced == {file: None}
    assert stay == [
        {
            "customer_id": "c-1",
            "event_time": new["event_time"],
            "score": 0.25,
            "decision": "allow",
            "flags": ["late"],
        }
    ]
    # One that claims to be of a later time than the request that followed its score.
    (claimed,) = files.write([new | {"scored_at": at(1.0).event_time}])
    assert files.erase([claimed], {"c-1": until_ms})[0] == {claimed: None}
    assert files.erase([later], {"c-1": until_ms}) == ({}, stay)


def test_a_damaged_file_is_an_error_that_names_the_log(tmp_path):
    files = EventFiles(tmp_path)
    (file,) = files.write([row(0, 0)])
    (tmp_path / file.path).write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(HistoryError, match="is damaged"):
        files.merge([file])
    with pytest.raises(HistoryError, match="is damaged"):
        files.merge([replace(file, path="day=2025-09-01/nowhere.parquet")])


def test_strays_of_a_crash_are_found_once_they_are_old(tmp_path):
    files = EventFiles(tmp_path)
    files.mark = claim(tmp_path, Marks(), [])
    kept, stray = (files.write([row(n, 0)])[0] for n in range(2))
    (tmp_path / "day=2025-09-01" / "x.partial").write_bytes(b"half")
    assert files.strays({kept.path}, 3600) == []
    for path in tmp_path.glob("*/*.*"):
        os.utime(path, (1, 1))
    assert set(files.strays({kept.path}, 3600)) == {stray.path, "day=2025-09-01/x.partial"}
    files.remove([stray.path, "day=2025-09-01/x.partial", "day=2025-09-01/gone.parquet"])
    assert files.strays({kept.path}, 3600) == []


def test_a_folder_that_cannot_be_written_is_a_dependency_away(tmp_path):
    (tmp_path / "events").write_text("a file, not a folder")
    with pytest.raises(DependencyError, match="takes no files"):
        EventFiles(tmp_path / "events").write([row(0, 0)])


def full_after(monkeypatch, files):
    """A disk that has room for so many files."""
    written = []

    def write(*args, **options):
        if len(written) == files:
            raise OSError(ENOSPC, "No space left on device")
        written.append(args)
        return real(*args, **options)

    real = pq.write_table
    monkeypatch.setattr(pq, "write_table", write)


def parquet(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.p*"))


def test_a_disk_that_has_room_for_some_files_of_a_batch_keeps_none_of_them(tmp_path, monkeypatch):
    full_after(monkeypatch, 2)
    with pytest.raises(DependencyError, match="No space left"):
        EventFiles(tmp_path).write([row(n, n) for n in range(3)])
    assert parquet(tmp_path) == []


def test_a_disk_that_has_room_for_half_an_erasure_keeps_what_was_there_and_no_more(tmp_path, monkeypatch):
    files = EventFiles(tmp_path)
    both = files.write([row(n, n // 2, f"c-{n % 2}") for n in range(4)])
    full_after(monkeypatch, 1)
    with pytest.raises(DependencyError, match="No space left"):
        files.erase(both, {"c-1": 2**50})
    assert parquet(tmp_path) == sorted(file.path for file in both)


def test_a_file_whose_folder_does_not_reach_the_disk_is_removed(tmp_path, monkeypatch):
    def flush(path):
        if path.is_dir():
            raise OSError(EIO, "Input/output error")

    monkeypatch.setattr(event_files, "_flush", flush)
    with pytest.raises(DependencyError, match="Input/output error"):
        EventFiles(tmp_path).write([row(0, 0)])
    assert parquet(tmp_path) == []


def test_a_disk_that_lets_nothing_go_or_cannot_be_read_is_a_dependency_away(tmp_path, monkeypatch):
    files = EventFiles(tmp_path)
    files.mark = claim(tmp_path, Marks(), [])
    (file,) = files.write([row(0, 0)])

    def refuse(*args, **options):
        raise OSError(EROFS, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(DiskError, match="Read-only") as refused:
            files.remove([file.path])
        patched.setattr(Path, "stat", refuse)
        with pytest.raises(DiskError, match="Read-only"):
            files.strays(set(), 3600)
    assert refused.value.dependency == "disk"
    assert parquet(tmp_path) == [file.path]


def write_and_fail(files, failure):
    with unnamed_files(files) as written:
        written += files.write([row(0, 0)])
        raise failure


@pytest.mark.parametrize("failure", [SinkFenced("another"), HistoryError("damaged"), DiskError("full")])
def test_files_that_are_certainly_not_named_go_with_the_failure(tmp_path, failure):
    with pytest.raises(type(failure)):
        write_and_fail(EventFiles(tmp_path), failure)
    assert parquet(tmp_path) == []


def test_files_that_a_lost_answer_may_have_named_stay(tmp_path):
    with pytest.raises(DependencyError):
        write_and_fail(EventFiles(tmp_path), DependencyError("the database does not answer"))
    assert len(parquet(tmp_path)) == 1


def test_strays_in_a_folder_without_a_mark_are_somebody_elses(tmp_path):
    files = EventFiles(tmp_path)
    (file,) = files.write([row(0, 0)])
    os.utime(tmp_path / file.path, (1, 1))
    assert files.strays(set(), 3600) == []


def test_nothing_is_written_where_the_folders_volume_is_not_mounted_any_more(tmp_path):
    files = EventFiles(tmp_path / "events")
    files.mark = claim(files.root, Marks(), [])
    files.root.rename(tmp_path / "elsewhere")
    for empty in (False, True):
        if empty:
            files.root.mkdir()
        with pytest.raises(HistoryError, match="is its volume mounted"):
            files.write([row(0, 0)])
        with pytest.raises(HistoryError, match="is its volume mounted"):
            files.strays(set(), 3600)
    assert not list(files.root.iterdir())


def test_a_folder_of_another_deployment_is_neither_written_nor_cleaned(tmp_path):
    ours, theirs = EventFiles(tmp_path / "ours"), EventFiles(tmp_path / "theirs")
    marks = Marks()
    claim(ours.root, marks, [])
    theirs.mark = claim(theirs.root, Marks(), [])
    theirs.write([row(0, 0)])
    with pytest.raises(HistoryError, match="is of another database"):
        claim(theirs.root, marks, [])
    with pytest.raises(HistoryError, match="the database names none"):
        claim(theirs.root, Marks(), [])
    assert claim(ours.root, marks, []) == marks.known == (ours.root / NAME).read_text().strip()


def test_a_deployment_without_a_mark_gets_one_where_all_files_are_there(tmp_path):
    files, marks = EventFiles(tmp_path), Marks()
    (file,) = files.write([row(0, 0)])
    with pytest.raises(HistoryError, match="does not have 1 of 2 files"):
        claim(tmp_path, marks, [file.path, "day=2025-09-01/gone.parquet"])
    assert marks.known is None
    files.mark = claim(tmp_path, marks, [file.path])
    assert files.write([row(1, 0)])


def test_a_crash_between_folder_and_database_leaves_a_mark_that_is_taken_over(tmp_path):
    first, second = Marks(), Marks()
    assert claim(tmp_path, first, []) == claim(tmp_path, second, [])
