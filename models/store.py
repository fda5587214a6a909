"""Where models are kept: the port, and plain files behind it."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from models.roles import Roles, read_roles
from schemas.errors import ModelError


class VersionTaken(Exception):
    """Somebody else saved this version meanwhile: take the next."""


class ModelStore(Protocol):
    """Files by model and version, and the roles of versions. Versions are `v1`, `v2`, ..."""

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first; a version is there whole or not at all."""
        ...

    def next_version(self, name: str) -> str:
        """The version that is saved next, as far as is known now."""
        ...

    def put(self, name: str, version: str, files: Mapping[str, bytes]) -> None:
        """Keep the files of a new version.

        Raises:
            VersionTaken: There is one already.
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
        """Give out the roles of a model anew, in one step: a reader sees the old ones or these."""
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
        found = [p.name for p in folder.iterdir() if re.fullmatch(r"v\d+", p.name)] if folder.is_dir() else []
        return sorted(found, key=lambda v: int(v[1:]))

    def next_version(self, name: str) -> str:
        """The version that is saved next."""
        return f"v{1 + max((int(v[1:]) for v in self.versions(name)), default=0)}"

    def put(self, name: str, version: str, files: Mapping[str, bytes]) -> None:
        """Keep the files of a new version."""
        folder = self.root / name / version
        partial = folder.with_name(f".{version}.{os.getpid()}")
        partial.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (partial / file).write_bytes(content)
        # Renamed when whole: a reader never finds half a model.
        try:
            partial.rename(folder)
        except OSError as bad:
            if folder.exists():
                for file in files:
                    (partial / file).unlink()
                partial.rmdir()
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
        except (OSError, ValueError, ModelError) as bad:
            raise ModelError(f"{path} cannot be read as the roles of models: {bad}") from bad

    def _before_roles(self, name: str) -> Roles:
        # Earlier versions wrote the champion alone.
        pointer = self.root / name / "champion"
        return Roles(pointer.read_text().strip()) if pointer.is_file() else Roles()

    def assign(self, name: str, roles: Roles) -> None:
        """Give out the roles of a model anew."""
        path = self.root / name / "roles.json"
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(asdict(roles), indent=2) + "\n")
        partial.replace(path)

    def where(self, *parts: str) -> str:
        """The place of something."""
        return str(self.root.joinpath(*parts))
