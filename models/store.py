"""Where models are kept: the port, and plain files behind it."""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from models.roles import Roles, read_roles
from schemas.errors import ModelError

_LOCK_S = 10.0
_READABLE, _READABLE_FOLDER = 0o644, 0o755


class VersionTaken(Exception):
    """Somebody else saved this version meanwhile: take the next."""


class ModelStore(Protocol):
    """Files by model and version, and the roles of versions. Versions are `v1`, `v2`, ..."""

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first; a version is there whole or not at all."""
        ...

    def next_version(self, name: str) -> str:
        """The version that is saved next, as far as is known now; never one that had a role."""
        ...

    def check_writable(self, name: str) -> None:
        """Try whether a version could be saved.

        Raises:
            ModelError: It could not.
        """
        ...

    def put(self, name: str, version: str, files: Mapping[str, bytes]) -> None:
        """Keep the files of a new version.

        Raises:
            VersionTaken: There is one already.
            ModelError: They cannot be kept.
        """
        ...

    def read(self, name: str, version: str, file: str) -> bytes:
        """A file of a version.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """
        ...

    def roles(self, name: str) -> Roles:
        """The roles of a model's versions; no champion before the first promotion.

        Raises:
            ModelError: What is kept cannot be read.
        """
        ...

    def assign(self, name: str, roles: Roles) -> None:
        """Give out the roles of a model anew, in one step: a reader sees the old ones or these.

        Raises:
            ModelError: They cannot be kept.
        """
        ...

    def changing(self, name: str) -> AbstractContextManager[None]:
        """Nobody else changes the roles of a model meanwhile, as far as the backend can tell; not reentrant.

        Raises:
            ModelError: Somebody else does, and does not end.
        """
        ...

    def where(self, *parts: str) -> str:
        """The place of something, for people."""
        ...


class FileModelStore:
    """A folder a model, in it one a version and the file with the roles.

    Args:
        root: Made when the first model is saved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        folder = self.root / name
        try:
            found = [p.name for p in folder.iterdir() if re.fullmatch(r"v[1-9]\d*", p.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as bad:
            raise ModelError(f"{folder} cannot be read: {bad.strerror}") from bad
        return sorted(found, key=lambda v: int(v[1:]))

    def next_version(self, name: str) -> str:
        """The version that is saved next."""
        try:
            roles = self.roles(name)
        except ModelError:
            roles = Roles()
        # A version that was deleted must not come back as another one: scores name it, processes remember it.
        named = (roles.champion, roles.challenger, *roles.shadows, *roles.former)
        known = (*self.versions(name), *filter(None, named))
        return f"v{1 + max((int(v[1:]) for v in known), default=0)}"

    def check_writable(self, name: str) -> None:
        """Try whether a version could be saved."""
        folder = self.root / name
        with self._told("cannot take a model", folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()

    def put(self, name: str, version: str, files: Mapping[str, bytes]) -> None:
        """Keep the files of a new version."""
        folder = self.root / name / version
        with self._told("cannot be saved", folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            # A name of its own: processes in containers have the same numbers.
            partial = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=folder.parent))
            try:
                for file, content in files.items():
                    (partial / file).write_bytes(content)
                partial.chmod(_READABLE_FOLDER)
                # Renamed when whole: a reader never finds half a model.
                partial.rename(folder)
            except BaseException as bad:
                shutil.rmtree(partial, ignore_errors=True)
                if isinstance(bad, OSError) and folder.exists():
                    raise VersionTaken(version) from bad
                raise

    def read(self, name: str, version: str, file: str) -> bytes:
        """A file of a version."""
        return (self.root / name / version / file).read_bytes()

    def roles(self, name: str) -> Roles:
        """The roles of a model's versions."""
        path = self.root / name / "roles.json"
        try:
            return read_roles(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return self._before_roles(name)
        except (OSError, ValueError, RecursionError, ModelError) as bad:
            raise ModelError(f"{path} cannot be read as the roles of models: {bad}") from bad

    def _before_roles(self, name: str) -> Roles:
        # Earlier versions wrote the champion alone.
        pointer = self.root / name / "champion"
        return Roles(pointer.read_text().strip()) if pointer.is_file() else Roles()

    def assign(self, name: str, roles: Roles) -> None:
        """Give out the roles of a model anew."""
        path = self.root / name / "roles.json"
        with self._told("cannot be written", path):
            number, partial = tempfile.mkstemp(prefix="roles.", dir=path.parent)
            try:
                with os.fdopen(number, "w") as file:
                    file.write(json.dumps(asdict(roles), indent=2) + "\n")
                Path(partial).chmod(_READABLE)
                Path(partial).replace(path)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise

    @contextmanager
    def changing(self, name: str) -> Iterator[None]:
        """Nobody else changes the roles of a model meanwhile."""
        path = self.root / name / "roles.lock"
        if not path.parent.is_dir():
            # There is nothing to change, and a folder of a wrong name is not to be made.
            yield
            return
        end = time.monotonic() + _LOCK_S
        with self._told("cannot be written", path):
            lock = path.open("a")
        with lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as busy:
                    if time.monotonic() > end:
                        raise ModelError(
                            f"{path.parent}: another process has been changing roles for {_LOCK_S:.0f} s"
                        ) from busy
                    time.sleep(0.02)
            yield

    @contextmanager
    def _told(self, what: str, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as bad:
            raise ModelError(f"{path} {what}: {bad.strerror}") from bad

    def where(self, *parts: str) -> str:
        """The place of something."""
        return str(self.root.joinpath(*parts))
