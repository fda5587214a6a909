from pathlib import Path

import pytest

from infra.plain_yaml import MAX_BYTES, load_plain_yaml, parse_plain_yaml
from schemas.errors import ConfigError


def test_words_stay_words() -> None:
    written = "{a: NO, b: 0742, c: 12:30, d: 2020-01-01, e: yes, f: 1_000, g: on}"
    assert parse_plain_yaml(written, "m") == {
        "a": "NO", "b": "0742", "c": "12:30", "d": "2020-01-01", "e": "yes", "f": "1_000", "g": "on",
    }  # fmt: skip


def test_numbers_true_and_null_are_what_they_are() -> None:
    written = "{a: 12, b: -1.5, c: 1e3, d: true, e: null, f: ~, g: , h: 0, i: .5}"
    assert parse_plain_yaml(written, "m") == {
        "a": 12, "b": -1.5, "c": 1000.0, "d": True, "e": None, "f": None, "g": None, "h": 0, "i": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("a: 1\na: 2", "m: line 2: 'a' is given twice"),
        ("a: {b: 1, b: 2}", "'b' is given twice"),
        ("a: [1", "m: line"),
        ("a: {b: Is it?, c: 1}", r"m: line 1: .* needs quotes"),
        ("- a\n- b", "holds no 'name: value' lines"),
        ("", "holds no 'name: value' lines"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("? [a, b]\n: 1", "a key is text or a number"),
        (b"\xff\xfe\x00", "is not YAML"),
    ],
)
def test_what_is_no_mapping_is_refused_with_its_place(written: str | bytes, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_plain_yaml(written, "m")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read: No such file"):
        load_plain_yaml(tmp_path / "no.yaml")


def test_data_given_as_mapping_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"a" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="is it the data"):
        load_plain_yaml(path)
