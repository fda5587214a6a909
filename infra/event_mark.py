"""Whose folder of events it is: a random id in the folder and in the database that names its files.

A volume that is not mounted is an empty folder, and a wrong path may be another deployment's folder: files
written there would be missing from the event log, and what is there would be taken for leftovers.
"""

import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from schemas.errors import DependencyError, HistoryError

NAME: Final = "event-log.id"
_OTHERWISE: Final = (
    "Check TIDEGATE_EVENTS and TIDEGATE_DATABASE_URL, or start again with an empty folder and an empty "
    "database"
)


class DiskError(DependencyError):
    """The disk does not answer, or takes nothing."""

    dependency: Final = "disk"


class Marks(Protocol):
    """The database's side."""

    def mark(self) -> str | None:
        """The id of the folder; `None` where there is none yet."""
        ...

    def set_mark(self, mark: str) -> None:
        """Keep the id of the folder."""
        ...


def claim(root: Path, marks: Marks, named: Collection[str]) -> str:
    """The id that folder and database share; both get one where nothing was written, or by an older version.

    Args:
        root: The folder.
        marks: The database.
        named: Files that count by the database.

    Raises:
        HistoryError: The folder is not the one that the database is of.
        DependencyError: Disk or database do not answer.
    """
    known = marks.mark()
    if known is not None:
        check(root, known)
        return known
    found = read(root)
    missing = sorted(path for path in named if not (root / path).exists())
    if missing:
        raise HistoryError(
            f"the folder of events {root} does not have {len(missing)} of {len(named)} files that its "
            f"database names, for example {missing[0]}: is its volume mounted, and is it the right one? "
            f"{_OTHERWISE}"
        )
    if not named and any(root.glob("day=*/*")):
        raise HistoryError(
            f"the folder of events {root} has files and the database names none: it is another deployment's "
            f"folder, or the database is not the one it had. {_OTHERWISE}"
        )
    # The folder first: an id that only the folder has is taken over when this is done again.
    mark = found or _make(root)
    marks.set_mark(mark)
    return mark


def check(root: Path, mark: str) -> None:
    """See that a folder is the one with this id.

    Raises:
        HistoryError: It has another, or none.
        DependencyError: The disk does not answer.
    """
    found = read(root)
    if found is None:
        raise HistoryError(
            f"the folder of events {root} has no {NAME}, by which its database knows it: is its volume "
            f"mounted, and is it the right one? {_OTHERWISE}"
        )
    if found != mark:
        raise HistoryError(f"the folder of events {root} is of another database ({NAME}). {_OTHERWISE}")


def read(root: Path) -> str | None:
    """The id that a folder has; `None` where it has none.

    Raises:
        DependencyError: The disk does not answer.
    """
    try:
        return (root / NAME).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DiskError(f"the folder of events {root} cannot be read: {error}") from error


def _make(root: Path) -> str:
    mark, partial = secrets.token_hex(16), root / f".{NAME}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with partial.open("w") as file:
            file.write(f"{mark}\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(root / NAME)
    except OSError as full:
        with suppress(OSError):
            partial.unlink()
        raise DiskError(f"the event log at {root} takes no files: {full.strerror}") from full
    return mark
