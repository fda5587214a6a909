"""Worker and API as processes of this one: they start, stop and break like the servers they use."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.embedded_part import EmbeddedPart

_ROOT = Path(__file__).resolve().parent.parent


class TidegateProcess(EmbeddedPart):
    """One `tidegate` command that answers HTTP.

    Args:
        data_dir: Its log goes to `logs/` there.
        settings: `TIDEGATE_*` variables without their prefix, in small letters.
        name: Of the process and its log.
    """

    stop_timeout_s = 20.0
    _arguments: tuple[str, ...]
    _path: str
    _answer: bytes
    _port_setting: str

    def __init__(self, data_dir: Path | str, settings: Mapping[str, object], name: str | None = None) -> None:
        self.name = name or self._arguments[0]  # type: ignore[misc]
        super().__init__(data_dir)
        self.settings = dict(settings)

    def start(self, timeout_s: float = 120.0) -> None:
        """As `EmbeddedPart.start`: models and Kafka clients take long to load on busy cores."""
        super().start(timeout_s)

    @property
    def url(self) -> str:
        """Address of its HTTP port."""
        return f"http://{self.address}"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "cli.main", *self._arguments]

    def _environment(self) -> dict[str, str]:
        settings = {**self.settings, self._port_setting: self.port}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            # One thread for numeric libraries: the cores are shared with broker and Redis.
            "OMP_NUM_THREADS": "1",
            **{f"TIDEGATE_{name.upper()}": str(value) for name, value in settings.items()},
        }

    def _dialogue(self, pid: int) -> tuple[bytes, tuple[bytes, ...]]:
        return f"GET {self._path} HTTP/1.0\r\n\r\n".encode(), (self._answer,)


class WorkerProcess(TidegateProcess):
    """A worker; ready when its models are loaded and its metrics answer."""

    _arguments = ("worker",)
    _path = "/metrics"
    _answer = b"tidegate_"
    _port_setting = "metrics_port"


class SinkProcess(TidegateProcess):
    """A sink; ready when its metrics answer."""

    _arguments = ("sink",)
    _path = "/metrics"
    _answer = b"tidegate_"
    _port_setting = "metrics_port"


class ApiProcess(TidegateProcess):
    """An API process; ready when it answers `/live`."""

    _arguments = ("api",)
    _path = "/live"
    _answer = b"alive"
    _port_setting = "http_port"
