"""Apache Kafka's broker from its published jars: Maven resolves what `infra/kafka/pom.xml` names, once."""

import os
import re
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

from schemas.errors import DependencyError

FILES = Path(__file__).with_name("kafka")
_POM = FILES / "pom.xml"
_RESOLVE_TIMEOUT_S = 600.0
_LEAST_JAVA = 17
_JAVA_TIMEOUT_S = 30.0


def is_available(folder: Path | None = None) -> bool:
    """Whether Java of such a version is here, and the jars; resolves them at the first call.

    Args:
        folder: See `classpath`.
    """
    try:
        said = subprocess.run(
            [java(), "-version"], capture_output=True, text=True, timeout=_JAVA_TIMEOUT_S, check=True
        )
        classpath(folder)
    except (DependencyError, OSError, subprocess.SubprocessError):
        return False
    found = re.search(r'version "(\d+)', said.stderr)
    return found is not None and int(found[1]) >= _LEAST_JAVA


def classpath(folder: Path | None = None) -> str:
    """Java's class path of the broker; resolves the jars at the first call.

    Args:
        folder: Where jars are kept; `None` for the user's cache directory.

    Raises:
        DependencyError: No Maven or no Java on the machine, or the jars could not be resolved.
    """
    jars = _jars(folder)
    if not jars.is_dir():
        _resolve(jars)
    return str(jars / "*")


def _jars(folder: Path | None) -> Path:
    cache = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"
    return cache / f"kafka-{sha256(_POM.read_bytes()).hexdigest()[:12]}"


def java() -> str:
    """The Java program.

    Raises:
        DependencyError: There is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if found is None:
        raise DependencyError(
            f"Apache Kafka did not start: no java found, install Java {_LEAST_JAVA} or newer or set JAVA_HOME"
        )
    return found


def _resolve(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise DependencyError("Apache Kafka did not start: no mvn found, install Maven 3.8 or newer")
    jars.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place and moved there whole: two may resolve at once, and one may be interrupted.
    with tempfile.TemporaryDirectory(dir=jars.parent) as folder:
        command = [maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={folder}/jars"]
        try:
            subprocess.run(
                command,
                check=True,
                timeout=_RESOLVE_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except subprocess.TimeoutExpired:
            raise DependencyError(
                f"Apache Kafka's jars were not resolved within {_RESOLVE_TIMEOUT_S:g} s: look at the network"
            ) from None
        except subprocess.CalledProcessError as error:
            raise DependencyError(f"Apache Kafka's jars were not resolved: {error.stdout[-1000:]}") from None
        try:
            (Path(folder) / "jars").rename(jars)
        except OSError:
            # Somebody else was first.
            if not jars.is_dir():
                raise
