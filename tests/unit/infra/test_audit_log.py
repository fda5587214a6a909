import base64
import multiprocessing
import os
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.audit_log import AuditLog, read_anchors, records, verify
from infra.key_ring import KeyRing
from schemas.errors import ConfigError, DependencyError

RING = KeyRing.of_text(
    "old:" + base64.b64encode(b"o" * 32).decode() + ",new:" + base64.b64encode(b"n" * 32).decode()
)
OLD = KeyRing.of_text("old:" + base64.b64encode(b"o" * 32).decode())
FILE = "audit-000001.jsonl"


def written(folder: Path, count: int, **options) -> AuditLog:
    log = AuditLog(folder, RING, **options)
    for number in range(count):
        log.append({"actor": "teller", "action": "read", "seen": number})
    return log


@pytest.fixture
def trail(tmp_path) -> Path:
    log = written(tmp_path, 20, anchor=tmp_path / "elsewhere" / "anchors.jsonl")
    log.close()
    return tmp_path


def lines(folder: Path) -> list[bytes]:
    return (folder / FILE).read_bytes().splitlines(keepends=True)


def anchors(folder: Path):
    return read_anchors(folder / "elsewhere" / "anchors.jsonl")


def test_an_untouched_trail_holds(trail):
    head = verify(trail, RING, anchors(trail))
    assert head.number == 20
    assert oct((trail / FILE).stat().st_mode)[-3:] == "600"
    assert [orjson.loads(line)["number"] for _, line in records(trail)] == list(range(1, 21))


def edited(found: list[bytes]) -> list[bytes]:
    return [
        line.replace(b'"actor":"teller"', b'"actor":"nobody"') if i == 7 else line
        for i, line in enumerate(found)
    ]


CHANGES = {
    "delete the first": (lambda found: found[1:], "does not follow record 0: records were deleted"),
    "delete one": (lambda found: found[:7] + found[8:], "record 9 does not follow record 7"),
    "delete some": (lambda found: found[:5] + found[11:], "record 12 does not follow record 5"),
    "edit one": (edited, "record 8 was edited"),
    "edit the newest": (
        lambda found: [*found[:-1], found[-1].replace(b"teller", b"nobody")],
        "record 20 was edited",
    ),
    "edit by adding a field": (
        lambda found: [line.replace(b'{"number":3', b'{"x":1,"number":3') for line in found],
        "record 3 was edited",
    ),
    "edit how records are written": (
        lambda found: [line.replace(b'":', b'": ', 1) for line in found],
        "record 1 was edited",
    ),
    "reorder two": (
        lambda found: [*found[:4], found[5], found[4], *found[6:]],
        "record 6 does not follow record 4: records were deleted, moved or added",
    ),
    "reorder all": (lambda found: found[::-1], "record 20 does not follow record 0"),
    "repeat one": (lambda found: found[:5] + found[4:], "record 5 does not follow record 5"),
    "put a line of something else in": (
        lambda found: [*found[:3], b"{}\n", *found[3:]],
        "jsonl:4: this is no audit record",
    ),
    "truncate by one": (
        lambda found: found[:-1],
        "ends with record 19, but record 20 was anchored: records were cut off",
    ),
    "truncate by many": (lambda found: found[:3], "ends with record 3, but record 20 was anchored"),
    "truncate to nothing": (lambda found: [], "ends with record 0, but record 20 was anchored"),
    "truncate in the middle of a record": (
        lambda found: [*found[:-1], found[-1][:50]],
        "jsonl:20: this is no audit record",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_trail_is_detected(trail, name):
    change, words = CHANGES[name]
    found = lines(trail)
    changed = change(found)
    assert changed != found
    (trail / FILE).write_bytes(b"".join(changed))
    with pytest.raises(ConfigError, match=words):
        verify(trail, RING, anchors(trail))


def test_what_is_cut_off_is_seen_by_the_anchor_only(trail):
    (trail / FILE).write_bytes(b"".join(lines(trail)[:15]))
    assert verify(trail, RING).number == 15
    with pytest.raises(ConfigError, match="ends with record 15, but record 20 was anchored"):
        verify(trail, RING, anchors(trail))


def test_a_trail_that_was_written_anew_with_the_key_does_not_fit_the_anchor(trail):
    (trail / FILE).unlink()
    written(trail, 25).close()
    verify(trail, RING)
    with pytest.raises(ConfigError, match="not the one that was anchored"):
        verify(trail, RING, anchors(trail))


@given(st.data())
def test_no_byte_can_be_changed(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("trail")
    written(folder, 3).close()
    content = bytearray((folder / FILE).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / FILE).write_bytes(content)
    with pytest.raises(ConfigError):
        verify(folder, RING)


def test_without_the_key_no_record_can_be_made(trail):
    forger = KeyRing.of_text("new:" + base64.b64encode(b"f" * 32).decode())
    log = AuditLog(trail, forger)
    log.append({"actor": "forger"})
    log.close()
    with pytest.raises(ConfigError, match="record 21 was edited"):
        verify(trail, RING)


def test_records_of_an_older_key_hold_while_the_key_is_there(tmp_path):
    old = AuditLog(tmp_path, OLD)
    old.append({"actor": "teller"})
    old.close()
    written(tmp_path, 1).close()
    assert verify(tmp_path, RING).number == 2
    with pytest.raises(ConfigError, match="the key new, which is not given"):
        verify(tmp_path, OLD)


def test_the_chain_goes_on_in_the_next_file(tmp_path):
    for _ in range(3):
        written(tmp_path, 10, segment_bytes=700).close()
    assert len(list(tmp_path.glob("audit-*.jsonl"))) > 5
    assert verify(tmp_path, RING).number == 30
    (tmp_path / "audit-000003.jsonl").unlink()
    with pytest.raises(ConfigError, match="does not follow"):
        verify(tmp_path, RING)


def test_a_file_that_was_begun_and_not_written_breaks_nothing(tmp_path):
    written(tmp_path, 2).close()
    (tmp_path / "audit-000002.jsonl").touch()
    written(tmp_path, 2).close()
    assert verify(tmp_path, RING).number == 4


def test_a_record_that_a_crash_cut_is_dropped_and_the_chain_goes_on(tmp_path):
    written(tmp_path, 3).close()
    with open(tmp_path / FILE, "ab") as file:
        file.write(b'{"number":4,"at":"20')
    written(tmp_path, 2).close()
    assert verify(tmp_path, RING).number == 5


def _write(folder: Path, count: int) -> None:
    written(folder, count, segment_bytes=20_000).close()


def test_many_processes_write_one_chain(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(tmp_path, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert verify(tmp_path, RING).number == 600


def test_a_disk_that_takes_nothing_is_told(tmp_path, monkeypatch):
    log = written(tmp_path, 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DependencyError, match="No space left"):
        log.append({"actor": "teller"})
    monkeypatch.undo()
    log.append({"actor": "teller"})
    log.close()
    assert verify(tmp_path, RING).number == 2


def test_a_disk_that_takes_a_part_keeps_the_chain_whole(tmp_path, monkeypatch):
    log = written(tmp_path, 1)
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:10]))
    with pytest.raises(DependencyError):
        log.append({"actor": "teller"})
    monkeypatch.undo()
    log.append({"actor": "teller"})
    log.close()
    assert verify(tmp_path, RING).number == 2


def test_a_customer_has_a_pseudonym_of_its_tenant(tmp_path):
    log = written(tmp_path, 1)
    names = {log.subject(t, c) for t in ("retail", "corporate") for c in ("c-1", "c-2")}
    assert len(names) == 4
    assert log.subject("retail", "c-1") == log.subject("retail", "c-1")
    log.close()


def test_a_trail_that_was_cut_off_and_went_on_does_not_fit_its_anchors(trail):
    """Whoever may write the files, and has no key, lets the service write the anchored numbers once more."""
    (trail / FILE).write_bytes(b"".join(lines(trail)[:12]))
    log = written(trail, 8, anchor=trail / "elsewhere" / "anchors.jsonl")
    log.close()
    assert verify(trail, RING).number == 20
    with pytest.raises(ConfigError, match="record 20 was anchored twice, with different codes"):
        verify(trail, RING, anchors(trail))


def test_an_anchor_that_a_crash_cut_does_not_hide_the_others(trail):
    path = trail / "elsewhere" / "anchors.jsonl"
    path.write_bytes(path.read_bytes() + b'{"number":3,"co')
    log = written(trail, 2, anchor=path)
    log.close()
    assert [note["number"] for note in anchors(trail)] == [20, 22]
    assert verify(trail, RING, anchors(trail)).number == 22


def test_a_file_of_anchors_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        list(read_anchors(tmp_path / "nowhere"))


def test_a_folder_without_a_trail_is_no_unbroken_one(tmp_path):
    with pytest.raises(ConfigError, match="has no audit trail"):
        verify(tmp_path, RING)
    written(tmp_path, 0).close()
    assert verify(tmp_path, RING).number == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:400]), "it got shorter"),
        (lambda path: path.unlink(), "its file was deleted"),
    ],
)
def test_a_trail_that_somebody_changes_under_us_is_not_gone_on_with(tmp_path, change, words):
    log = written(tmp_path, 5)
    change(tmp_path / FILE)
    with pytest.raises(DependencyError, match=words):
        log.append({"actor": "teller", "action": "read"})
    with pytest.raises(DependencyError, match=words):
        log.close()


def test_a_folder_that_cannot_be_one_and_a_trail_with_no_record_at_its_end_are_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used: File exists"):
        AuditLog(tmp_path / "file", RING)
    (tmp_path / FILE).write_text("what is this\n")
    with pytest.raises(ConfigError, match="ends with what is no record: run 'tidegate audit verify'"):
        AuditLog(tmp_path, RING)
