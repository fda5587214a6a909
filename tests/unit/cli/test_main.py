"""Every command explains itself."""

import click
import pytest
import typer
from typer.testing import CliRunner

from cli.main import app

runner = CliRunner()


def paths(command, prefix=()):
    yield prefix
    for name, inner in getattr(command, "commands", {}).items():
        yield from paths(inner, (*prefix, name))


PATHS = sorted(paths(typer.main.get_command(app)))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_of_every_command(path):
    result = runner.invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_option_has_a_help_text(path):
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    unexplained = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert not unexplained


def test_features_are_listed_for_machines():
    import json

    from features.catalogue import FEATURE_NAMES

    result = runner.invoke(app, ["features", "list", "--json"])
    assert tuple(row["name"] for row in json.loads(result.output)) == FEATURE_NAMES
