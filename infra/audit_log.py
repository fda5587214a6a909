"""The audit trail: who read, changed or erased what, in files that only grow.

Each record holds the code of the one before it and a code of its own (HMAC-SHA-256) over all of itself:
without the key no record can be changed, left out, moved or added. What is cut off at the end leaves a
right chain, so the newest code is noted elsewhere now and then: the anchor.

All processes of a machine write one chain. A lock is held while a record is added.
"""

import fcntl
import hmac
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog

from infra.key_ring import KeyRing
from schemas.errors import ConfigError, DependencyError
from schemas.fields import to_rfc3339

_log = structlog.get_logger()
_FIRST = "0" * 64
_SEGMENT_BYTES = 256 * 1024 * 1024
_TAIL_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain ends: number and code of the newest record."""

    number: int = 0
    code: str = _FIRST


class AuditLog:
    """Adds records to the chain in a folder.

    Args:
        folder: Holds `audit-000001.jsonl` and so on.
        keys: Keys of the codes; the newest is used.
        anchor: File for anchors, on another disk or machine; `None`: only the log of the process has them.
        now: Aware UTC time.
        segment_bytes: Size at which the next file is begun.
    """

    def __init__(
        self,
        folder: Path,
        keys: KeyRing,
        *,
        anchor: Path | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        segment_bytes: int = _SEGMENT_BYTES,
    ) -> None:
        self._folder, self._keys, self._anchor, self._now = folder, keys, anchor, now
        self._segment_bytes = segment_bytes
        self._lock: TextIO | None = None
        self._thread_lock = threading.Lock()
        self._number = 0
        self._file = -1
        self._size = 0
        self.head = Head()
        self._anchored = Head()
        self._synced = Head()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = open(folder / ".lock", "w")  # noqa: SIM115  (held open as long as this object)
            with self._locked():
                self._catch_up()
        except OSError as error:
            self._let_go()
            raise ConfigError(f"the audit trail in {folder} cannot be used: {_words(error)}") from error
        self._anchored = self._synced = self.head

    def subject(self, tenant: str, customer_id: str) -> str:
        """A customer's pseudonym in the trail: who has the key can find it again, nobody else."""
        return pseudonym(self._keys.current.secret, tenant, customer_id)

    def append(self, record: Mapping[str, Any]) -> bytes:
        """Add a record. It is in the file when this returns, though perhaps not on the disk.

        Returns:
            The record as it was written.

        Raises:
            DependencyError: It cannot be written.
        """
        try:
            with self._locked():
                self._catch_up()
                if self._size >= self._segment_bytes:
                    self._open(self._number + 1)
                key = self._keys.current
                line = {
                    "number": self.head.number + 1,
                    "at": to_rfc3339(self._now()),
                    **record,
                    "key": key.key_id,
                    "before": self.head.code,
                }
                code = _code(key.secret, line)
                written = orjson.dumps({**line, "code": code}) + b"\n"
                if os.write(self._file, written) != len(written):
                    os.ftruncate(self._file, self._size)
                    raise OSError("only a part was written")
                self._size += len(written)
                self.head = Head(self.head.number + 1, code)
                return written
        except OSError as error:
            raise DependencyError(f"the audit trail cannot be written: {_words(error)}") from error

    def sync(self) -> None:
        """Have what was added on the disk.

        Raises:
            DependencyError: It cannot be written.
        """
        if self._synced == self.head:
            return
        with self._locked():
            # A handle of its own: the next file may be begun meanwhile.
            head, file = self.head, os.dup(self._file)
        try:
            os.fsync(file)
        except OSError as error:
            raise DependencyError(f"the audit trail cannot be written: {_words(error)}") from error
        finally:
            os.close(file)
        self._synced = head

    def anchor(self) -> None:
        """Note the newest code elsewhere, if it is new.

        Raises:
            DependencyError: The trail is not what it was.
        """
        try:
            with self._locked():
                self._catch_up()
                head = self.head
        except OSError as error:
            raise DependencyError(f"the audit trail cannot be read: {_words(error)}") from error
        if head == self._anchored:
            return
        note = {"number": head.number, "at": to_rfc3339(self._now()), "code": head.code}
        _log.info("audit anchor", **note)
        if self._anchor is not None:
            try:
                self._anchor.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(self._anchor, "ab+") as file:
                    file.seek(max(0, file.tell() - 1))
                    # A crash may have left half a line.
                    begun = b"\n" if file.read(1) not in (b"", b"\n") else b""
                    file.write(begun + orjson.dumps(note) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                _log.error("the audit anchor cannot be written", error=error.strerror)
                return
        self._anchored = head

    def close(self) -> None:
        """Anchor the end and let go of files."""
        try:
            self.sync()
            self.anchor()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock is not None:
            self._lock.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The file lock keeps other processes out, the other one threads of this.
        with self._thread_lock:
            lock = self._lock
            if lock is None:
                raise OSError("it was let go of")
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        """Take over what other processes have added."""
        if self._number == 0:
            self._open(1)
        self._read_on()
        while self._path(self._number + 1).exists():
            self._open(self._number + 1)
            self._read_on()

    def _read_on(self) -> None:
        found = os.fstat(self._file)
        size = found.st_size
        if not found.st_nlink:
            raise OSError("its file was deleted")
        if size < self._size:
            raise OSError("it got shorter")
        if size == self._size:
            return
        start = max(self._size, size - _TAIL_BYTES)
        tail = os.pread(self._file, size - start, start)
        whole, _, rest = tail.rpartition(b"\n")
        if rest:
            # A process was stopped in the middle of a line: it was never part of the chain.
            _log.warning("an unfinished audit record is dropped", bytes=len(rest))
            size -= len(rest)
            os.ftruncate(self._file, size)
        if whole:
            try:
                newest = orjson.loads(whole.rpartition(b"\n")[2])
                self.head = Head(newest["number"], newest["code"])
            except (orjson.JSONDecodeError, KeyError, TypeError):
                raise OSError("it ends with what is no record: run 'tidegate audit verify'") from None
        self._size = size

    def _open(self, number: int) -> None:
        if self._file >= 0:
            os.fsync(self._file)
            # Other processes hold their own; this one's is not needed any more.
            os.close(self._file)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._file = os.open(self._path(number), flags, 0o600)
        self._number, self._size = number, 0

    def _path(self, number: int) -> Path:
        return self._folder / f"audit-{number:06}.jsonl"


def pseudonym(secret: bytes, tenant: str, customer_id: str) -> str:
    """A customer's name in the trail."""
    return hmac.digest(secret, f"subject\0{tenant}\0{customer_id}".encode(), "sha256").hex()[:32]


def _code(secret: bytes, line: Mapping[str, Any]) -> str:
    return hmac.digest(secret, b"record\0" + orjson.dumps(line), "sha256").hex()


def _words(error: OSError) -> str:
    return error.strerror or str(error)


def records(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Lines of a trail in their order, each with its place.

    Raises:
        ConfigError: There is no trail: one without a record has a file all the same.
    """
    paths = sorted(folder.glob("audit-*.jsonl"))
    if not paths:
        raise ConfigError(f"{folder} has no audit trail")
    for path in paths:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield f"{path.name}:{number}", line


def verify(folder: Path, keys: KeyRing, anchors: Iterator[Mapping[str, Any]] | None = None) -> Head:
    """Check a whole trail; returns its end.

    Args:
        folder: Of the trail.
        keys: Every key it was written with.
        anchors: Noted elsewhere, each with `number` and `code`.

    Raises:
        ConfigError: It was changed; says where.
    """
    noted: dict[int, str] = {}
    for anchor in anchors or ():
        number, code = int(anchor["number"]), str(anchor["code"])
        if noted.setdefault(number, code) != code:
            raise ConfigError(
                f"record {number} was anchored twice, with different codes: the trail was cut off and went on"
            )
    head = Head()
    for place, line in records(folder):
        try:
            record = orjson.loads(line)
            code = record.pop("code")
            key = keys.find(record["key"])
            number, before = record["number"], record["before"]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{place}: this is no audit record") from None
        if key is None:
            raise ConfigError(f"{place}: written with the key {record['key']}, which is not given")
        # As the file has it: no other way to write the same record passes.
        same = line == orjson.dumps({**record, "code": code}) + b"\n"
        if not same or not hmac.compare_digest(_code(key.secret, record), str(code)):
            raise ConfigError(f"{place}: record {number} was edited")
        if number != head.number + 1 or before != head.code:
            raise ConfigError(
                f"{place}: record {number} does not follow record {head.number}: records were deleted, "
                "moved or added"
            )
        head = Head(number, code)
        if noted.pop(number, code) != code:
            raise ConfigError(f"{place}: record {number} is not the one that was anchored")
    if noted:
        raise ConfigError(
            f"the trail ends with record {head.number}, but record {max(noted)} was anchored: records were "
            "cut off at the end"
        )
    return head


def read_anchors(path: Path) -> Iterator[Mapping[str, Any]]:
    """Anchors from a file, without lines that a crash has cut.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {_words(error)}") from error
    for number, line in enumerate(lines, start=1):
        try:
            note = orjson.loads(line)
            yield {**note, "number": int(note["number"]), "code": str(note["code"])}
        except (ValueError, KeyError, TypeError):
            _log.warning("this is no anchor", place=f"{path.name}:{number}")
