"""A server process that belongs to this one: it stops, breaks, starts again, and never stays behind."""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, ClassVar, Self

from schemas.errors import DependencyError

HOST = "127.0.0.1"

# Below the ports that Linux and macOS give to outgoing connections: a client that keeps calling a stopped
# server would, now and then, be given the server's own port, connect to itself, and keep the server out.
_PORTS = range(20_000, 32_000)
_given: set[int] = set()
_GUARD = Path(__file__).with_name("embedded_guard.py")
_LOOK_AGAIN_S = 0.01
_ANSWER_TIMEOUT_S = 0.5
_LAST_LOG_LINES = 15
# Nothing else of the caller's environment reaches the servers: Tansu reads settings from it.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR")


class EmbeddedPart(ABC):
    """One server: starts, stops, breaks and starts again, on the same port and directory.

    Args:
        data_dir: Directory that this and other parts share. Made if missing.
        port: Port on the loopback interface; `None` chooses a free one.
    """

    name: ClassVar[str]
    stop_timeout_s: ClassVar[float]

    def __init__(self, data_dir: Path | str, port: int | None = None) -> None:
        root = Path(data_dir).resolve()
        self.port = free_port() if port is None else port
        self.directory = root / self.name
        self.log_path = root / "logs" / f"{self.name}.log"
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: BinaryIO | None = None
        _parts.add(self)

    @property
    def address(self) -> str:
        """Where it listens, `HOST:PORT`; known before it starts."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id, or `None` while it is not running."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self._process is not None and self._process.poll() is None

    def cpu_s(self) -> float:
        """Processor time so far: unlike waiting it hardly depends on what else runs."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def start(self, timeout_s: float = 30.0) -> None:
        """Start it and return when it answers; a running one is left as it is.

        Raises:
            DependencyError: It did not start, or another process uses its directory.
        """
        if self.running:
            return
        self.kill()
        deadline = time.monotonic() + timeout_s
        command = self._command()
        for directory in (self.directory, self.log_path.parent):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log_path.open("ab") as log:
            self._lock(log, deadline)
            self._log_start = log.seek(0, os.SEEK_END)
            self._spawn(command, log)
        try:
            self._wait_until_it_answers(deadline)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float | None = None) -> None:
        """SIGTERM, then SIGKILL if it still lives after the deadline.

        Args:
            timeout_s: `None` for the part's own `stop_timeout_s`.
        """
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_timeout_s if timeout_s is None else timeout_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL; nothing happens if it is not running."""
        process, self._process = self._process, None
        lifeline, self._lifeline = self._lifeline, None
        if process is not None:
            process.kill()
            process.wait()
        if lifeline is not None:
            lifeline.close()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing.

        Raises:
            DependencyError: It is not running.
        """
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT.

        Raises:
            DependencyError: It is not running.
        """
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        """Environment of the program."""
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        return kept | {"NO_COLOR": "1", "RUST_BACKTRACE": "0"}

    @abstractmethod
    def _command(self) -> list[str]:
        """Program and arguments of the next start."""

    @abstractmethod
    def _dialogue(self, pid: int) -> tuple[bytes, tuple[bytes, ...]]:
        """What to send, and what the answer of this very process contains, and no other's."""

    def _lock(self, log: BinaryIO, deadline: float) -> None:
        # The server inherits the open file as its output, and with it the lock, for as long as it lives.
        while True:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise DependencyError(
                        f"embedded {self.name} did not start: another one uses {self.directory}"
                    ) from error
            time.sleep(_LOOK_AGAIN_S)

    def _spawn(self, command: list[str], log: BinaryIO) -> None:
        read_end, write_end = os.pipe()
        self._lifeline = os.fdopen(write_end, "wb")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), str(read_end), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=self._environment(),
                pass_fds=(read_end,),
                # Ctrl-C in a terminal reaches the whole group: the application stops first, then these.
                start_new_session=True,
            )
        finally:
            os.close(read_end)

    def _wait_until_it_answers(self, deadline: float) -> None:
        while not self._answers():
            code = self._process.poll() if self._process is not None else None
            if code is not None:
                raise self._failure(f"it ended with code {code}")
            if time.monotonic() > deadline:
                raise self._failure("it does not answer")
            time.sleep(_LOOK_AGAIN_S)

    def _answers(self) -> bool:
        if self._process is None:
            return False
        request, expected = self._dialogue(self._process.pid)
        try:
            with socket.create_connection((HOST, self.port), _ANSWER_TIMEOUT_S) as connection:
                connection.sendall(request)
                answer = b""
                while not all(part in answer for part in expected):
                    received = connection.recv(65_536)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return True

    def _failure(self, what: str) -> DependencyError:
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-_LAST_LOG_LINES:]
        return DependencyError(
            "\n  ".join(
                [f"embedded {self.name} did not start on {self.address}: {what}; {self.log_path} ends with:"]
                + (lines or ["(nothing)"])
            )
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or not self.running:
            raise DependencyError(f"embedded {self.name} is not running")
        self._process.send_signal(number)

    def disown(self) -> None:
        """In a forked child: let go of the server, which ends with the process that started it."""
        if self._lifeline is not None:
            self._lifeline.close()


def free_port() -> int:
    """A port on the loopback interface that nobody uses now, and that nobody was given here before.

    Listeners of one server are chosen before any is opened: two of them must not have one port.
    """
    if len(_given) > len(_PORTS) // 2:
        _given.clear()
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            if port not in _given:
                _given.add(port)
                return port


def _close_lifelines() -> None:
    # A forked child that outlives this process must not keep the servers alive.
    for part in list(_parts):
        part.disown()


_parts: weakref.WeakSet[EmbeddedPart] = weakref.WeakSet()
os.register_at_fork(after_in_child=_close_lifelines)
