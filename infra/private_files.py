"""Small documents of secrets: written whole, readable by their owner only, seen by every process."""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson
import structlog

from schemas.errors import ConfigError

T = TypeVar("T")
_log = structlog.get_logger()


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step, with mode 0600; what is there stays whole if this does not finish."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_exposed(path: Path) -> bool:
    """Whether others than its owner can read or write a file.

    A group may read: secrets mounted for a service are often owned by root and readable by its group.
    """
    return bool(path.stat().st_mode & 0o027)


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """One writer at a time, across processes of this machine."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_json(path: Path) -> Any:
    """A document.

    Raises:
        ConfigError: It is not there or not JSON.
    """
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except (OSError, orjson.JSONDecodeError) as error:
        # Not the parser's words: they may quote a secret.
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}") from None


class Watched(Generic[T]):
    """What a file says, read again when it was changed.

    Args:
        path: The file.
        parse: From the file's JSON; raises on what it does not understand.
        missing: What it says while there is no file.
        check_s: How often to look, at most.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[Any], T],
        missing: T,
        *,
        check_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._parse, self._missing = path, parse, missing
        self._check_s, self._clock = check_s, clock
        self._looked = float("-inf")
        self._seen: tuple[int, int, int] | None = None
        self._value: T | None = None

    def get(self) -> T:
        """The newest that could be read.

        Raises:
            ConfigError: It cannot be read, and never could.
        """
        now = self._clock()
        if self._value is not None and now - self._looked < self._check_s:
            return self._value
        self._looked = now
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._value = None, self._missing
            return self._missing
        mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._value is None or mark != self._seen:
            try:
                self._value = self._parse(read_json(self._path))
                self._seen = mark
            except (ConfigError, ValueError, KeyError, TypeError) as error:
                if self._value is None:
                    raise ConfigError(f"{self._path} cannot be used: {type(error).__name__}") from None
                # Somebody is editing: go on with what was there.
                _log.error("a changed file cannot be used", path=str(self._path), error=type(error).__name__)
        return self._value

    def refresh(self) -> None:
        """Look at the file at the next `get`."""
        self._looked = float("-inf")
