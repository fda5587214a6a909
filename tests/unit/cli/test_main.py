"""Every command explains itself."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from cli.main import COMMANDS, app, load
from features.catalogue import FEATURE_NAMES
from features.entity_features import ENTITY_FEATURES

runner = CliRunner()


def paths(command, prefix):
    yield prefix
    for name, inner in getattr(command, "commands", {}).items():
        yield from paths(inner, (*prefix, name))


LOADED = {name: load(name) for name in COMMANDS}
PATHS = [(), *(path for name, command in LOADED.items() for path in paths(command, (name,)))]


@pytest.mark.parametrize("name", COMMANDS)
def test_list_of_commands_says_what_each_says_itself(name):
    help_text = LOADED[name].help or ""
    assert help_text.splitlines()[0] == COMMANDS[name]


def test_light_command_loads_no_heavy_library():
    code = (
        "import sys; sys.argv = ['tidegate', 'topics', 'list']\n"
        "from cli.main import app\n"
        "app(standalone_mode=False)\n"
        "heavy = {'numba', 'xgboost', 'sklearn', 'faust', 'fastapi'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_of_every_command(path):
    result = runner.invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_option_has_a_help_text(path):
    command = LOADED[path[0]] if path else typer.main.get_command(app)
    for name in path[1:]:
        command = command.commands[name]
    options = [p for p in command.params if p.param_type_name == "option"]
    assert not [p.name for p in options if not p.help]


def test_features_are_listed_for_machines():
    result = runner.invoke(app, ["features", "list", "--json"])
    names = tuple(row["name"] for row in json.loads(result.output))
    assert names == (*FEATURE_NAMES, *(f.name for f in ENTITY_FEATURES))
