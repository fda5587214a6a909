"""What an extra of pyproject.toml installs is enough for its commands: images have nothing else."""

import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.main import EXTRAS

# Runs a command's help with all distributions but some hidden, as if they were not installed.
PROGRAM = """
import sys
from importlib.metadata import packages_distributions
from packaging.utils import canonicalize_name

command, allowed = sys.argv[1], set(sys.argv[2].split(","))
hidden = {
    name for name, found in packages_distributions().items()
    if not {canonicalize_name(d) for d in found} & allowed
}

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in [n for n in sys.modules if n.split(".")[0] in hidden]:
    del sys.modules[name]
sys.meta_path.insert(0, Hide())
sys.argv = ["tidegate", command, "--help"]
from cli.main import main
main()
"""


def installed_with(extra: str) -> set[str]:
    """Names of the distributions that `tidegate[extra]` brings, itself included."""
    found, waiting = set(), [("tidegate", frozenset({extra}))]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        for text in requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *extras)):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return {name for name, _ in found}


def run_with(distributions: set[str], command: str) -> subprocess.CompletedProcess[str]:
    """A command's help where only these distributions are installed."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, command, ",".join(distributions)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("extra", "command"), [(e, c) for e, commands in EXTRAS.items() for c in commands])
def test_a_command_starts_with_what_its_extra_installs(extra, command):
    done = run_with(installed_with(extra), command)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Usage: tidegate" in done.stdout


def test_a_package_that_is_missing_is_named_with_what_to_install():
    done = run_with(installed_with("sink") - {"sqlalchemy"}, "sink")
    assert done.returncode == 2
    assert "sqlalchemy" in done.stderr
    assert "tidegate[sink]" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_hidden_is_hidden():
    assert "sqlalchemy" in packages_distributions()
    assert "sqlalchemy" not in installed_with("publish")
