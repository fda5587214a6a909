import bz2
import gzip
import lzma
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import tabular
from infra.tabular import Batch, CsvFormat, open_table
from schemas.errors import ConfigError


def read(path: Path, *wanted: str, batch_rows: int = 3, **csv_format: object) -> list[Batch]:
    with open_table(path, CsvFormat.model_validate(csv_format)) as table:
        return list(table.batches(wanted or table.columns, batch_rows))


def cells(batches: Sequence[Batch], column: str) -> list[object]:
    return [cell for batch in batches for cell in batch.columns[column]]


def saved(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


def test_csv_is_read_in_batches_as_text(csv: Path) -> None:
    saved(csv, "a,b\n" + "".join(f"{i},x{i}\n" for i in range(7)))
    batches = read(csv)
    assert [(b.first_row, b.size) for b in batches] == [(1, 3), (4, 3), (7, 1)]
    assert cells(batches, "a") == [str(i) for i in range(7)]
    assert [b.line_of(b.first_row) for b in batches] == [2, 5, 8]


def test_only_wanted_columns_are_kept(csv: Path) -> None:
    (batch,) = read(saved(csv, "a,b,c\n1,2,3\n"), "c")
    assert dict(batch.columns) == {"c": ["3"]}


def test_lines_are_the_file_s_own_where_cells_span_lines_and_lines_are_blank(csv: Path) -> None:
    saved(csv, 'a,b\n1,"two\nlines"\n\n\n2,x\nshort\n3,y\n')
    (batch,) = read(csv, batch_rows=10)
    assert batch.lines == [2, 6, 7, 8]
    assert batch.broken == {2: "the row has 1 cells; there are 2 columns"}
    assert list(batch.columns["b"]) == ["two\nlines", "x", None, "y"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2,3", "the row has 3 cells; there are 2 columns"),
        ("1", "the row has 1 cells; there are 2 columns"),
        ('1,"2"x', "the row is not CSV: ',' expected after '\"'"),
        ("1," + "x" * 200_000, r"the row is not CSV: field larger than field limit"),
    ],
)
def test_a_broken_row_costs_only_itself(csv: Path, row: str, reason: str) -> None:
    (batch,) = read(saved(csv, f"a,b\n0,good\n{row}\n9,good\n"))
    assert list(batch.columns["a"]) == ["0", None, "9"]
    assert list(batch.broken) == [1]
    assert batch.broken[1].startswith(reason)
    assert batch.lines == [2, 3, 4]


def test_a_quote_that_is_never_closed_is_one_broken_row_to_the_end(csv: Path) -> None:
    (batch,) = read(saved(csv, 'a,b\n1,x\n2,"open\n3,y\n4,z\n'))
    assert batch.broken == {1: "the row up to line 5 is not CSV: unexpected end of data"}


def test_a_delimiter_at_the_end_of_lines_is_no_cell(csv: Path) -> None:
    (batch,) = read(saved(csv, "a,b\n1,2,\n3,4,,\n"))
    assert not batch.broken
    assert list(batch.columns["b"]) == ["2", "4"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_usual_delimiters_are_found(csv: Path, delimiter: str) -> None:
    saved(csv, delimiter.join("ab") + "\n" + delimiter.join("12") + "\r\n")
    assert cells(read(csv), "b") == ["2"]


def test_how_a_file_is_written_can_be_said(csv: Path) -> None:
    saved(csv, "a report\nof today\n'é;1';2\n", "latin-1")
    (batch,) = read(csv, delimiter=";", quote="'", encoding="latin-1", skip_lines=2, header=["x", "y"])
    assert {name: list(column) for name, column in batch.columns.items()} == {"x": ["é;1"], "y": ["2"]}
    assert batch.lines == [3]


def test_columns_aligned_with_spaces_are_read(csv: Path) -> None:
    batches = read(
        saved(csv, " id  day      sum\n  1  19970101  11.77 \n 22  19970112  12.00\n"), delimiter=" "
    )
    assert cells(batches, "id") == ["1", "22"]
    assert cells(batches, "sum") == ["11.77", "12.00"]


def test_quotes_can_be_ordinary_characters(csv: Path) -> None:
    assert cells(read(saved(csv, 'a,b\n5" pipe,1\n'), quote=""), "a") == ['5" pipe']


def test_byte_order_mark_and_spaces_are_no_part_of_names(csv: Path) -> None:
    with open_table(saved(csv, "\ufeffid , amount\n1,2\n")) as table:
        assert table.columns == ("id", "amount")


def test_bytes_that_are_no_text_stay_in_their_row(csv: Path) -> None:
    csv.write_bytes(b"a,b\n1,caf\xe9\n2,x\n")
    (batch,) = read(csv)
    assert list(batch.columns["b"]) == ["caf\udce9", "x"]


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(gzip.compress(b"a\n1\n2\n"))
    with open_table(path) as table:
        assert cells(list(table.batches(["a"])), "a") == ["1", "2"]
        assert table.total_rows is None
        assert table.progress() == 1.0


def test_a_cut_gzip_is_an_error_after_the_rows_before_it(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    whole = gzip.compress(("a\n" + "".join(f"{i * i * 7919}\n" for i in range(50_000))).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with open_table(path) as table:
        batches = table.batches(["a"], 1000)
        assert next(batches).size == 1000
        with pytest.raises(ConfigError, match=r"data\.csv\.gz: is damaged after line \d+"):
            list(batches)


def test_progress_of_csv_is_by_bytes(csv: Path) -> None:
    saved(csv, "a\n" + "1234567\n" * 100_000)
    with open_table(csv) as table:
        shares = [table.progress() for _ in table.batches(["a"], 20_000)]
    assert shares == sorted(shares)
    assert 0.1 < shares[0] < 0.3
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\x89PNG\x00\x01\x02\n", "neither CSV nor Parquet"),
        (b"x" * (1 << 20), "neither CSV nor Parquet"),
        ("a,b\n1,2\n".encode("utf-16"), "neither CSV nor Parquet.*encoding: utf-16"),
        (b'a,"b\n', "cannot be read as CSV"),
        (b"\x1f\x8b\x00", "cannot be read as CSV"),
        (b"PAR1....", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_table_is_refused(csv: Path, content: bytes, problem: str) -> None:
    csv.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        open_table(csv)


def test_text_in_another_encoding_is_read_where_told(csv: Path) -> None:
    assert cells(read(saved(csv, "a,b\n1,ř\n", "utf-16"), encoding="utf-16"), "b") == ["ř"]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.csv: cannot be read: No such file"):
        open_table(tmp_path / "no.csv")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        open_table(tmp_path)


@pytest.mark.parametrize(
    ("start", "what"),
    [(b'{"id": 1}\n', "JSON"), (b'[{"id": 1}]', "JSON"), (b"PK\x03\x04rest", "a ZIP or Excel")],
)
def test_what_is_no_table_of_ours_is_called_by_its_name(tmp_path: Path, start: bytes, what: str) -> None:
    (tmp_path / "data.csv").write_bytes(start)
    with pytest.raises(ConfigError, match=rf"data\.csv: is {what}.*, not CSV or Parquet: write it as one"):
        open_table(tmp_path / "data.csv")


@pytest.mark.parametrize(
    ("packed", "packer"), [(bz2.compress(b"a,b\n1,2\n"), "bzip2"), (lzma.compress(b"a,b\n1,2\n"), "xz")]
)
def test_a_file_of_another_compression_is_told_what_to_do(tmp_path: Path, packed: bytes, packer: str) -> None:
    (tmp_path / "data.csv").write_bytes(packed)
    with pytest.raises(
        ConfigError, match=f"is compressed with {packer}: unpack it, or compress it with gzip"
    ):
        open_table(tmp_path / "data.csv")


def test_zstd_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "data.csv.zst").write_bytes(pa.compress(b"a,b\n1,2\n", "zstd", asbytes=True))
    with pytest.raises(ConfigError, match="is compressed with zstd"):
        open_table(tmp_path / "data.csv.zst")


def test_a_name_that_says_parquet_and_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a Parquet file, though its name says so"):
        open_table(saved(tmp_path / "data.parquet", "a,b\n1,2\n"))


def test_parquet_cells_are_python_values(tmp_path: Path) -> None:
    noon = datetime.fromisoformat("2020-03-01T12:00")
    table = pa.table(
        {
            "int": pa.array([1, None], pa.int16()),
            "float32": pa.array([36.713, None], pa.float32()),
            "text": pa.array(["é", None], pa.large_string()),
            "dictionary": pa.array(["x", "y"]).dictionary_encode(),
            "seconds": pa.array([noon, None], pa.timestamp("s")),
            "nanoseconds": pa.array([noon, None], pa.timestamp("ns")),
            "zoned": pa.array([noon, None], pa.timestamp("ms", "Europe/Prague")),
            "day": pa.array([date(2020, 3, 1), None]),
            "decimal": pa.array([Decimal("5.50"), None], pa.decimal128(9, 2)),
            "bool": pa.array([True, None]),
            "bytes": pa.array([b"caf\xe9", None], pa.binary()),
            "far": pa.array([2**62, 0], pa.int64()).cast(pa.timestamp("us"), safe=False),
            "list": pa.array([[1], None]),
        }
    )
    path = tmp_path / "data.parquet"
    pq.write_table(table, path)
    with open_table(path) as opened:
        assert opened.total_rows == 2
        assert "list" not in opened.columns
        (batch,) = opened.batches(opened.columns)
    first = {name: column[0] for name, column in batch.columns.items()}
    assert first.pop("far") == str(2**62)
    assert first == {
        "int": 1,
        "float32": 36.713,
        "text": "é",
        "dictionary": "x",
        "seconds": noon,
        "nanoseconds": noon,
        "zoned": noon.replace(tzinfo=UTC),
        "day": date(2020, 3, 1),
        "decimal": Decimal("5.50"),
        "bool": True,
        "bytes": "caf\udce9",
    }
    assert batch.line_of(1) is None


def test_parquet_is_read_in_batches_across_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "data"
    pq.write_table(pa.table({"a": list(range(10)), "b": list(range(10))}), path, row_group_size=4)
    with open_table(path) as table:
        batches = list(table.batches(["b"], 3))
        assert table.progress() == 1.0
    assert cells(batches, "b") == list(range(10))
    assert [b.first_row for b in batches] == [
        1 + sum(b.size for b in batches[:i]) for i in range(len(batches))
    ]
    assert all(b.size <= 3 for b in batches)


def test_a_damaged_parquet_page_is_an_error_with_the_row(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.table({"a": [f"{i * i}" for i in range(10_000)]}), path, row_group_size=1000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"data\.parquet: is damaged after row \d+"):
        read(path, "a", batch_rows=500)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install"):
        tabular.open_table(path)


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_batches_shared_out_are_those_of_one_reader(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".csv":
        path.write_text("a\n" + "".join(f"{i}\n" for i in range(10)))
    else:
        pq.write_table(pa.table({"a": list(range(10))}), path)

    def read_by(first: int, step: int) -> list[tuple[int, list[object]]]:
        with open_table(path) as table:
            return [
                (b.first_row, list(b.columns["a"])) for b in table.batches(["a"], 3, first=first, step=step)
            ]

    alone = read_by(0, 1)
    assert [row for row, _ in alone] == [1, 4, 7, 10]
    assert [read_by(first, 3) for first in range(3)] == [[alone[0], alone[3]], [alone[1]], [alone[2]]]
