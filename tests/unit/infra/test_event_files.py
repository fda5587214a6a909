import os
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from infra.event_files import SCHEMA, EventFiles, event_row
from schemas.errors import DependencyError, HistoryError
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


def test_a_merged_file_has_all_rows_by_customer_and_can_leave_customers_out(tmp_path):
    files = EventFiles(tmp_path)
    parts = [
        files.write([row(n, 0.1 + n / 100, c)])[0] for n, c in enumerate(("c-2", "c-1", "c-3", "c-1", "c-2"))
    ]
    merged = files.merge(parts)
    assert [r["customer_id"] for r in read(files, merged)] == ["c-1", "c-1", "c-2", "c-2", "c-3"]
    assert [r["offset"] for r in read(files, merged)] == [1, 3, 0, 4, 2]
    without = files.merge([merged], without=["c-1", "nobody"])
    assert Counter(r["customer_id"] for r in read(files, without)) == {"c-2": 2, "c-3": 1}
    assert files.merge([without], without=["c-2", "c-3"]) is None


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
    kept, stray = (files.write([row(n, 0)])[0] for n in range(2))
    (tmp_path / "day=2025-09-01" / "x.partial").write_bytes(b"half")
    assert files.strays({kept.path}, 3600) == []
    for path in tmp_path.rglob("*.*"):
        os.utime(path, (1, 1))
    assert set(files.strays({kept.path}, 3600)) == {stray.path, "day=2025-09-01/x.partial"}
    files.remove([stray.path, "day=2025-09-01/x.partial", "day=2025-09-01/gone.parquet"])
    assert files.strays({kept.path}, 3600) == []


def test_a_folder_that_cannot_be_written_is_a_dependency_away(tmp_path):
    (tmp_path / "events").write_text("a file, not a folder")
    with pytest.raises(DependencyError, match="takes no files"):
        EventFiles(tmp_path / "events").write([row(0, 0)])
