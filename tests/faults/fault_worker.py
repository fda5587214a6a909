"""A worker as fault tests run it: its environment, its version of the code, what it logged."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.processes import WorkerProcess


class FaultWorker(WorkerProcess):
    """A worker with another environment or another version of the code.

    Args:
        root: Folder of the source that it runs; `None` for this one.
        environment: Variables beside the settings.
    """

    stop_timeout_s = 30.0

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, object],
        name: str,
        environment: Mapping[str, str] | None = None,
        root: Path | None = None,
    ) -> None:
        super().__init__(folder, settings, name)
        self._extra = dict(environment or {})
        self._root = root

    def _environment(self) -> dict[str, str]:
        environment = super()._environment() | self._extra
        # The worker's extra has no scikit-learn, which XGBoost imports where it is there: three seconds.
        without = self.directory.parent / "extra"
        without.mkdir(exist_ok=True)
        (without / "sklearn.py").write_text("raise ModuleNotFoundError(__name__)\n")
        roots = [str(self._root or Path(__file__).resolve().parents[2]), str(without)]
        return environment | {"PYTHONPATH": os.pathsep.join(roots)}

    def variables(self) -> dict[str, str]:
        """Its environment, for another command against the same servers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return self._environment()

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line.get("event") == event]
