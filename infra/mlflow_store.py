"""Models in MLflow's registry, behind the same port as a folder.

A model is a registered model `tidegate-fraud`; version `v3` is its version 3, whose run holds the files as
artefacts. Roles are one tag of the registered model, so they change in one step; aliases `champion` and
`challenger` show the same to people. MLflow is imported when this module is.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Final, TypeVar

from models.roles import Roles, read_roles
from models.store import VersionTaken
from schemas.errors import ConfigError, ModelError

# One try of a request at MLflow's client, and a bound on each: who asks tries again.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
try:
    from mlflow import artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
except ImportError as missing:
    raise ConfigError(
        "TIDEGATE_MLFLOW_URI is set, but MLflow is not installed: pip install mlflow-skinny sqlalchemy"
    ) from missing

T = TypeVar("T")
_PREFIX: Final = "tidegate-"
_ROLES: Final = "tidegate.roles"
_READY: Final = "tidegate.ready"
_EXPERIMENT: Final = "tidegate"


class MlflowModelStore:
    """A `ModelStore` in MLflow 2.9 or later.

    Args:
        uri: Of the tracking server or database; the registry is there too.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def versions(self, name: str) -> list[str]:
        """Versions of a model, oldest first."""
        # The tag comes last: without it, a version is not whole.
        return [f"v{number}" for number, ready in self._numbers(name) if ready]

    def next_version(self, name: str) -> str:
        """The version that is saved next; MLflow never gives out a number again."""
        return f"v{1 + max((number for number, _ in self._numbers(name)), default=0)}"

    def _numbers(self, name: str) -> list[tuple[int, bool]]:
        found = self._call(lambda: self._client.search_model_versions(f"name = '{_PREFIX}{name}'"))
        return sorted((int(v.version), _READY in v.tags) for v in found)

    def check_writable(self, name: str) -> None:
        """Try whether the server answers."""
        self._numbers(name)

    def changing(self, name: str) -> AbstractContextManager[None]:
        """Nothing: MLflow has no locks, and of two changes at once the later counts."""
        return nullcontext()

    def put(self, name: str, version: str, files: Mapping[str, bytes]) -> None:
        """Keep the files of a new version.

        Raises:
            VersionTaken: MLflow gave out this number already.
        """
        registered = _PREFIX + name

        def keep() -> int:
            experiment = self._client.get_experiment_by_name(_EXPERIMENT)
            experiment_id = (
                experiment.experiment_id if experiment else self._client.create_experiment(_EXPERIMENT)
            )
            run = self._client.create_run(experiment_id, run_name=f"{name} {version}")
            with tempfile.TemporaryDirectory() as folder:
                for file, content in files.items():
                    (Path(folder) / file).write_bytes(content)
                self._client.log_artifacts(run.info.run_id, folder, "model")
            self._client.set_terminated(run.info.run_id)
            self._register(registered)
            source = f"{run.info.artifact_uri}/model"
            made = self._client.create_model_version(registered, source, run.info.run_id)
            number = int(made.version)
            # Its card would name another version: it stays without the tag, and counts for the next number.
            if f"v{number}" == version:
                self._client.set_model_version_tag(registered, str(number), _READY, "1")
            return number

        if f"v{self._call(keep)}" != version:
            raise VersionTaken(version)

    def _register(self, registered: str) -> None:
        try:
            self._client.create_registered_model(registered)
        except MlflowException as there:
            if there.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def read(self, name: str, version: str, file: str) -> bytes:
        """A file of a version.

        Raises:
            FileNotFoundError: The version has no such file.
            OSError: It cannot be read.
        """
        try:
            found = self._client.get_model_version(_PREFIX + name, version.removeprefix("v"))
            there = artifacts.list_artifacts(artifact_uri=found.source, tracking_uri=self._uri)
            if file not in {Path(one.path).name for one in there}:
                raise FileNotFoundError(f"{found.source} has no {file}")
            with tempfile.TemporaryDirectory() as folder:
                path = artifacts.download_artifacts(
                    artifact_uri=f"{found.source}/{file}", dst_path=folder, tracking_uri=self._uri
                )
                return Path(path).read_bytes()
        except OSError:
            raise
        except Exception as bad:
            # Of its own errors and of those of its parts: parsers, and who keeps the files.
            raise OSError(_without_password(bad)) from None

    def roles(self, name: str) -> Roles:
        """The roles of a model's versions."""
        tags = self._tags(name)
        try:
            return read_roles(json.loads(tags[_ROLES])) if _ROLES in tags else Roles()
        except (ValueError, RecursionError, ModelError) as bad:
            raise ModelError(f"tag {_ROLES} of {self.where(name)} cannot be read: {bad}") from bad

    def _tags(self, name: str) -> Mapping[str, str]:
        def read() -> Mapping[str, str]:
            try:
                tags: Mapping[str, str] = self._client.get_registered_model(_PREFIX + name).tags
            except MlflowException as bad:
                if bad.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
            return tags

        return self._call(read)

    def assign(self, name: str, roles: Roles) -> None:
        """Give out the roles of a model anew; aliases follow."""
        registered = _PREFIX + name

        def write() -> None:
            self._client.set_registered_model_tag(registered, _ROLES, json.dumps(asdict(roles)))
            for alias, version in (("champion", roles.champion), ("challenger", roles.challenger)):
                if version:
                    self._client.set_registered_model_alias(registered, alias, version.removeprefix("v"))
                elif alias in self._client.get_registered_model(registered).aliases:
                    self._client.delete_registered_model_alias(registered, alias)

        self._call(write)

    def where(self, *parts: str) -> str:
        """The place of something."""
        shown = _without_password(self._uri)
        return "/".join(
            (f"MLflow at {shown}", *(_PREFIX + part if n == 0 else part for n, part in enumerate(parts)))
        )

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as bad:
            said = _without_password(bad)
            raise ModelError(f"{self.where()} does not answer as it should: {said}") from None


def _without_password(said: object) -> str:
    # MLflow shows the whole address in what it says, and what was before as well.
    return re.sub(r"(?<=://)[^/\s]*@", "", str(said)) or type(said).__name__
