import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.event_files import SCHEMA, EventFiles, event_row
from infra.event_rows import CustomerRows
from schemas.errors import HistoryError
from tests.scoring import at

COLUMNS = ["offset", "customer_id"]
# Whose order in bytes matters.
IDS = ["a", "b", "c", "Z", "é", "日本", "zz", "a b", "0", "x" * 40]
SCORE = {
    "score": 0.5,
    "decision": "allow",
    "flags": [],
    "reasons": [],
    "model": {"version": "v1"},
    "scored_at": "2026-01-02T03:04:05.678Z",
}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A file of many row groups."""
    files = EventFiles(tmp_path_factory.mktemp("events"))
    rows = [event_row(at(0.1, customer_id=IDS[n % 10]), SCORE, 0, n) for n in range(200)]
    (file,) = files.write(rows)
    table = pq.read_table(files.root / file.path, schema=SCHEMA)
    pq.write_table(table, files.root / file.path, row_group_size=7)
    return files.root, file.path, table.to_pylist()


@pytest.mark.parametrize("kept_bytes", [0, 3_000, 1 << 20])
@given(asked=st.lists(st.sets(st.sampled_from([*IDS, "nobody", "", "~"]), min_size=1), max_size=4))
def test_the_rows_of_customers_are_those_a_look_at_all_rows_finds(log, asked, kept_bytes):
    root, path, rows = log
    found = CustomerRows(root, COLUMNS, kept_bytes=kept_bytes)
    for customers in asked:
        wanted = [{n: r[n] for n in COLUMNS} for r in rows if r["customer_id"] in customers]
        assert found.read([path], customers).to_pylist() == wanted
        assert found.read([path, path], customers).to_pylist() == wanted + wanted


def test_a_file_without_the_customer_gives_the_same_columns(log):
    root, path, _ = log
    assert CustomerRows(root, COLUMNS).read([path], ["~~"]).schema.names == COLUMNS
    assert CustomerRows(root).read([path], ["~~"]).schema.names == SCHEMA.names


def test_what_is_known_of_files_is_bounded_and_forgotten_when_they_no_longer_count(log):
    root, path, _ = log
    for name in ("one.parquet", "two.parquet"):
        (root / name).write_bytes((root / path).read_bytes())
    found = CustomerRows(root, COLUMNS, kept_bytes=1 << 20)
    for name in ("one.parquet", "two.parquet"):
        assert len(found.read([name], ["a"])) == 20
    for name in ("one.parquet", "two.parquet"):
        (root / name).unlink()
    assert len(found.read(["one.parquet"], ["a"])) == 20
    found.keep_only(["two.parquet"])
    assert len(found.read(["two.parquet"], ["a"])) == 20
    with pytest.raises(HistoryError, match="is damaged"):
        found.read(["one.parquet"], ["a"])
