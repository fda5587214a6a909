"""`tidegate`: every command of the project."""

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli.console import fail
from schemas.errors import ConfigError, TidegateError

# A command's module is imported when it is run: models and Kafka clients take seconds to load, and
# `tidegate topics list` needs neither. A test compares these words with the commands' own.
COMMANDS = {
    "demo": "Run everything here: a bank with fraud in it, broker, Redis, worker and API.",
    "worker": "Score transactions from Kafka until told to stop.",
    "sink": "Keep accepted transactions with their scores as Parquet, and the customer index in SQL.",
    "api": "Answer lookups and synchronous scores over HTTP; documentation at /docs.",
    "publish": "Publish the transactions of anyone's CSV or Parquet file.",
    "generate": "Write a generated bank to a file.",
    "train": "Train on history, generated or your own, replayed through the engine that serves.",
    "backtest": "Score a past log as if the model had been there, and compare with what became of it.",
    "retrain": "Train a challenger on newer data; promote it only if it is proven better.",
    "learn": "Let the fraud model in use learn from the topic of labels.",
    "drift": "Compare what is scored now with what a model learned from.",
    "models": "The model registry.",
    "features": "Feature declarations, and the vectors of a file.",
    "topics": "Topics on the broker.",
    "state": "What Redis holds.",
    "verify": "Rebuild scores and histories from the topics and compare them bit for bit with what is there.",
    "kafka": "Run Apache Kafka here, without containers, until Ctrl-C.",
    "rebuild": "Remove all histories; workers build them again from the start of the log.",
    "schemas": "Message schemas.",
    "doctor": "Check a deployment and say what to change; nothing is changed.",
    "clients": "Programs that may use the API.",
    "keys": "Keys for tokens, audit and data.",
    "audit": "The audit trail.",
    "settings": "Print every setting with its variable and default.",
    "metrics": "Print every metric with its labels and meaning.",
    "bench": "Measurements.",
}


EXTRAS = {
    "api": ("api", "clients", "keys", "audit"),
    "sink": ("sink",),
    "train": ("train", "backtest", "retrain", "drift", "models", "features", "generate"),
    "publish": ("publish",),
    "stream": ("worker", "topics", "state", "rebuild", "verify", "learn", "doctor"),
}
"""Which extra of pyproject.toml has what a command imports; a test looks. Others need all of them."""


def load(name: str) -> Any:
    """The command of this name, imported.

    Raises:
        ConfigError: What it imports is not installed.
    """
    try:
        module = import_module(f"cli.{name}")
    except ModuleNotFoundError as missing:
        extra = next((extra for extra, names in EXTRAS.items() if name in names), None)
        how = f"pip install 'tidegate[{extra}]'" if extra else "install all extras, as 'make setup' does"
        raise ConfigError(
            f"'tidegate {name}' needs the package {missing.name!r}, which is not installed: {how}"
        ) from missing
    group = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        group.command(name)(getattr(module, name))
    command = typer.main.get_command(group)
    command.name = name
    return command


class _LazyGroup(TyperGroup):
    """Lists commands from `COMMANDS` and imports the one that is run."""

    # Typer's own copy of click has no public types.
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else command, rest


app = typer.Typer(
    cls=_LazyGroup,
    name="tidegate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def tidegate() -> None:
    """Streaming fraud and churn scores for a bank.

    Settings come from options or TIDEGATE_* variables.
    """


def main() -> None:
    """Run a command; an error of ours is one sentence and exit code 2, never a traceback."""
    try:
        app()
    except TidegateError as error:
        fail(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
